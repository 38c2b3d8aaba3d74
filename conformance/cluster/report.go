package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// ReportDifferences compares two reports of the Gateway API's conformance suite and says, one line each, what is only in the first (-) and what is only in the second (+).
// When a report was made, and of which version, makes no difference, nor does the order of profiles and features.
func ReportDifferences(from, to []byte) ([]string, error) {
	before, err := statements(from)
	if err != nil {
		return nil, fmt.Errorf("read the first report: %w", err)
	}
	after, err := statements(to)
	if err != nil {
		return nil, fmt.Errorf("read the second report: %w", err)
	}
	var out []string
	for _, s := range slices.Sorted(maps.Keys(before)) {
		if !after[s] {
			out = append(out, "- "+s)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(after)) {
		if !before[s] {
			out = append(out, "+ "+s)
		}
	}
	return out, nil
}

// statements are what a report says: for each value the path to it, where the elements of a list are told apart by their names, or are values themselves.
func statements(report []byte) (map[string]bool, error) {
	text, err := yaml.ToJSON(report)
	if err != nil {
		return nil, err
	}
	var root map[string]any
	if err := json.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	if root["kind"] != "ConformanceReport" {
		return nil, fmt.Errorf("it is of kind %v, not ConformanceReport", root["kind"])
	}
	delete(root, "date")
	if of, ok := root["implementation"].(map[string]any); ok {
		delete(of, "version")
	}
	out := map[string]bool{}
	state("", root, out)
	return out, nil
}

func state(path string, value any, out map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			state(path+"."+key, inner, out)
		}
	case []any:
		for _, inner := range v {
			if named, ok := inner.(map[string]any); ok {
				state(fmt.Sprintf("%s[%v]", path, named["name"]), inner, out)
			} else {
				state(path+"[]", inner, out)
			}
		}
	default:
		out[fmt.Sprintf("%s: %v", path[1:], v)] = true
	}
}
