package backend

import (
	"bytes"
	"net/http"
	"strings"
)

// options finds the connection options in the heads of HTTP/1 responses as they go by: the names of fields that are for this connection only (RFC 9110, section
// 7.6.1). http.Transport forgets them when one of the options is close. The zero value looks at nothing until begin.
//
// It belongs to whoever reads from the connection. begin is called while a Read waits for the first byte of the response, with the receiver locked, and remove
// when http.Transport has returned that.
type options struct {
	on     bool // a head is coming
	first  bool // its first line has not ended yet
	more   bool // it is a 1xx, after which another follows
	ours   bool // the last line was a Connection field, or went on with one
	line   []byte
	values []byte // of the Connection fields, each with a comma before it
}

const connectionField = "connection:"

// begin says that a request is about to be sent.
func (o *options) begin() {
	*o = options{on: true, first: true, line: o.line[:0], values: o.values[:0]}
}

// pass looks at what has come.
func (o *options) pass(p []byte) {
	for o.on && len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			o.line = append(o.line, p...)
			return
		}
		line := p[:i]
		if len(o.line) > 0 {
			o.line = append(o.line, line...)
			line = o.line
		}
		o.see(bytes.TrimRight(line, "\r"))
		o.line, p = o.line[:0], p[i+1:]
	}
}

// see looks at one line.
func (o *options) see(line []byte) {
	switch {
	case o.first:
		_, status, _ := bytes.Cut(line, []byte(" "))
		o.first, o.more = false, len(status) >= 3 && status[0] == '1' && !bytes.HasPrefix(status, []byte("101"))
	case len(line) == 0:
		o.on, o.first, o.ours = o.more, o.more, false
	case line[0] == ' ' || line[0] == '\t': // goes on with the line before
		if o.ours && !o.more {
			o.values = append(o.values, line...)
		}
	default:
		o.ours = len(line) >= len(connectionField) && strings.EqualFold(string(line[:len(connectionField)]), connectionField)
		if o.ours && !o.more {
			o.values = append(append(o.values, ','), line[len(connectionField):]...)
		}
	}
}

// remove removes the fields that the options name.
func (o *options) remove(h http.Header) {
	if len(o.values) == 0 {
		return
	}
	for name := range strings.SplitSeq(string(o.values), ",") {
		if name = strings.TrimSpace(name); name != "" {
			h.Del(name)
		}
	}
}
