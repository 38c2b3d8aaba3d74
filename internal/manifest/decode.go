package manifest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// step is one step of a path: a key of a mapping, or an index of a list.
type step struct {
	key   string
	index int // -1 for a key
}

func keyStep(key string) step { return step{key, -1} }

func indexStep(i int) step { return step{"", i} }

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// pathText writes a path the way people do: spec.rules[0].host.
func pathText(path []step) string {
	var b strings.Builder
	for i, s := range path {
		switch {
		case s.index >= 0:
			fmt.Fprintf(&b, "[%d]", s.index)
		case !plainKey.MatchString(s.key):
			fmt.Fprintf(&b, "[%q]", s.key)
		case i > 0:
			b.WriteString("." + s.key)
		default:
			b.WriteString(s.key)
		}
	}
	return b.String()
}

// misfit is a value that does not fit its field.
type misfit struct {
	path    []step
	message string
	fatal   bool
}

// decoder fills the typed objects of the Kubernetes API from plain data, strictly: names are case-sensitive, nothing is converted, and whatever does not fit
// is reported with its path, all of it and not only the first. It decodes what encoding/json would decode, and a test compares the two.
type decoder struct {
	path    []step
	misfits []misfit
	lost    bool // a misfit was fatal
	secret  bool // values are not repeated in messages
}

// decode fills out, a pointer to a struct, and reports what did not fit; ok is false if out cannot be used. If secret, the values that were found are not
// repeated.
func decode(value any, out any, secret bool) (misfits []misfit, ok bool) {
	d := decoder{secret: secret}
	d.value(value, reflect.ValueOf(out).Elem())
	return d.misfits, !d.lost
}

func (d *decoder) fail(fatal bool, format string, args ...any) {
	d.lost = d.lost || fatal
	if len(d.misfits) > maxIssues {
		return
	}
	d.misfits = append(d.misfits, misfit{path: slices.Clone(d.path), message: fmt.Sprintf(format, args...), fatal: fatal})
}

const aText = "a text"

// want reports that the value is of another type than the field.
func (d *decoder) want(what string, found any) {
	hint := ""
	if what == aText {
		switch found.(type) {
		case bool:
			hint = ": put it in quotes (YAML takes y, yes, on, n, no and off for true and false)"
		case int64, uint64, float64:
			hint = ": put it in quotes"
		}
	}
	name := describe(found)
	if d.secret {
		name = describeType(found)
	}
	d.fail(true, "want %s, found %s%s", what, name, hint)
}

func (d *decoder) in(s step, value any, out reflect.Value) {
	d.path = append(d.path, s)
	d.value(value, out)
	d.path = d.path[:len(d.path)-1]
}

func (d *decoder) value(value any, out reflect.Value) {
	if value == nil {
		return // null is the same as nothing
	}
	if out.Kind() == reflect.Pointer {
		out.Set(reflect.New(out.Type().Elem()))
		out = out.Elem()
	}
	if custom, ok := reflect.TypeAssert[json.Unmarshaler](out.Addr()); ok {
		d.custom(value, custom)
		return
	}
	switch out.Kind() {
	case reflect.Struct:
		d.structure(value, out)
	case reflect.Map:
		d.mapping(value, out)
	case reflect.Slice:
		d.list(value, out)
	default:
		d.scalar(value, out)
	}
}

func (d *decoder) structure(value any, out reflect.Value) {
	members, ok := value.(map[string]any)
	if !ok {
		d.want("a mapping", value)
		return
	}
	fields := fieldsOf(out.Type())
	for _, key := range slices.Sorted(maps.Keys(members)) {
		index, ok := fields[key]
		if !ok {
			d.unknown(key, fields)
			continue
		}
		d.in(keyStep(key), members[key], out.FieldByIndex(index))
	}
}

// unknown reports a field that the type does not have. The rest of the object is used without it, as a cluster would.
func (d *decoder) unknown(key string, fields map[string][]int) {
	d.path = append(d.path, keyStep(key))
	if near := nearest(key, slices.Sorted(maps.Keys(fields))); near != "" {
		d.fail(false, "unknown field is ignored; did you mean %s?", near)
	} else {
		d.fail(false, "unknown field is ignored")
	}
	d.path = d.path[:len(d.path)-1]
}

func (d *decoder) mapping(value any, out reflect.Value) {
	members, ok := value.(map[string]any)
	if !ok {
		d.want("a mapping", value)
		return
	}
	out.Set(reflect.MakeMapWithSize(out.Type(), len(members)))
	for _, key := range slices.Sorted(maps.Keys(members)) {
		element := reflect.New(out.Type().Elem()).Elem()
		d.in(keyStep(key), members[key], element)
		out.SetMapIndex(reflect.ValueOf(key).Convert(out.Type().Key()), element)
	}
}

func (d *decoder) list(value any, out reflect.Value) {
	if out.Type().Elem().Kind() == reflect.Uint8 {
		d.bytes(value, out)
		return
	}
	items, ok := value.([]any)
	if !ok {
		d.want("a list", value)
		return
	}
	out.Set(reflect.MakeSlice(out.Type(), len(items), len(items)))
	for i, item := range items {
		d.in(indexStep(i), item, out.Index(i))
	}
}

func (d *decoder) bytes(value any, out reflect.Value) {
	text, ok := value.(string)
	if !ok {
		d.want("base64 text", value)
		return
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		// The value may be a secret: it is not repeated.
		d.fail(true, "want base64 text: %v; plain text belongs in stringData", err)
		return
	}
	out.SetBytes(data)
}

func (d *decoder) scalar(value any, out reflect.Value) {
	switch out.Kind() {
	case reflect.String:
		text, ok := value.(string)
		if !ok {
			d.want(aText, value)
			return
		}
		out.SetString(text)
	case reflect.Bool:
		b, ok := value.(bool)
		if !ok {
			d.want("true or false", value)
			return
		}
		out.SetBool(b)
	default: // the Kubernetes API has no floating-point fields
		d.integer(value, out)
	}
}

func (d *decoder) integer(value any, out reflect.Value) {
	n, ok := asInteger(value)
	_, huge := value.(uint64)
	switch {
	case !ok && !huge:
		d.want("a whole number", value)
	case huge:
		d.want("a number from "+rangeOf(out.Type()), value)
	case out.CanInt() && !out.OverflowInt(n):
		out.SetInt(n)
	case out.CanUint() && n >= 0 && !out.OverflowUint(uint64(n)):
		out.SetUint(uint64(n))
	default:
		d.want("a number from "+rangeOf(out.Type()), value)
	}
}

func rangeOf(t reflect.Type) string {
	if t.Kind() >= reflect.Uint {
		return fmt.Sprintf("0 to %d", uint64(math.MaxUint64)>>(64-t.Bits()))
	}
	return fmt.Sprintf("%d to %d", int64(math.MinInt64)>>(64-t.Bits()), int64(math.MaxInt64)>>(64-t.Bits()))
}

func asInteger(value any) (int64, bool) {
	switch v := value.(type) {
	case int64:
		return v, true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<63 {
			return int64(v), true // YAML writes 1e3, and JSON cannot tell it from 1000
		}
	}
	return 0, false
}

// custom decodes the types that read their own JSON, such as times.
func (d *decoder) custom(value any, out json.Unmarshaler) {
	text, err := json.Marshal(value)
	if err == nil {
		err = out.UnmarshalJSON(text)
	}
	if err == nil {
		return
	}
	switch out.(type) {
	case *metav1.Time, *metav1.MicroTime:
		d.want("a time such as 2026-01-31T12:00:00Z", value)
	case *intstr.IntOrString:
		d.want("a number or a name", value)
	default:
		d.want("another value", value)
	}
}

// describe names a value for people, in at most 60 bytes or so.
func describe(value any) string {
	switch v := value.(type) {
	case nil:
		return "nothing"
	case string:
		if len(v) > 40 {
			v = strings.ToValidUTF8(v[:40], "") + "…"
		}
		return "the text " + strconv.Quote(v)
	case bool:
		return strconv.FormatBool(v)
	case map[string]any, map[any]any, []any:
		return describeType(v)
	}
	return fmt.Sprintf("the number %v", value)
}

// describeType names the type of a value and does not repeat it.
func describeType(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case string:
		return aText
	case bool:
		return "true or false"
	case map[string]any, map[any]any:
		return "a mapping"
	case []any:
		return "a list"
	}
	return "a number"
}

var fieldCache sync.Map // reflect.Type to map[string][]int

// fieldsOf returns the fields of a struct type by their JSON names, those of embedded structs included.
func fieldsOf(t reflect.Type) map[string][]int {
	if have, ok := fieldCache.Load(t); ok {
		return have.(map[string][]int)
	}
	own, embedded := map[string][]int{}, map[string][]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			for inner, index := range fieldsOf(f.Type) {
				embedded[inner] = append([]int{i}, index...)
			}
		case name == "":
			own[f.Name] = []int{i}
		default:
			own[name] = []int{i}
		}
	}
	maps.Copy(embedded, own) // the outer field hides the inner one
	have, _ := fieldCache.LoadOrStore(t, embedded)
	return have.(map[string][]int)
}

// nearest returns the name that word was probably meant to be, or nothing.
func nearest(word string, names []string) string {
	best, limit := "", 1 // how many slips are believed
	if len(word) >= 5 {
		limit = 2
	}
	for _, name := range names {
		if strings.EqualFold(word, name) {
			return name
		}
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d <= limit {
			best, limit = name, d-1
		}
	}
	return best
}

// distance is how many slips lie between two words: a letter too many, one missing, a wrong one, or two neighbours exchanged (optimal string alignment).
// Long words are not compared.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return math.MaxInt
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			d := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				d = 1 + min(d, rows[i-1][j], rows[i][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, 1+rows[i-2][j-2])
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
