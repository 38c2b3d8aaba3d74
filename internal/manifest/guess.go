package manifest

import (
	"bytes"
	"regexp"

	"github.com/fairlead-io/fairlead/internal/object"
)

// guessFrom names the object that a mapping holds, as far as it can be seen.
func guessFrom(members map[string]any) object.Ref {
	kind, _ := members["kind"].(string)
	metadata, _ := members["metadata"].(map[string]any)
	name, _ := metadata["name"].(string)
	namespace, _ := metadata["namespace"].(string)
	return normal(kind, namespace, name)
}

// normal returns the Ref of what a document says about itself, or the zero Ref if that is not enough to recognise an object.
func normal(kindName, namespace, name string) object.Ref {
	if name == "" || kindName == "" {
		return object.Ref{}
	}
	for _, k := range kinds {
		if k.name == kindName {
			return k.ref(object.Key{Namespace: namespace, Name: name})
		}
	}
	return object.Ref{Kind: kindName, Namespace: namespace, Name: name}
}

var (
	kindLine     = regexp.MustCompile(`(?m)^kind:[ \t]+["']?([A-Za-z]+)["']?[ \t]*(?:#.*)?$`)
	metadataLine = regexp.MustCompile(`(?m)^metadata:[ \t]*(\{.*)?`)
	fieldLine    = regexp.MustCompile(`^(?:name|namespace):[ \t]+["']?[a-z0-9.-]+["']?[ \t]*(?:#.*)?$`)
	fields       = regexp.MustCompile(`(?:^|[{, \t])(name|namespace):[ \t]*["']?([a-z0-9.-]+)`)
)

// guess names the object of a text that cannot be parsed, from the lines that look right: kind at the start of a line, and name and namespace with the
// smallest indentation below metadata, or in braces on its line.
func guess(text []byte) object.Ref {
	kind := kindLine.FindSubmatch(text)
	at := metadataLine.FindSubmatchIndex(text)
	if kind == nil || at == nil {
		return object.Ref{}
	}
	found := map[string]string{}
	take := func(line []byte) {
		for _, f := range fields.FindAllSubmatch(line, -1) {
			if name := string(f[1]); found[name] == "" {
				found[name] = string(f[2])
			}
		}
	}
	if at[2] >= 0 {
		take(text[at[2]:at[3]])
		return normal(string(kind[1]), found["namespace"], found["name"])
	}
	indent := -1
	for line := range bytes.Lines(text[at[1]:]) {
		trimmed := bytes.TrimLeft(line, " \t")
		depth := len(line) - len(trimmed)
		trimmed = bytes.TrimRight(trimmed, " \t\n")
		switch {
		case len(trimmed) == 0 || trimmed[0] == '#':
			continue
		case depth == 0:
			return normal(string(kind[1]), found["namespace"], found["name"])
		case indent < 0:
			indent = depth
		}
		if depth == indent && fieldLine.Match(trimmed) {
			take(trimmed)
		}
	}
	return normal(string(kind[1]), found["namespace"], found["name"])
}
