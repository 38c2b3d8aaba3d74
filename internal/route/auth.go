package route

import "strconv"

// ExternalAuth asks a server whether a request may pass (Gateway API: ExternalAuth). What the server does not allow does not pass, and neither does anything while it
// cannot be asked.
type ExternalAuth struct {
	Pool *Pool // nil when Fault is set
	// Fault, if not nil, answers every request: the server does not exist, or may not be referenced.
	Fault *Fault
	// GRPC says that the server speaks Envoy's ext_authz protocol over gRPC. Otherwise it is sent a request like the client's and allows it with a 200.
	GRPC bool
	// PathPrefix is put before the path that an HTTP server is asked with; "" or a path without a slash at its end.
	PathPrefix string
	// RequestHeaders are sent to the server: to one of HTTP these and Authorization; to one of gRPC these, or all if there are none.
	RequestHeaders []string
	// ResponseHeaders are copied from the answer of an HTTP server to the request; a client cannot set them. If there are none all are that are about the client
	// and not about the answer.
	ResponseHeaders []string
	MaxBody         int // bytes; larger bodies are refused. 0: the server does not get the body
}

// String returns the filter on one line, such as "auth grpc shop/auth:9000 body=1024" or "auth 500 no-backend".
func (f *ExternalAuth) String() string {
	if f.Fault != nil {
		return "auth " + f.Fault.String()
	}
	protocol, body := "http", ""
	if f.GRPC {
		protocol = "grpc"
	}
	if f.MaxBody > 0 {
		body = "body=" + strconv.Itoa(f.MaxBody)
	}
	path := ""
	if f.PathPrefix != "" {
		path = "path=" + word(f.PathPrefix, pathMarks)
	}
	return joinWords("auth", protocol, word(f.Pool.Key.String(), ""), path, listSetting("headers", f.RequestHeaders),
		listSetting("response-headers", f.ResponseHeaders), body)
}

func (*ExternalAuth) filter() {}
