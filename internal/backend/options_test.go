package backend

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// What the options of a head name does not depend on how the head comes.
func TestOptions(t *testing.T) {
	for _, test := range []struct{ head, gone string }{
		{"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n", ""},
		{"HTTP/1.1 200 OK\r\nConnection: a, close\r\n\r\n", "A"},
		{"HTTP/1.1 200 OK\nconnection:close,a\nB: 1\n\n", "A"},
		{"HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: a,\r\n\tb\r\n\r\n", "A B"},
		{"HTTP/1.1 200 OK\r\nX: y\r\n Connection: a\r\n\r\n", ""},
		{"HTTP/1.1 200 OK\r\nX-Connection: a\r\nConnections: a\r\n\r\n", ""},
		{"HTTP/1.1 200 OK\r\n\r\nConnection: a\r\n", ""},
		{"HTTP/1.1 103 Early Hints\r\nConnection: a\r\n b\r\n\r\nHTTP/1.1 200 OK\r\nConnection: c\r\n\r\n", "C"},
	} {
		for size := 1; size <= len(test.head); size++ {
			var o options
			o.begin()
			for part := range slices.Chunk([]byte(test.head), size) {
				o.pass(part)
			}
			h := http.Header{"A": {"1"}, "B": {"1"}, "C": {"1"}}
			o.remove(h)
			for _, name := range []string{"A", "B", "C"} {
				if want := slices.Contains(strings.Fields(test.gone), name); (h[name] == nil) != want {
					t.Errorf("%q in pieces of %d: %s is gone: %v", test.head, size, name, !want)
				}
			}
		}
	}
}

// Only the head of the next response counts.
func TestOptionsOfEarlierResponses(t *testing.T) {
	var o options
	o.begin()
	o.pass([]byte("HTTP/1.1 200 OK\r\nConnection: a\r\n\r\n"))
	o.begin()
	o.pass([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	h := http.Header{"A": {"1"}}
	if o.remove(h); h["A"] == nil {
		t.Error("a field was removed that another response had for itself")
	}
}
