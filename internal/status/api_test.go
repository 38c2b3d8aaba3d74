package status

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	"sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"

	"github.com/fairlead-io/fairlead/internal/object"
)

// api is an API server for the real clients: it keeps objects as JSON, whether it knows their fields or not, and has resource versions, patches of the status
// subresource, and the limits that matter here.
type api struct {
	t *testing.T

	mu      sync.Mutex
	version int
	objects map[string]map[string]any // by path
	calls   []call
	// before may answer a request in the API server's place, or do something before it is looked at. It is not called with mu held.
	before func(r *http.Request, body []byte) *http.Response // see meet
	// latency is how long each request takes.
	latency time.Duration
	busy    int
	busiest int // the most requests at a time
}

type call struct{ method, path, body string }

// Where the API server has the kinds.
var roots = map[string]string{
	"GatewayClass":          "/apis/gateway.networking.k8s.io/v1/%sgatewayclasses/%s",
	"Gateway":               "/apis/gateway.networking.k8s.io/v1/%sgateways/%s",
	"BackendTLSPolicy":      "/apis/gateway.networking.k8s.io/v1/%sbackendtlspolicies/%s",
	"XBackendTrafficPolicy": "/apis/gateway.networking.x-k8s.io/v1alpha1/%sxbackendtrafficpolicies/%s",
	"ListenerSet":           "/apis/gateway.networking.k8s.io/v1/%slistenersets/%s",
	"HTTPRoute":             "/apis/gateway.networking.k8s.io/v1/%shttproutes/%s",
	"GRPCRoute":             "/apis/gateway.networking.k8s.io/v1/%sgrpcroutes/%s",
	"TLSRoute":              "/apis/gateway.networking.k8s.io/v1/%stlsroutes/%s",
	"TCPRoute":              "/apis/gateway.networking.k8s.io/v1/%stcproutes/%s",
	"UDPRoute":              "/apis/gateway.networking.k8s.io/v1/%sudproutes/%s",
	"Ingress":               "/apis/networking.k8s.io/v1/%singresses/%s",
	"XBackend":              "/apis/gateway.networking.x-k8s.io/v1alpha1/%sxbackends/%s",
}

func pathOf(ref object.Ref) string {
	ns := ""
	if ref.Namespace != "" {
		ns = "namespaces/" + ref.Namespace + "/"
	}
	return fmt.Sprintf(roots[ref.Kind], ns, ref.Name)
}

func newAPI(t *testing.T) *api { return &api{t: t, objects: map[string]map[string]any{}} }

// clients returns clients that talk to the API server, and not by a network.
func (a *api) clients() (kubernetes.Interface, versioned.Interface) {
	config := &rest.Config{Host: "http://api.invalid", Transport: a, QPS: -1}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		a.t.Fatal(err)
	}
	gateway, err := versioned.NewForConfig(config)
	if err != nil {
		a.t.Fatal(err)
	}
	return kube, gateway
}

// put creates or changes an object from JSON, whose status counts, too. The spec counts for the generation.
func (a *api) put(text string) object.Ref {
	a.t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		a.t.Fatalf("%v in %s", err, text)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	meta := o["metadata"].(map[string]any)
	ns, _ := meta["namespace"].(string)
	ref := object.Ref{Kind: o["kind"].(string), Namespace: ns, Name: meta["name"].(string)}
	a.version++
	meta["resourceVersion"] = strconv.Itoa(a.version)
	old := a.objects[pathOf(ref)]
	if old == nil {
		orDefaultField(meta, "uid", "uid-"+meta["resourceVersion"].(string))
		orDefaultField(meta, "generation", 1.0)
	} else {
		was := old["metadata"].(map[string]any)
		orDefaultField(meta, "uid", was["uid"])
		generation := was["generation"].(float64)
		if !reflect.DeepEqual(old["spec"], o["spec"]) {
			generation++
		}
		orDefaultField(meta, "generation", generation)
	}
	a.objects[pathOf(ref)] = o
	return ref
}

func orDefaultField(m map[string]any, name string, value any) {
	if _, ok := m[name]; !ok {
		m[name] = value
	}
}

// edit changes an object as somebody else would.
func (a *api) edit(ref object.Ref, change func(o map[string]any)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	o := a.objects[pathOf(ref)]
	change(o)
	o["metadata"].(map[string]any)["resourceVersion"] = strconv.Itoa(a.version)
}

func (a *api) remove(ref object.Ref) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.objects, pathOf(ref))
}

// raw returns the status of an object, or a part of it, as JSON.
func (a *api) raw(ref object.Ref, path ...any) string {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.objects[pathOf(ref)]["status"]
	for _, p := range path {
		switch p := p.(type) {
		case string:
			v = v.(map[string]any)[p]
		case int:
			v = v.([]any)[p]
		}
	}
	return asJSON(v)
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// snapshot returns what informers would have.
func (a *api) snapshot() *object.Snapshot {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &object.Snapshot{
		GatewayClasses: map[string]*gatewayv1.GatewayClass{}, Gateways: map[object.Key]*gatewayv1.Gateway{},
		ListenerSets: map[object.Key]*gatewayv1.ListenerSet{}, BackendTLSPolicies: map[object.Key]*gatewayv1.BackendTLSPolicy{},
		XBackends:               map[object.Key]*gatewayx.XBackend{},
		XBackendTrafficPolicies: map[object.Key]*gatewayx.XBackendTrafficPolicy{},
		HTTPRoutes:              map[object.Key]*gatewayv1.HTTPRoute{}, GRPCRoutes: map[object.Key]*gatewayv1.GRPCRoute{}, TLSRoutes: map[object.Key]*gatewayv1.TLSRoute{},
		TCPRoutes: map[object.Key]*gatewayv1.TCPRoute{}, UDPRoutes: map[object.Key]*gatewayv1.UDPRoute{}, Ingresses: map[object.Key]*networkingv1.Ingress{},
	}
	for _, o := range a.objects {
		switch text := asJSON(o); o["kind"] {
		case "GatewayClass":
			v := decode[gatewayv1.GatewayClass](text)
			s.GatewayClasses[v.Name] = v
		case "Gateway":
			v := decode[gatewayv1.Gateway](text)
			s.Gateways[object.KeyOf(v)] = v
		case "BackendTLSPolicy":
			v := decode[gatewayv1.BackendTLSPolicy](text)
			s.BackendTLSPolicies[object.KeyOf(v)] = v
		case "XBackendTrafficPolicy":
			v := decode[gatewayx.XBackendTrafficPolicy](text)
			s.XBackendTrafficPolicies[object.KeyOf(v)] = v
		case "XBackend":
			v := decode[gatewayx.XBackend](text)
			s.XBackends[object.KeyOf(v)] = v
		case "ListenerSet":
			v := decode[gatewayv1.ListenerSet](text)
			s.ListenerSets[object.KeyOf(v)] = v
		case "HTTPRoute":
			v := decode[gatewayv1.HTTPRoute](text)
			s.HTTPRoutes[object.KeyOf(v)] = v
		case "GRPCRoute":
			v := decode[gatewayv1.GRPCRoute](text)
			s.GRPCRoutes[object.KeyOf(v)] = v
		case "TLSRoute":
			v := decode[gatewayv1.TLSRoute](text)
			s.TLSRoutes[object.KeyOf(v)] = v
		case "TCPRoute":
			v := decode[gatewayv1.TCPRoute](text)
			s.TCPRoutes[object.KeyOf(v)] = v
		case "UDPRoute":
			v := decode[gatewayv1.UDPRoute](text)
			s.UDPRoutes[object.KeyOf(v)] = v
		case "Ingress":
			v := decode[networkingv1.Ingress](text)
			s.Ingresses[object.KeyOf(v)] = v
		}
	}
	return s
}

func decode[O any](text string) *O {
	o := new(O)
	if err := json.Unmarshal([]byte(text), o); err != nil {
		panic(err)
	}
	return o
}

// count returns how many requests there were whose method and path contain both words.
func (a *api) count(method, path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, c := range a.calls {
		if c.method == method && strings.Contains(c.path, path) {
			n++
		}
	}
	return n
}

func (a *api) total() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.calls)
}

// RoundTrip is the API server.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	a.mu.Lock()
	a.calls = append(a.calls, call{r.Method, r.URL.Path, string(body)})
	a.busy++
	a.busiest = max(a.busiest, a.busy)
	before, latency := a.before, a.latency
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.busy--
		a.mu.Unlock()
	}()
	if latency > 0 {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if before != nil {
		if resp := before(r, body); resp != nil {
			if resp == hangUp {
				return nil, fmt.Errorf("connection refused")
			}
			return resp, nil
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answer(r, body), nil
}

// meet sets what meets requests from now on; nil for nothing.
func (a *api) meet(before func(r *http.Request, body []byte) *http.Response) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.before = before
}

// hangUp is the answer of a server that is not there.
var hangUp = new(http.Response)

func (a *api) answer(r *http.Request, body []byte) *http.Response {
	switch path, status := strings.CutSuffix(r.URL.Path, "/status"); {
	case r.Method == http.MethodGet && a.objects[r.URL.Path] != nil:
		return respond(200, a.objects[r.URL.Path])
	case r.Method == http.MethodPost:
		return a.create(r, body)
	case r.Method != http.MethodPatch:
	case !status:
		return failure(403, metav1.StatusReasonForbidden, "only the status may be written")
	case a.objects[path] != nil:
		return a.patch(path, r.Header.Get("Content-Type"), body)
	}
	return failure(404, metav1.StatusReasonNotFound, "not found")
}

func (a *api) create(r *http.Request, body []byte) *http.Response {
	if strings.Contains(r.Header.Get("Content-Type"), "protobuf") {
		event, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			panic(err)
		}
		body = []byte(asJSON(event))
	}
	o := *decode[map[string]any](string(body))
	path := r.URL.Path + "/" + o["metadata"].(map[string]any)["name"].(string)
	if a.objects[path] != nil {
		return failure(409, metav1.StatusReasonAlreadyExists, "already exists")
	}
	a.objects[path] = o
	return respond(201, o)
}

func (a *api) patch(path, typ string, body []byte) *http.Response {
	old := a.objects[path]
	o := *decode[map[string]any](asJSON(old))
	var err error
	switch typ {
	case "application/json-patch+json":
		err = jsonPatch(o, body)
	case "application/merge-patch+json":
		mergePatch(o, *decode[map[string]any](string(body)))
	default:
		return failure(415, metav1.StatusReasonUnsupportedMediaType, typ)
	}
	if err != nil {
		return failure(422, metav1.StatusReasonInvalid, err.Error())
	}
	if o["metadata"].(map[string]any)["resourceVersion"] != old["metadata"].(map[string]any)["resourceVersion"] {
		return failure(409, metav1.StatusReasonConflict, "the object has been modified")
	}
	if err := valid(o["status"]); err != nil {
		return failure(422, metav1.StatusReasonInvalid, err.Error())
	}
	if !reflect.DeepEqual(old["status"], o["status"]) {
		next := *decode[map[string]any](asJSON(old))
		a.version++
		next["metadata"].(map[string]any)["resourceVersion"] = strconv.Itoa(a.version)
		next["status"] = o["status"]
		a.objects[path] = next
	}
	return respond(200, a.objects[path])
}

// valid checks what a CRD would.
func valid(v any) error {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			limit := map[string]int{"parents": 32, "ancestors": 16, "conditions": 8, "listeners": 64}[name]
			if list, ok := v[name].([]any); ok && limit > 0 && len(list) > limit {
				return fmt.Errorf("%s: too many: %d", name, len(list))
			}
			if list, ok := v[name].([]any); ok && name == "conditions" {
				if err := validConditions(list); err != nil {
					return err
				}
			}
			if err := valid(v[name]); err != nil {
				return err
			}
		}
	case []any:
		for _, e := range v {
			if err := valid(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func validConditions(list []any) error {
	seen := map[any]bool{}
	for _, e := range list {
		c := e.(map[string]any)
		at, err := time.Parse(time.RFC3339, fmt.Sprint(c["lastTransitionTime"]))
		switch {
		case err != nil || at.Year() < 1970:
			return fmt.Errorf("lastTransitionTime of %v is %v", c["type"], c["lastTransitionTime"])
		case seen[c["type"]]:
			return fmt.Errorf("condition %v is there twice", c["type"])
		case len(fmt.Sprint(c["message"])) > 40000:
			return fmt.Errorf("the message of %v is too long", c["type"])
		}
		seen[c["type"]] = true
	}
	return nil
}

func respond(code int, v any) *http.Response {
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader([]byte(asJSON(v)))),
	}
}

func failure(code int, reason metav1.StatusReason, message string) *http.Response {
	return respond(code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Message: message, Code: int32(code),
	})
}

func mergePatch(o, patch map[string]any) {
	for name, v := range patch {
		inner, isMap := v.(map[string]any)
		switch have, hasMap := o[name].(map[string]any); {
		case v == nil:
			delete(o, name)
		case isMap && hasMap:
			mergePatch(have, inner)
		case isMap:
			fresh := map[string]any{}
			mergePatch(fresh, inner)
			o[name] = fresh
		default:
			o[name] = v
		}
	}
}

// jsonPatch does to o what RFC 6902 says.
func jsonPatch(o map[string]any, body []byte) error {
	var ops []struct {
		Op, Path, From string
		Value          any
	}
	if err := json.Unmarshal(body, &ops); err != nil {
		return err
	}
	for _, op := range ops {
		value := op.Value
		var err error
		switch op.Op {
		case "move":
			if value, err = jsonRemove(o, op.From); err == nil {
				err = jsonPut(o, op.Path, value, true)
			}
		case "remove":
			_, err = jsonRemove(o, op.Path)
		default:
			err = jsonPut(o, op.Path, value, op.Op == "add")
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", op.Op, op.Path, err)
		}
	}
	return nil
}

// jsonParent returns what holds the last part of a path, a function that puts another in its place, and that part.
func jsonParent(o map[string]any, path string) (parent any, replace func(any), last string, err error) {
	parts := strings.Split(path, "/")[1:]
	parent, replace = o, func(any) {}
	for _, p := range parts[:len(parts)-1] {
		switch v := parent.(type) {
		case map[string]any:
			parent, replace = v[p], func(n any) { v[p] = n }
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i >= len(v) {
				return nil, nil, "", fmt.Errorf("there is no %s", p)
			}
			parent, replace = v[i], func(n any) { v[i] = n }
		default:
			return nil, nil, "", fmt.Errorf("%s is in nothing", p)
		}
	}
	return parent, replace, parts[len(parts)-1], nil
}

func jsonPut(o map[string]any, path string, value any, add bool) error {
	parent, replace, last, err := jsonParent(o, path)
	if err != nil {
		return err
	}
	switch v := parent.(type) {
	case map[string]any:
		if _, ok := v[last]; !ok && !add {
			return fmt.Errorf("nothing to replace")
		}
		v[last] = value
		return nil
	case []any:
		i, err := strconv.Atoi(last)
		switch {
		case last == "-" && add:
			replace(append(v, value))
		case err != nil || i > len(v) || i == len(v) && !add:
			return fmt.Errorf("no such place")
		case add:
			replace(slices.Insert(v, i, value))
		default:
			v[i] = value
		}
		return nil
	}
	return fmt.Errorf("in nothing")
}

func jsonRemove(o map[string]any, path string) (any, error) {
	parent, replace, last, err := jsonParent(o, path)
	if err != nil {
		return nil, err
	}
	switch v := parent.(type) {
	case map[string]any:
		value, ok := v[last]
		if !ok {
			return nil, fmt.Errorf("nothing to remove")
		}
		delete(v, last)
		return value, nil
	case []any:
		i, err := strconv.Atoi(last)
		if err != nil || i >= len(v) {
			return nil, fmt.Errorf("no such place")
		}
		value := v[i]
		replace(slices.Delete(v, i, i+1))
		return value, nil
	}
	return nil, fmt.Errorf("in nothing")
}
