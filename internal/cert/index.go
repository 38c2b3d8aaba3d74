package cert

import (
	"strings"

	"github.com/fairlead-io/fairlead/internal/route"
)

// maxName is the length of the longest DNS name.
const maxName = 253

// entry is what is presented for one host name of a bind.
type entry struct {
	hostname string
	pairs    []pair // empty: the fallback
	fallback *fallback
}

// index finds the entry for a server name. It is immutable after the last add.
type index struct {
	entries []*entry
	exact   map[string]*entry
	deep    map[string]*entry // wildcards for any number of labels, by suffix with its dot: .example.com
	shallow map[string]*entry // wildcards for one label, by suffix
	any     *entry
}

func newIndex() *index {
	return &index{exact: map[string]*entry{}, deep: map[string]*entry{}, shallow: map[string]*entry{}}
}

// add adds a certificate, unless the same host name has one already that is usable.
func (x *index) add(c route.Certificate, pairs []pair, f *fallback) {
	e := x.get(c)
	if e != nil && len(e.pairs) > 0 {
		return
	}
	if e == nil {
		e = &entry{hostname: c.Hostname}
		x.entries = append(x.entries, e)
		x.put(c, e)
	}
	e.pairs, e.fallback = pairs, f
}

func (x *index) get(c route.Certificate) *entry {
	if c.Hostname == "" {
		return x.any
	}
	return x.names(c)[key(c.Hostname)]
}

func (x *index) put(c route.Certificate, e *entry) {
	if c.Hostname == "" {
		x.any = e
		return
	}
	x.names(c)[key(c.Hostname)] = e
}

// names returns the map that the host name of c belongs to. A star in a listener's host name stands for any number of labels, in an Ingress for one.
func (x *index) names(c route.Certificate) map[string]*entry {
	switch {
	case !strings.HasPrefix(c.Hostname, "*."):
		return x.exact
	case c.Source.Kind == "Ingress":
		return x.shallow
	}
	return x.deep
}

// key returns the suffix of a wildcard, with its dot, or the name itself.
func key(hostname string) string { return strings.TrimPrefix(hostname, "*") }

// find returns the most specific entry for a server name, or nil.
func (x *index) find(serverName string) *entry {
	var buf [maxName]byte
	name, ok := lower(&buf, serverName)
	if !ok || len(name) == 0 {
		return x.any
	}
	if e := x.exact[string(name)]; e != nil {
		return e
	}
	if e := x.wildcard(name); e != nil {
		return e
	}
	return x.any
}

// wildcard returns the entry with the longest suffix that matches the name. The star stands for at least one character.
func (x *index) wildcard(name []byte) *entry {
	if len(x.deep) == 0 && len(x.shallow) == 0 {
		return nil
	}
	first := name[0] != '.'
	for i := 1; i < len(name); i++ {
		if name[i] != '.' {
			continue
		}
		if e := x.deep[string(name[i:])]; e != nil {
			return e
		}
		if e := x.shallow[string(name[i:])]; first && e != nil {
			return e
		}
		first = false
	}
	return nil
}

// lower writes a server name in lower case and without the dot at its end. It refuses one that is too long for a DNS name.
func lower(buf *[maxName]byte, name string) ([]byte, bool) {
	name = strings.TrimSuffix(name, ".")
	if len(name) > maxName {
		return nil, false
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return buf[:len(name)], true
}

// normalize writes the host name of a certificate as find looks it up.
func normalize(hostname string) string {
	return strings.ToLower(strings.TrimSuffix(hostname, "."))
}
