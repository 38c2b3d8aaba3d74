package compile

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// FuzzCompile takes one of the golden inputs, drops optional fields, repeats and cuts lists and puts in absurd values, whatever an API server would say to that.
// The compiler must not panic, must say the same twice, must not reach into namespaces without a grant, and must serve the neighbours as before.
func FuzzCompile(f *testing.F) {
	dirs := goldenDirs(f)
	inputs := make([]string, len(dirs))
	for i, dir := range dirs {
		inputs[i] = readFile(f, filepath.Join(dir, "in.yaml"))
		for seed := range uint64(3) {
			f.Add(uint16(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, dir uint16, seed uint64) {
		input := inputs[int(dir)%len(inputs)]
		opt := parseOptions(t, input)
		opt.GatewayController, opt.IngressController = "", ""
		in := load(t, input)
		random := rand.New(rand.NewPCG(seed, 1))
		mutateAll(random, in)
		addNeighbour(in)
		bind := route.Bind{Port: 9999}
		if opt.Cluster != nil {
			opt.Cluster.BindTo = cmp.Or(opt.Cluster.BindTo, 29999) + 10 // there must be room for one more
			bind.Port = addNeighbourService(in, opt)
		}
		first := Compile(in, opt)
		if again := Compile(in, opt); resultText(first) != resultText(again) {
			t.Fatal("compiled twice, the results differ")
		}
		checkResult(t, in, first)
		if opt.GatewayAddresses.IsValid() {
			bind.Address = opt.GatewayAddresses.Addr().Next().String()
		}
		checkNeighbour(t, first, bind)
	})
}

// absurd are values that nobody should write and somebody will.
var absurd = []string{
	"", " ", "*", "*.", "*.com", ".", "..", "a", "A", "a.example.com", "*.example.com", "-", "/", "//", "/a/../b", "/%2f", "/%zz", "/%00", "/a b", "\x00", "\xff", "a\r\nb: c",
	"0s", "1h", "99999h99999h99999h99999h", "-1s", "((((", "a{1000}{1000}", "127.0.0.1", "::1", "Service", "Secret", "HTTPRoute", "gateway.networking.k8s.io", "kubernetes.io/tls",
	"Content-Length", "Host", "RegularExpression", "ExtensionRef", "RequestRedirect", "URLRewrite", "RequestHeaderModifier", "HTTPS", "HTTP", "TLS", "Selector", "All",
	strings.Repeat("x", 300), strings.Repeat("a.", 127) + "a", strings.Repeat("/", 2000),
}

var absurdNumbers = []int64{0, 1, -1, 80, 443, 8080, 65535, 65536, 70000, 1 << 30, -1 << 31, 200, 301, 418, 1_000_001}

// mutateAll changes objects of every kind that a snapshot has: it is the type of the snapshot that says which there are.
func mutateAll(random *rand.Rand, in *object.Snapshot) {
	for field, v := range reflect.ValueOf(in).Elem().Fields() {
		if v.Kind() == reflect.Map && field.Name != "Origins" {
			mutateMap(random, v)
		}
	}
}

// mutateMap changes the objects of a map in place, in the order of their keys, so that a seed means the same each time.
func mutateMap(random *rand.Rand, m reflect.Value) {
	keys := m.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	for _, k := range keys {
		v := reflect.New(m.Type().Elem()).Elem()
		v.Set(m.MapIndex(k))
		if random.IntN(40) == 0 {
			v.SetZero()
		} else {
			mutate(random, v, 0)
		}
		m.SetMapIndex(k, v)
	}
}

// mutate changes a value. Names and namespaces of objects stay, for the maps are keyed by them.
func mutate(random *rand.Rand, v reflect.Value, depth int) {
	rare := func(n int) bool { return random.IntN(n) == 0 }
	switch v.Kind() {
	case reflect.Pointer:
		switch {
		case v.IsNil() && depth > 0 && depth < 12 && rare(25):
			v.Set(reflect.New(v.Type().Elem()))
			mutate(random, v.Elem(), depth+1)
		case !v.IsNil() && depth > 0 && rare(25):
			v.SetZero()
		case !v.IsNil():
			mutate(random, v.Elem(), depth+1)
		}
	case reflect.Struct:
		switch v.Type() {
		case reflect.TypeFor[metav1.ObjectMeta](), reflect.TypeFor[metav1.TypeMeta](), reflect.TypeFor[metav1.Time](), reflect.TypeFor[time.Time]():
			return
		}
		for _, field := range v.Fields() {
			if field.CanSet() {
				mutate(random, field, depth+1)
			}
		}
	case reflect.Slice:
		mutateSlice(random, v, depth, rare)
	case reflect.Map:
		if rare(25) {
			v.SetZero()
		}
	case reflect.String:
		if rare(20) {
			v.SetString(absurd[random.IntN(len(absurd))])
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		if rare(15) {
			v.SetInt(absurdNumbers[random.IntN(len(absurdNumbers))])
		}
	case reflect.Bool:
		if rare(10) {
			v.SetBool(!v.Bool())
		}
	}
}

func mutateSlice(random *rand.Rand, v reflect.Value, depth int, rare func(int) bool) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return
	}
	for i := range v.Len() {
		mutate(random, v.Index(i), depth+1)
	}
	switch {
	case rare(25):
		v.SetZero()
	case rare(25) && v.Len() > 0:
		v.Set(reflect.Append(v, v.Index(random.IntN(v.Len()))))
	case rare(25) && depth < 12:
		v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
		mutate(random, v.Index(v.Len()-1), depth+1)
	}
}
