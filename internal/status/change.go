package status

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// change collects what has to be done to the status of one version of one object. It says which of the entries of a list to replace, to add or to remove, by
// their places, and nothing of the others; so it is good for that version only.
type change struct {
	about object.Ref
	now   metav1.Time
	ops   []operation
	whole any // the status of an object that has none yet, in place of ops
	// counts is how many of ops change only how many routes or ListenerSets are attached.
	counts   int
	problems []compile.Problem // what the status cannot hold
}

// operation is one operation of a JSON Patch (RFC 6902). Paths begin at the status.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from,omitempty"`
	Value any    `json:"value,omitempty"`
}

// empty tells whether the status is as it should be.
func (c *change) empty() bool { return len(c.ops) == 0 && c.whole == nil }

// minor tells whether nothing but counts changes.
func (c *change) minor() bool { return c.whole == nil && len(c.ops) == c.counts }

// set sets a field, whether it is there or not.
func (c *change) set(path string, value any) {
	c.ops = append(c.ops, operation{Op: "add", Path: path, Value: value})
}

// unset removes a field that is there.
func (c *change) unset(path string) { c.ops = append(c.ops, operation{Op: "remove", Path: path}) }

// count sets a field that is a number of attached objects.
func (c *change) count(path string, value int32) {
	c.set(path, value)
	c.counts++
}

func (c *change) replace(list string, i int, value any) {
	c.ops = append(c.ops, operation{Op: "replace", Path: entry(list, i), Value: value})
}

func (c *change) append(list string, value any) {
	c.ops = append(c.ops, operation{Op: "add", Path: list + "/-", Value: value})
}

func (c *change) insert(list string, i int, value any) {
	c.ops = append(c.ops, operation{Op: "add", Path: entry(list, i), Value: value})
}

func (c *change) move(list string, from, to int) {
	c.ops = append(c.ops, operation{Op: "move", Path: entry(list, to), From: entry(list, from)})
}

// remove removes the entries at the given places, which are in ascending order and are those before any of them is removed.
func (c *change) remove(list string, places []int) {
	for _, i := range slices.Backward(places) {
		c.ops = append(c.ops, operation{Op: "remove", Path: entry(list, i)})
	}
}

// complain notes what the status at path cannot hold.
func (c *change) complain(path, code, format string, args ...any) {
	c.problems = append(c.problems, compile.Problem{
		Object: c.about, Field: "status" + path, Code: code, Severity: compile.Warning, Message: fmt.Sprintf(format, args...),
	})
}

func entry(list string, i int) string { return list + "/" + strconv.Itoa(i) }

// patch returns the change as a patch that the API server takes only for the object of this very resourceVersion.
func (c *change) patch(resourceVersion string) (types.PatchType, []byte, error) {
	if c.whole != nil {
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": resourceVersion}, "status": c.whole})
		return types.MergePatchType, body, err
	}
	ops := make([]operation, 0, len(c.ops)+1)
	// This one has to be answered with a conflict if the object is another by now, whatever the others would do to it.
	ops = append(ops, operation{Op: "replace", Path: "/metadata/resourceVersion", Value: resourceVersion})
	for _, op := range c.ops {
		op.Path = "/status" + op.Path
		if op.From != "" {
			op.From = "/status" + op.From
		}
		ops = append(ops, op)
	}
	body, err := json.Marshal(ops)
	return types.JSONPatchType, body, err
}
