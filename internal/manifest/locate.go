package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"

	"go.yaml.in/yaml/v2"
)

// located is a value with the lines of its parts. A nil *located is a null.
type located struct {
	line    int
	value   any // of a scalar
	mapping bool
	list    bool
	members map[string]member
	items   []*located

	duplicates []duplicate // of this mapping
}

// member is one entry of a mapping: where its key is written, and its value.
type member struct {
	line  int
	value *located
}

// locate parses text again, this time with positions. It returns nil when that is not possible.
func locate(text []byte, isJSON bool) (l *located) {
	if isJSON {
		l, _ = locateJSON(text)
		return l
	}
	defer func() {
		if recover() != nil {
			l = nil
		}
	}()
	if err := yaml.Unmarshal(text, &l); err != nil {
		return nil
	}
	return l
}

// find returns the line of the value at path, or of the nearest parent that is there.
func (l *located) find(path []step) int {
	line := 0
	for i := 0; l != nil; i++ {
		line = cmp.Or(line, l.line)
		if i == len(path) {
			break
		}
		next := (*located)(nil)
		switch s := path[i]; {
		case s.index < 0:
			if m, ok := l.members[s.key]; ok {
				line, next = m.line, m.value
			}
		case s.index < len(l.items):
			if next = l.items[s.index]; next != nil {
				line = next.line
			}
		}
		l = next
	}
	return line
}

// plain returns the value without positions.
func (l *located) plain(depth int) (any, error) {
	switch {
	case depth > maxDepth:
		return nil, errDeep
	case l == nil:
		return nil, nil
	case l.mapping:
		out := make(map[string]any, len(l.members))
		for k, m := range l.members {
			value, err := m.value.plain(depth + 1)
			if err != nil {
				return nil, err
			}
			out[k] = value
		}
		return out, nil
	case l.list:
		out := make([]any, len(l.items))
		for i, item := range l.items {
			value, err := item.plain(depth + 1)
			if err != nil {
				return nil, err
			}
			out[i] = value
		}
		return out, nil
	}
	return l.value, nil
}

// allDuplicates returns the keys that are written twice in l or anywhere inside it, in the order of their lines.
func (l *located) allDuplicates() []duplicate {
	var out []duplicate
	l.walk(func(l *located) { out = append(out, l.duplicates...) })
	slices.SortFunc(out, func(a, b duplicate) int { return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.key, b.key)) })
	return slices.Compact(out)
}

func (l *located) walk(visit func(*located)) {
	if l == nil {
		return
	}
	visit(l)
	for _, m := range l.members {
		m.value.walk(visit)
	}
	for _, item := range l.items {
		item.walk(visit)
	}
}

// locatedKey is a key of a mapping. Each has a number of its own, so that a key that is written twice is two keys, in their order.
type locatedKey struct {
	line   int
	number uint64
	text   string
}

var keyNumber atomic.Uint64

// UnmarshalYAML implements yaml.Unmarshaler.
func (k *locatedKey) UnmarshalYAML(unmarshal func(any) error) error {
	var raw any
	if err := unmarshal(&raw); err != nil {
		return err
	}
	text, ok := keyText(raw)
	if !ok {
		return fmt.Errorf("%s is not possible as a key", describe(raw))
	}
	*k = locatedKey{line: lineOf(unmarshal), number: keyNumber.Add(1), text: text}
	return nil
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (l *located) UnmarshalYAML(unmarshal func(any) error) error {
	if l.line = lineOf(unmarshal); l.line == 0 {
		return nil // a null, which fits everywhere
	}
	var mapping map[locatedKey]*located
	if unmarshal(&mapping) == nil {
		l.mapping = true
		l.setMembers(mapping)
		return nil
	}
	if unmarshal(&l.items) == nil {
		l.list = true
		return nil
	}
	if err := unmarshal(&l.value); err != nil {
		return err
	}
	if n, ok := l.value.(int); ok {
		l.value = int64(n)
	}
	return nil
}

// setMembers keeps one value of each key. A key that was merged in (<<) gives way to one that is written in the mapping itself; it is known by its line, as
// an anchor stands before its alias.
func (l *located) setMembers(mapping map[locatedKey]*located) {
	keys := make([]locatedKey, 0, len(mapping))
	for k := range mapping {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b locatedKey) int { return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.number, b.number)) })
	l.members = make(map[string]member, len(keys))
	for _, k := range keys {
		if have, ok := l.members[k.text]; ok && have.line >= l.line {
			l.duplicates = append(l.duplicates, duplicate{line: k.line, key: k.text})
			continue
		}
		l.members[k.text] = member{line: k.line, value: mapping[k]}
	}
}

var probeLine = regexp.MustCompile(`line (\d+): cannot unmarshal`)

// lineOf returns the line of the value that unmarshal decodes. The parser tells it only in the error of a value that does not fit, and nothing fits a channel.
func lineOf(unmarshal func(any) error) int {
	var nothing chan struct{}
	if err := unmarshal(&nothing); err != nil {
		if m := probeLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ := strconv.Atoi(m[1])
			return line
		}
	}
	return 0
}

// jsonReader builds located values from the tokens of a JSON text.
type jsonReader struct {
	text   []byte
	dec    *json.Decoder
	offset int // up to which lines were counted
	line   int
}

func locateJSON(text []byte) (*located, error) {
	r := &jsonReader{text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1}
	r.dec.UseNumber()
	return r.value(0)
}

// token returns the next token and the line where it ends. No token of JSON spans lines.
func (r *jsonReader) token() (json.Token, int, error) {
	t, err := r.dec.Token()
	if err != nil {
		return nil, 0, err
	}
	end := int(r.dec.InputOffset())
	r.line += bytes.Count(r.text[r.offset:end], []byte("\n"))
	r.offset = end
	return t, r.line, nil
}

func (r *jsonReader) value(depth int) (*located, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	t, line, err := r.token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case json.Delim:
		l := &located{line: line, mapping: t == '{', list: t == '['}
		if err := r.fill(l, depth); err != nil {
			return nil, err
		}
		_, _, err := r.token()
		return l, err
	case json.Number:
		return &located{line: line, value: number(t)}, nil
	case nil:
		return nil, nil
	}
	return &located{line: line, value: t}, nil
}

// fill reads the members or items of l.
func (r *jsonReader) fill(l *located, depth int) error {
	if l.mapping {
		l.members = map[string]member{}
	}
	for r.dec.More() {
		if l.list {
			item, err := r.value(depth + 1)
			if err != nil {
				return err
			}
			l.items = append(l.items, item)
			continue
		}
		t, line, err := r.token()
		if err != nil {
			return err
		}
		value, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		key := fmt.Sprint(t)
		if _, ok := l.members[key]; ok {
			l.duplicates = append(l.duplicates, duplicate{line: line, key: key})
			continue
		}
		l.members[key] = member{line: line, value: value}
	}
	return nil
}

// number returns an int64 or uint64 if n is one, and a float64 otherwise.
func number(n json.Number) any {
	if i, err := strconv.ParseInt(n.String(), 10, 64); err == nil {
		return i
	}
	if u, err := strconv.ParseUint(n.String(), 10, 64); err == nil {
		return u
	}
	f, _ := strconv.ParseFloat(n.String(), 64)
	return f
}

// jsonSyntaxError gives a JSON error its line.
func jsonSyntaxError(err error, text []byte) *syntaxError {
	at := len(text)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = min(int(syntax.Offset), len(text))
	}
	message := err.Error()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		message = "text ends too early"
	}
	return &syntaxError{line: 1 + bytes.Count(text[:at], []byte("\n")), message: "not valid JSON: " + message}
}
