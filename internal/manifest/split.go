package manifest

import (
	"bytes"
	"encoding/json"
	"strings"
)

// chunk is the text of one document and where it stands in its file.
type chunk struct {
	text   []byte
	before int // lines of the file before it
	isJSON bool
}

// split cuts the text of a file into documents. Text without content, such as comments, is left out.
func split(text []byte, isJSON bool) []chunk {
	if isJSON || bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) {
		if chunks, ok := splitJSON(text); ok || isJSON {
			return chunks
		}
	}
	var out []chunk
	line := 0
	current := chunk{}
	start, at := 0, 0
	flush := func(end int) {
		current.text = text[start:end]
		if hasContent(current.text) {
			out = append(out, current)
		}
	}
	for at < len(text) {
		end := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if isMarker(text[at:end]) {
			flush(at)
			start, current.before = at, line
			if text[at] == '.' {
				start += 3 // the parser would take it for a document of its own
			}
		}
		at = end
		line++
	}
	flush(len(text))
	return out
}

// isMarker reports whether a line ends a document (...) or begins one (---). Inside a document no line may look like that, not even in a block of text.
func isMarker(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0
}

// hasContent reports whether there is anything but comments, directives and markers.
func hasContent(text []byte) bool {
	return contentLine(text) > 0
}

// contentLine returns the first line with content, from 1, or 0.
func contentLine(text []byte) int {
	for n := 1; len(text) > 0; n++ {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		if n == 1 && isMarker(line) {
			line = line[3:]
		}
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return n
		}
		text = rest
	}
	return 0
}

// splitJSON cuts a file of one or more JSON values. ok is false if it is not all JSON; the last chunk then is the rest that is not.
func splitJSON(text []byte) (out []chunk, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	at, line := 0, 0
	for {
		rest := text[at:]
		skip := len(rest) - len(bytes.TrimLeft(rest, " \t\r\n"))
		line += bytes.Count(rest[:skip], []byte("\n"))
		at += skip
		if at == len(text) {
			return out, true
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return append(out, chunk{text: text[at:], before: line, isJSON: true}), false
		}
		end := int(dec.InputOffset())
		out = append(out, chunk{text: text[at:end], before: line, isJSON: true})
		line += bytes.Count(text[at:end], []byte("\n"))
		at = end
	}
}
