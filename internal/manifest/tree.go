package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v2"
)

// A parsed document is plain data: map[string]any, []any, string, bool, int64, uint64, float64 and nil, whether it was written as YAML or JSON.
// YAML means what it means to kubectl, YAML 1.1 included (yes is true, 0777 is octal), because the same files must mean the same in a cluster.
//
// The YAML parser gives no positions with its values. They are found by a second, slower pass that is made only when there is something to point at.

// syntaxError is a document that cannot be parsed at all.
type syntaxError struct {
	line    int // in the document, from 1; 0 if unknown
	message string
}

func (e *syntaxError) Error() string { return e.message }

// duplicate is a key that is written twice in one mapping.
type duplicate struct {
	line int
	key  string
}

// parseYAML parses the text of one document. repeated says that a key is written twice somewhere, or that a merged key is overridden; locate tells which.
func parseYAML(text []byte) (value any, repeated bool, err error) {
	if values := countValues(text); values > maxValues {
		return nil, false, &syntaxError{message: fmt.Sprintf("document holds about %d values; the limit is %d", values, maxValues)}
	}
	defer func() {
		if r := recover(); r != nil { // the parser is not ours, and one document must not end the process
			value, err = nil, &syntaxError{message: fmt.Sprintf("document cannot be parsed: %v", r)}
		}
	}()
	var raw any
	err = yaml.UnmarshalStrict(text, &raw)
	if _, ok := errors.AsType[*yaml.TypeError](err); ok {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, yamlSyntaxError(err, text)
	}
	if value, err = plain(raw, 0); errors.Is(err, errRepeated) {
		return nil, true, nil
	}
	return value, false, err
}

// countValues returns an upper bound for the number of values that text can hold, without parsing it.
func countValues(text []byte) int {
	n := 1
	for i, c := range text {
		switch c {
		case ',', ':', '[', '{', '?':
			n++
		case '-':
			if i+1 == len(text) || text[i+1] == ' ' || text[i+1] == '\n' || text[i+1] == '\r' || text[i+1] == '\t' {
				n++
			}
		}
	}
	return n
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// yamlSyntaxError gives a parser's error its true line, and a hint where the cause is a usual one.
func yamlSyntaxError(err error, text []byte) *syntaxError {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = message[len(m[0]):]
		if isGrammarError(message) {
			line++ // the parser counts the lines of these errors from 0
		}
	}
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	if line == 0 {
		line = suspect(message, lines)
	}
	line = min(line, len(lines))
	message = discreet(message)
	switch {
	case bytes.Contains(text, []byte("{{")):
		message += "; this looks like a template: render it first"
		line = cmp.Or(line, lineWith(lines, func(l []byte) bool { return bytes.Contains(l, []byte("{{")) }))
	case line > 0 && tabIndent.Match(lines[line-1]):
		message = "line is indented with a tab; YAML is indented with spaces"
	}
	return &syntaxError{line: line, message: "not valid YAML: " + message}
}

var (
	tabIndent  = regexp.MustCompile("^ *\t")
	anchorName = regexp.MustCompile(`anchor '([^']*)'`)
)

// suspect finds the line that a message without one is about, or 0.
func suspect(message string, lines [][]byte) int {
	if m := anchorName.FindStringSubmatch(message); m != nil {
		return lineWith(lines, func(l []byte) bool { return bytes.Contains(l, []byte("*"+m[1])) })
	}
	switch {
	case strings.Contains(message, "control characters"):
		return lineWith(lines, func(l []byte) bool {
			return bytes.ContainsFunc(l, func(c rune) bool { return unicode.IsControl(c) && c != '\t' })
		})
	case strings.Contains(message, "UTF-8"):
		return lineWith(lines, func(l []byte) bool { return !utf8.Valid(l) })
	}
	return 0
}

// lineWith returns the first line that fits, from 1, or 0.
func lineWith(lines [][]byte, fits func([]byte) bool) int { return 1 + slices.IndexFunc(lines, fits) }

// discreet takes the values out of those messages of the parser that repeat them: they may be secrets.
func discreet(message string) string {
	switch {
	case strings.HasPrefix(message, "cannot decode"):
		return "a value does not fit its tag"
	case strings.HasPrefix(message, "invalid map key"):
		return "a mapping cannot be a key"
	}
	return message
}

// isGrammarError reports whether the message comes from the parser's grammar and not from its scanner.
func isGrammarError(message string) bool {
	return strings.HasPrefix(message, "did not find expected") && !strings.Contains(message, "hexdecimal") && !strings.Contains(message, "whitespace") &&
		!strings.Contains(message, "digit") && !strings.Contains(message, "comment")
}

var errRepeated = errors.New("a key is written twice")

var errDeep = &syntaxError{message: fmt.Sprintf("mappings and lists are nested deeper than %d", maxDepth)}

// plain turns what the YAML parser returns into plain data.
func plain(raw any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	switch raw := raw.(type) {
	case map[any]any:
		out := make(map[string]any, len(raw))
		for k, v := range raw {
			key, ok := keyText(k)
			if !ok {
				return nil, &syntaxError{message: fmt.Sprintf("%s is not possible as a key", describe(k))}
			}
			value, err := plain(v, depth+1)
			if err != nil {
				return nil, err
			}
			if _, ok := out[key]; ok {
				return nil, errRepeated // 1 and "1" are two keys to YAML
			}
			out[key] = value
		}
		return out, nil
	case []any:
		for i, v := range raw {
			value, err := plain(v, depth+1)
			if err != nil {
				return nil, err
			}
			raw[i] = value
		}
		return raw, nil
	case int:
		return int64(raw), nil
	}
	return raw, nil
}

// keyText returns the key as it would be written in JSON.
func keyText(k any) (string, bool) {
	switch k := k.(type) {
	case string:
		return k, true
	case int, int64, uint64, bool:
		return fmt.Sprint(k), true
	case float64:
		return strconv.FormatFloat(k, 'g', -1, 32), true
	}
	return "", false
}
