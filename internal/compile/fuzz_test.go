package compile

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-io/fairlead/internal/object"
)

// FuzzCompile takes one of the golden inputs, drops optional fields, repeats and cuts lists and puts in absurd values, whatever an API server would say to that.
// Annotations and labels are among that. The compiler must not panic, must say the same twice, must not reach into namespaces without a grant, and must serve the
// neighbours, and speak of them, as if nobody else were there.
func FuzzCompile(f *testing.F) {
	dirs := goldenDirs(f)
	inputs := make([]mutable, len(dirs))
	for i, dir := range dirs {
		text := readFile(f, filepath.Join(dir, "in.yaml"))
		inputs[i] = mutable{load(f, text), parseOptions(f, text)}
		for seed := range uint64(3) {
			f.Add(uint16(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, dir uint16, seed uint64) { inputs[int(dir)%len(inputs)].fuzz(t, seed) })
}

// mutable is one of the golden inputs. It stays as it is: what is changed is a copy.
type mutable struct {
	in  *object.Snapshot
	opt Options
}

func (m mutable) fuzz(t *testing.T, seed uint64) {
	in, opt := copySnapshot(m.in), m.opt
	opt.GatewayController, opt.IngressController = "", ""
	mutateAll(rand.New(rand.NewPCG(seed, 1)), in)
	if seed%2 == 0 {
		opt.HTTPPort, opt.HTTPSPort = neighbourHTTP, neighbourHTTPS
	}
	if opt.Cluster != nil {
		more := *opt.Cluster
		more.BindTo = cmp.Or(more.BindTo, 29999) + 100 // there must be room for the neighbours
		opt.Cluster = &more
	}
	neighbours := firstNeighbour
	if seed%4 > 1 && !opt.GatewayAddresses.IsValid() { // the others may take all addresses that there are
		neighbours = lastNeighbour
	}
	neighbours.add(t, in, opt)
	first := Compile(in, opt)
	if again := Compile(in, opt); resultText(first) != resultText(again) {
		t.Fatal("compiled twice, the results differ")
	}
	checkResult(t, in, first)
	neighbours.check(t, in, opt, first)
}

// copySnapshot returns a snapshot with objects of its own.
func copySnapshot(in *object.Snapshot) *object.Snapshot {
	out := &object.Snapshot{Taken: in.Taken, Origins: in.Origins}
	to := reflect.ValueOf(out).Elem()
	for field, v := range reflect.ValueOf(in).Elem().Fields() {
		if v.Kind() != reflect.Map || field.Name == "Origins" {
			continue
		}
		m := reflect.MakeMap(v.Type())
		for _, k := range v.MapKeys() {
			m.SetMapIndex(k, copyObjects(v.MapIndex(k)))
		}
		to.FieldByName(field.Name).Set(m)
	}
	return out
}

// copyObjects returns a copy of an object, or of a list of objects.
func copyObjects(v reflect.Value) reflect.Value {
	if v.Kind() != reflect.Slice {
		return reflect.ValueOf(v.Interface().(runtime.Object).DeepCopyObject())
	}
	out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	for i := range v.Len() {
		out.Index(i).Set(copyObjects(v.Index(i)))
	}
	return out
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
		case reflect.TypeFor[metav1.ObjectMeta]():
			mutateMeta(random, v.Addr().Interface().(*metav1.ObjectMeta), rare)
			return
		case reflect.TypeFor[metav1.TypeMeta](), reflect.TypeFor[metav1.Time](), reflect.TypeFor[time.Time]():
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
		mutateMapOfStrings(random, v, rare)
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

// mutateMapOfStrings changes values of a map of text, such as the data of a ConfigMap or a Secret, and takes some of them away.
func mutateMapOfStrings(random *rand.Rand, m reflect.Value, rare func(int) bool) {
	if rare(25) {
		m.SetZero()
		return
	}
	keys := m.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
	for _, k := range keys {
		switch {
		case rare(40):
			m.SetMapIndex(k, reflect.Value{})
		case rare(40) && reflect.TypeFor[string]().ConvertibleTo(m.Type().Elem()):
			m.SetMapIndex(k, reflect.ValueOf(absurd[random.IntN(len(absurd))]).Convert(m.Type().Elem()))
		}
	}
}

// noteNames are names of annotations and labels: all those that Fairlead reads or writes, and some that are for other controllers.
var noteNames = slices.Concat(serviceAnnotations.reads, serviceAnnotations.writes, ingressAnnotations, []string{
	"fairlead.io/", "fairlead.io/unknown", instanceLabel, gatewayUIDLabel, gatewayNamespaceLabel, managedByLabel, object.IssuerLabel,
	"kubernetes.io/ingress.class", "ingressclass.kubernetes.io/is-default-class", "kubernetes.io/metadata.name", "service.kubernetes.io/topology-mode", "topology.kubernetes.io/zone",
	"kubernetes.io/service-name", "gateway.networking.k8s.io/gateway-name", "cert-manager.io/cluster-issuer",
	"nginx.ingress.kubernetes.io/rewrite-target", "nginx.ingress.kubernetes.io/configuration-snippet", "nginx.ingress.kubernetes.io/canary-weight", "nginx.ingress.kubernetes.io/ssl-redirect",
	"nginx.ingress.kubernetes.io/auth-url", "nginx.ingress.kubernetes.io/affinity", "nginx.ingress.kubernetes.io/",
})

// noteValues are values of annotations: some that say something, mostly too much of it, and the absurd ones beside them.
var noteValues = slices.Concat(absurd, []string{
	"true", "false", "TRUE", "1", "0", "-1", "off", "none", "1e9", "99999999999999999999", "1ns", "10s", "10s,", ",", ",,,", ";", "a=b", "a=b=c", "60%", "NaN", "5xx", "502,503", "599-500",
	"rr", "random", "consistent-hash", "source-hash", "cookie", "cookie:", "header:\r\nx", "header:X-User", "path", "ip 1h", "client-ip", "cookie 10m", "tcp", "http /health", "grpc",
	"staging", "production", "none,staging", "pod:*=0", "pod:[=1", "zone:=2", "pod:a-*=70000, address:::1=3", "zone", "near", "fairlead", "nginx", "proxy_pass http://127.0.0.1; }",
})

// mutateMeta changes what of an object's metadata anybody may write, and what only a cluster does. Names and namespaces stay.
func mutateMeta(random *rand.Rand, m *metav1.ObjectMeta, rare func(int) bool) {
	for _, notes := range []*map[string]string{&m.Annotations, &m.Labels} {
		for _, name := range slices.Sorted(maps.Keys(*notes)) {
			switch {
			case rare(15):
				delete(*notes, name)
			case rare(8):
				(*notes)[name] = noteValues[random.IntN(len(noteValues))]
			}
		}
		for rare(4) {
			set(notes, noteNames[random.IntN(len(noteNames))], noteValues[random.IntN(len(noteValues))])
		}
	}
	switch random.IntN(40) {
	case 0, 1:
		m.Generation = absurdNumbers[random.IntN(len(absurdNumbers))]
	case 2, 3:
		m.UID = "" // an API server says what it is, and nobody else
	case 4, 5:
		m.DeletionTimestamp = &metav1.Time{Time: taken}
	case 6, 7, 8, 9:
		m.CreationTimestamp = metav1.NewTime(taken.Add(time.Duration(random.IntN(5)-2) * time.Hour))
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
