package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
)

// helloOf returns the ClientHello that crypto/tls sends with a configuration.
func helloOf(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	config.InsecureSkipVerify = true
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	go func() { _ = tls.Client(theirs, config).Handshake() }()
	buf := make([]byte, maxHello)
	n, err := ours.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// inRecords spreads the message in one record over records of at most size bytes.
func inRecords(hello []byte, size int) (out []byte) {
	for part := range slices.Chunk(hello[recordHeader:], size) {
		out = append(out, hello[0], hello[1], hello[2], byte(len(part)>>8), byte(len(part)))
		out = append(out, part...)
	}
	return out
}

// message is a ClientHello with extensions, in one record.
func message(extensions ...[]byte) []byte {
	var all []byte
	for _, e := range extensions {
		all = append(all, e...)
	}
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 1, 1, 0)
	if extensions != nil {
		body = append(body, byte(len(all)>>8), byte(len(all)))
		body = append(body, all...)
	}
	m := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(m) >> 8), byte(len(m))}, m...)
}

func extension(kind uint16, value ...byte) []byte {
	return append([]byte{byte(kind >> 8), byte(kind), byte(len(value) >> 8), byte(len(value))}, value...)
}

func nameExtension(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(list, 0, byte(len(n)>>8), byte(len(n)))
		list = append(list, n...)
	}
	return extension(0, append([]byte{byte(len(list) >> 8), byte(len(list))}, list...)...)
}

func TestHello(t *testing.T) {
	named := helloOf(t, &tls.Config{ServerName: "DB.Example.com", NextProtos: []string{"h2"}})
	grease := extension(0x0a0a)
	tests := []struct {
		name  string
		bytes []byte
		want  string
	}{
		{"as crypto/tls sends it", named, "db.example.com"},
		{"TLS 1.2", helloOf(t, &tls.Config{ServerName: "a.b", MaxVersion: tls.VersionTLS12}), "a.b"},
		{"without a name", helloOf(t, &tls.Config{}), ""},
		{"an address is no name", helloOf(t, &tls.Config{ServerName: "127.0.0.1"}), ""},
		{"a byte a record", inRecords(named, 1), "db.example.com"},
		{"three records", inRecords(named, len(named)/2), "db.example.com"},
		{"what follows does not matter", append(slices.Clone(named), 23, 3, 3, 0, 1, 0), "db.example.com"},
		{"without extensions", message(), ""},
		{"with none", message([]byte{}), ""},
		{"behind unknown ones", message(grease, extension(0x7a7a, 1, 2, 3), nameExtension("a.example.com"), grease), "a.example.com"},
		{"with a dot at the end", message(nameExtension("a.example.com.")), "a.example.com"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name, done, err := parseHello(tt.bytes)
			if name != tt.want || !done || err != nil {
				t.Errorf("got %q, %v, %v", name, done, err)
			}
		})
	}
	// However it is cut, there is no answer before it is there as a whole, and no error.
	for _, b := range [][]byte{named, inRecords(named, 7)} {
		for n := range b {
			if name, done, err := parseHello(b[:n]); name != "" || done || err != nil {
				t.Fatalf("after %d of %d bytes: %q, %v, %v", n, len(b), name, done, err)
			}
		}
	}
}

func TestNoHello(t *testing.T) {
	hello := message(nameExtension("a.example.com"))
	change := func(at int, b ...byte) []byte {
		c := slices.Clone(hello)
		copy(c[at:], b)
		return c
	}
	tests := []struct {
		name, want string
		bytes      []byte
	}{
		{"HTTP", "not TLS", []byte("GET / HTTP/1.1\r\n")},
		{"one byte of it", "not TLS", []byte("G")},
		{"SSL 2", "not TLS", []byte{0x80, 0x2e, 1, 0, 2}},
		{"another version of records", "not TLS", change(1, 2)},
		{"an alert first", "not TLS", []byte{21, 3, 1, 0, 2, 1, 0}},
		{"an alert in between", "not TLS", append(inRecords(hello, 20)[:25], 21, 3, 1, 0, 2, 1, 0)},
		{"an empty record", "a record of 0 bytes", change(3, 0, 0)},
		{"a record that is too long", "a record of 16385 bytes", change(3, 0x40, 1)},
		{"a ServerHello", "of type 2", change(5, 2)},
		{"a message that is too long", "it has 65536 bytes", change(6, 1, 0, 0)},
		{"two names in two extensions", "twice", message(nameExtension("a.com"), nameExtension("b.com"))},
		{"two names in one extension", "not one host name", message(nameExtension("a.com", "b.com"))},
		{"no name in the list", "not one host name", message(extension(0, 0, 0))},
		{"an empty name", "0 bytes", message(nameExtension(""))},
		{"a name that is too long", "256 bytes", message(nameExtension(strings.Repeat("a", 256)))},
		{"another kind of name", "not one host name", message(extension(0, 0, 4, 1, 0, 1, 'a'))},
		{"bytes behind the list", "not one host name", message(append(nameExtension("a.com")[:3:3], append([]byte{9}, append(nameExtension("a.com")[4:], 0)...)...))},
		{"an extension that is cut off", "do not add up", message([]byte{0, 1, 0, 9, 1})},
		{"half an extension", "do not add up", message([]byte{0})},
		{"a session that is too long", "do not add up", change(5+4+2+32, 255)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name, done, err := parseHello(tt.bytes)
			if err == nil || !strings.Contains(err.Error(), tt.want) || done || name != "" {
				t.Errorf("got %q, %v, %v; want an error with %q", name, done, err, tt.want)
			}
		})
	}
}

func TestHelloProtocols(t *testing.T) {
	one, two := extension(16, 0, 2, 1, 'a'), extension(16, 0, 4, 1, 'a', 1, 'b')
	for _, tt := range []struct {
		name  string
		bytes []byte
		want  []string
	}{
		{"as crypto/tls sends it", helloOf(t, &tls.Config{ServerName: "a.test", NextProtos: []string{"acme-tls/1", "h2"}}), []string{"acme-tls/1", "h2"}},
		{"in small records", inRecords(helloOf(t, &tls.Config{ServerName: "a.test", NextProtos: []string{"h2"}}), 9), []string{"h2"}},
		{"behind the name", message(nameExtension("a.test"), two), []string{"a", "b"}},
		{"none", message(nameExtension("a.test")), nil},
		{"no extensions", message(), nil},
		{"twice", message(one, two), nil},
		{"twice the same", message(one, one), nil},
		{"a list that is too long", message(extension(16, 0, 9, 1, 'a')), nil},
		{"bytes behind the list", message(extension(16, 0, 2, 1, 'a', 0)), nil},
		{"a protocol that is cut off", message(extension(16, 0, 2, 5, 'a')), nil},
	} {
		if got := helloProtocols(tt.bytes); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzHello compares parseHello with crypto/tls: who gets to see a connection must not be told another name than the one that it was routed by.
func FuzzHello(f *testing.F) {
	named := helloOf(f, &tls.Config{ServerName: "db.example.com"})
	for _, b := range [][]byte{
		named, inRecords(named, 50), message(), message(nameExtension("a.com")), message(nameExtension("a.com"), nameExtension("b.com")),
		message(extension(0x0a0a), nameExtension("A.com.")), []byte("GET / HTTP/1.1\r\n"),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		name, done, err := parseHello(b)
		if done == (err != nil) && done {
			t.Fatalf("done and failed: %q, %v", name, err)
		}
		seen, protocols, ok := seenByTLS(b)
		if ours := helloProtocols(b); ok && done && !slices.Equal(protocols, ours) {
			t.Errorf("crypto/tls sees the protocols %q, and this %q", protocols, ours)
		}
		if ok && done && seen != name {
			t.Errorf("crypto/tls sees %q, and this %q", seen, name)
		}
		if ok && err != nil && !errors.As(err, new(*helloError)) {
			t.Errorf("crypto/tls takes what is refused with %v", err)
		}
	})
}

var errSeen = errors.New("seen")

// seenByTLS returns the server name and the protocols that crypto/tls sees in a ClientHello.
func seenByTLS(b []byte) (name string, protocols []string, ok bool) {
	config := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, protocols, ok = normalName(h.ServerName), h.SupportedProtos, true
		return nil, errSeen
	}}
	_ = tls.Server(readOnly{Reader: bytes.NewReader(b)}, config).Handshake()
	return name, protocols, ok
}

// readOnly is a connection that swallows what is written to it.
type readOnly struct {
	*bytes.Reader
	net.Conn
}

func (r readOnly) Read(b []byte) (int, error)  { return r.Reader.Read(b) }
func (r readOnly) Write(b []byte) (int, error) { return len(b), nil }
func (r readOnly) Close() error                { return nil }
