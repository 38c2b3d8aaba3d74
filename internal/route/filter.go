package route

// Filter changes a request, its response, or answers it. The types in this file are all there are; a switch over them must handle each.
// A filter is immutable and prints as one word with its parameters.
type Filter interface {
	filter()
	String() string
}

// Header is one name and value. Name is in canonical form.
type Header struct{ Name, Value string }

// HeaderChange sets, adds and removes headers, in this order: remove, set, add. Names are in canonical form.
type HeaderChange struct {
	Set    []Header
	Add    []Header
	Remove []string
}

// RequestHeaders changes the headers of the request before it goes to the backend (Gateway API: RequestHeaderModifier).
type RequestHeaders struct{ HeaderChange }

// ResponseHeaders changes the headers of the response before it goes to the client (Gateway API: ResponseHeaderModifier).
type ResponseHeaders struct{ HeaderChange }

// PathChange replaces the path of a request. Exactly one of the pointers is set.
type PathChange struct {
	Full *string // the whole path becomes this
	// Prefix replaces the prefix that the rule matched, by path element: with the match /foo and the replacement /bar, /foo/x becomes /bar/x.
	Prefix *string
}

// Redirect answers the request with a redirect (Gateway API: RequestRedirect). Empty fields keep what the request had.
type Redirect struct {
	Scheme   string
	Hostname string
	// Port is the port of the target. 0: with a Scheme the well-known port of that scheme, without one the port of the listener.
	Port   uint16
	Path   *PathChange
	Status int // 301, 302, 303, 307 or 308
}

// Rewrite changes the request's host and path before it goes to the backend (Gateway API: URLRewrite).
type Rewrite struct {
	Hostname string // "" keeps it
	Path     *PathChange
}

func (*RequestHeaders) filter()  {}
func (*ResponseHeaders) filter() {}
func (*Redirect) filter()        {}
func (*Rewrite) filter()         {}
