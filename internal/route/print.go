package route

import (
	"strconv"
	"strings"
)

// String returns the table as text: ports with their listeners, and in them every rule on one line, in the order in which they are asked, with the object and
// field that it came from behind a "#"; then the pools; then what was rejected. Equal tables have equal texts, and no value that a user wrote can be mistaken
// for something else: what is not plain is quoted as in Go.
//
// A rule reads: host, path, method, headers, query parameters; "|" before each filter; "->" before the backends with their shares, or before the status and
// reason of a fault; timeouts; retries.
func (t *Table) String() string {
	var b strings.Builder
	for i, p := range t.Ports {
		section(&b, i)
		p.print(&b)
	}
	pools := columns{limit: [3]int{60, 60}}
	for _, p := range t.Pools {
		pools.add(p.Source, "pool "+word(p.Key.String(), ""), joinWords(string(p.Protocol), p.TLS.String(), p.Policy.String(), p.Care.String(), p.Retry.String()))
	}
	if len(t.Pools) > 0 {
		section(&b, b.Len())
		pools.print(&b, "")
	}
	rejected := columns{limit: [3]int{60, 60}}
	for _, r := range t.Rejected {
		rejected.add(r.Source, "rejected "+namesText(r.Hostnames), printable(r.Why))
	}
	if len(t.Rejected) > 0 {
		section(&b, b.Len())
		rejected.print(&b, "")
	}
	return b.String()
}

// section begins a new paragraph unless it is the first.
func section(b *strings.Builder, before int) {
	if before > 0 {
		b.WriteByte('\n')
	}
}

func (p *Port) print(b *strings.Builder) {
	b.WriteString(joinWords("port", p.Bind.String(), word(string(p.Protocol), "")) + "\n")
	for _, l := range p.Listeners {
		head := columns{}
		head.add(l.Source, l.text())
		head.print(b, "  ")
		rules := columns{limit: [3]int{32, 40, 70}}
		for _, h := range l.Hosts {
			for _, r := range h.Rules {
				rules.add(r.Source, l.cells(h, r)...)
			}
		}
		rules.print(b, "    ")
	}
}

// cells are the parts of a rule's line. Rules for whole connections match by name alone.
func (l *Listener) cells(h *Host, r *Rule) []string {
	if l.Mode != Requests {
		return []string{nameText(h.Name), r.action()}
	}
	return []string{nameText(h.Name), r.Match.target(), r.rest()}
}

// text is the listener's own line.
func (l *Listener) text() string {
	words := []string{"listener", word(l.Name, ""), nameText(l.Hostname)}
	if l.Port != 0 {
		words = append(words, "port="+strconv.Itoa(int(l.Port)))
	}
	if l.Clients != nil {
		words = append(words, l.Clients.String())
	}
	if l.Mode == Passthrough || l.Mode == Terminate {
		words = append(words, string(l.Mode))
	}
	if l.OneLabelWildcards {
		words = append(words, "one-label-wildcards")
	}
	if l.LastResort {
		words = append(words, "last-resort")
	}
	return joinWords(words...)
}

// columns prints lines of up to three cells and a source with the cells aligned. A cell that is wider than its limit does not widen the column for the others.
type columns struct {
	limit [3]int
	width [3]int
	lines []line
}

type line struct {
	cells  [3]string
	source string
}

func (c *columns) add(s Source, cells ...string) {
	l := line{source: s.String()}
	copy(l.cells[:], cells)
	for i, cell := range l.cells {
		if len(cell) <= c.limit[i] {
			c.width[i] = max(c.width[i], len(cell))
		}
	}
	c.lines = append(c.lines, l)
}

func (c *columns) print(b *strings.Builder, indent string) {
	for _, l := range c.lines {
		b.WriteString(indent)
		pad := 0
		for i, cell := range l.cells {
			if cell == "" {
				continue
			}
			writeSpaces(b, pad)
			b.WriteString(cell)
			pad = max(0, c.width[i]-len(cell)) + 2
		}
		if l.source != "" {
			writeSpaces(b, pad)
			b.WriteString("# " + l.source)
		}
		b.WriteByte('\n')
	}
}

func writeSpaces(b *strings.Builder, n int) {
	for ; n > 0; n-- {
		b.WriteByte(' ')
	}
}
