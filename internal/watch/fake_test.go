package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	gatewayx "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// fakeAPI is an API server: list, watch with and without the stream of what there is, bookmarks, expiry, paging, get, leases, discovery. It is an http.Handler
// for real connections, and a transport for tests with a clock of their own.
type fakeAPI struct {
	mu        sync.Mutex
	version   int
	compacted int                  // versions before this one are forgotten
	objects   map[string][]*stored // by the path of the kind, sorted by namespace and name
	events    map[string][]fakeEvent
	served    map[string][]string // kinds of the Gateway API by version
	wake      chan struct{}       // closed when something has happened
	streams   int                 // counts how often all streams were cut
	streaming bool                // knows the stream of what there is
	down      bool                // refuses connections
	fault     func(http.ResponseWriter, *http.Request) bool
	requests  []string // "list services" and so on
}

type stored struct {
	namespace, name, typ string
	version              int
	raw                  json.RawMessage
}

type fakeEvent struct {
	typ string
	*stored
}

const (
	gatewayPath = "/apis/gateway.networking.k8s.io/"
	xVersion    = "gateway.networking.x-k8s.io/v1alpha1" // the group of the experimental channel
)

func newFake(t testing.TB) *fakeAPI {
	t.Helper()
	return &fakeAPI{
		version: 1, objects: map[string][]*stored{}, events: map[string][]fakeEvent{}, wake: make(chan struct{}), streaming: true,
		served: map[string][]string{
			"v1": {
				"gatewayclasses", "gateways", "listenersets", "backendtlspolicies", "httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes", "referencegrants",
			},
			"v1beta1": {"gatewayclasses", "gateways", "httproutes", "referencegrants"},
			xVersion:  {"xbackendtrafficpolicies", "xbackends"},
		},
	}
}

// pathOf is where the objects of a type are.
func pathOf(o metav1.Object) (path, kind string) {
	switch o.(type) {
	case *corev1.Namespace:
		return "/api/v1/namespaces", "Namespace"
	case *corev1.Node:
		return "/api/v1/nodes", "Node"
	case *corev1.Service:
		return "/api/v1/services", "Service"
	case *corev1.Secret:
		return "/api/v1/secrets", "Secret"
	case *corev1.ConfigMap:
		return "/api/v1/configmaps", "ConfigMap"
	case *discoveryv1.EndpointSlice:
		return "/apis/discovery.k8s.io/v1/endpointslices", "EndpointSlice"
	case *networkingv1.IngressClass:
		return "/apis/networking.k8s.io/v1/ingressclasses", "IngressClass"
	case *networkingv1.Ingress:
		return "/apis/networking.k8s.io/v1/ingresses", "Ingress"
	case *gatewayv1.GatewayClass:
		return gatewayPath + "v1/gatewayclasses", "GatewayClass"
	case *gatewayv1.Gateway:
		return gatewayPath + "v1/gateways", "Gateway"
	case *gatewayv1.BackendTLSPolicy:
		return gatewayPath + "v1/backendtlspolicies", "BackendTLSPolicy"
	case *gatewayx.XBackendTrafficPolicy:
		return "/apis/" + xVersion + "/xbackendtrafficpolicies", "XBackendTrafficPolicy"
	case *gatewayx.XBackend:
		return "/apis/" + xVersion + "/xbackends", "XBackend"
	case *gatewayv1.ListenerSet:
		return gatewayPath + "v1/listenersets", "ListenerSet"
	case *gatewayv1.HTTPRoute:
		return gatewayPath + "v1/httproutes", "HTTPRoute"
	case *gatewayv1.GRPCRoute:
		return gatewayPath + "v1/grpcroutes", "GRPCRoute"
	case *gatewayv1.TLSRoute:
		return gatewayPath + "v1/tlsroutes", "TLSRoute"
	case *gatewayv1.TCPRoute:
		return gatewayPath + "v1/tcproutes", "TCPRoute"
	case *gatewayv1.UDPRoute:
		return gatewayPath + "v1/udproutes", "UDPRoute"
	case *gatewayv1.ReferenceGrant:
		return gatewayPath + "v1/referencegrants", "ReferenceGrant"
	case *gatewayv1beta1.ReferenceGrant:
		return gatewayPath + "v1beta1/referencegrants", "ReferenceGrant"
	case *metav1.PartialObjectMetadata:
		return "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "PartialObjectMetadata"
	case *coordinationv1.Lease:
		return "/apis/coordination.k8s.io/v1/leases", "Lease"
	}
	panic(fmt.Sprintf("no path for %T", o))
}

// watchedKinds is how many kinds are watched where all of them exist: all but nodes, unless somebody asks for these.
var watchedKinds = len(kindOf) - 1

var kindOf = map[string]string{
	"namespaces": "Namespace", "nodes": "Node", "services": "Service", "secrets": "Secret", "endpointslices": "EndpointSlice", "ingressclasses": "IngressClass",
	"ingresses": "Ingress", "gatewayclasses": "GatewayClass", "gateways": "Gateway", "httproutes": "HTTPRoute", "grpcroutes": "GRPCRoute",
	"tlsroutes": "TLSRoute", "tcproutes": "TCPRoute", "udproutes": "UDPRoute",
	"listenersets": "ListenerSet", "backendtlspolicies": "BackendTLSPolicy", "referencegrants": "ReferenceGrant",
	"xbackendtrafficpolicies": "XBackendTrafficPolicy",
	"xbackends":               "XBackend",
}

func apiVersion(path string) string {
	parts := strings.Split(strings.TrimPrefix(strings.TrimPrefix(path, "/apis/"), "/api/"), "/")
	return strings.Join(parts[:len(parts)-1], "/")
}

// put creates or changes objects, as kubectl apply would.
func (a *fakeAPI) put(objs ...metav1.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range objs {
		a.putLocked(o)
	}
	a.happened()
}

func (a *fakeAPI) putLocked(o metav1.Object) {
	path, kind := pathOf(o)
	a.version++
	raw, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		panic(err)
	}
	fields["kind"], fields["apiVersion"] = kind, apiVersion(path)
	meta := fields["metadata"].(map[string]any)
	meta["resourceVersion"] = strconv.Itoa(a.version)
	if meta["uid"] == nil {
		meta["uid"] = kind + o.GetNamespace() + o.GetName()
	}
	s := &stored{namespace: o.GetNamespace(), name: o.GetName(), version: a.version}
	s.typ, _ = fields["type"].(string)
	if s.raw, err = json.Marshal(fields); err != nil {
		panic(err)
	}
	at, found := a.find(path, s.namespace, s.name)
	if found {
		a.objects[path] = slices.Clone(a.objects[path])
		a.objects[path][at] = s
		a.events[path] = append(a.events[path], fakeEvent{"MODIFIED", s})
		return
	}
	a.objects[path] = slices.Insert(slices.Clone(a.objects[path]), at, s)
	a.events[path] = append(a.events[path], fakeEvent{"ADDED", s})
}

func (a *fakeAPI) find(path, namespace, name string) (int, bool) {
	return slices.BinarySearchFunc(a.objects[path], stored{namespace: namespace, name: name}, func(x *stored, y stored) int {
		return strings.Compare(x.namespace+"\x00"+x.name, y.namespace+"\x00"+y.name)
	})
}

// remove deletes objects.
func (a *fakeAPI) remove(objs ...metav1.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range objs {
		path, _ := pathOf(o)
		at, found := a.find(path, o.GetNamespace(), o.GetName())
		if !found {
			continue
		}
		a.version++
		gone := *a.objects[path][at]
		gone.version = a.version
		a.objects[path] = slices.Delete(slices.Clone(a.objects[path]), at, at+1)
		a.events[path] = append(a.events[path], fakeEvent{"DELETED", &gone})
	}
	a.happened()
}

func (a *fakeAPI) happened() {
	close(a.wake)
	a.wake = make(chan struct{})
}

// lose forgets all objects of which forget is true, with no event: as an etcd that was restored from an old backup.
func (a *fakeAPI) lose(forget func(path string, s *stored) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for path, list := range a.objects {
		a.objects[path] = slices.DeleteFunc(slices.Clone(list), func(s *stored) bool { return forget(path, s) })
	}
	a.expireLocked()
}

// expire forgets all events, and says so to everybody who watches.
func (a *fakeAPI) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expireLocked()
}

func (a *fakeAPI) expireLocked() {
	a.version++
	a.compacted = a.version
	a.events = map[string][]fakeEvent{}
	a.happened()
}

// cut ends all watches.
func (a *fakeAPI) cut() {
	a.set(func() { a.streams++ })
}

// stop refuses connections until it is called with false.
func (a *fakeAPI) stop(down bool) {
	a.set(func() { a.down = down; a.streams++ })
}

// set changes the server.
func (a *fakeAPI) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
	a.happened()
}

// took returns the requests since the last call.
func (a *fakeAPI) took() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.requests
	a.requests = nil
	return out
}

// call is one request.
type call struct {
	path, namespace, name string // path is that of the kind
	verb, kind            string
	query                 map[string]string
}

func (c call) get(name string) string { return c.query[name] }

func parseCall(r *http.Request) call {
	c := call{verb: strings.ToLower(r.Method), query: map[string]string{}}
	for k, v := range r.URL.Query() {
		c.query[k] = v[0]
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	n := 2 // api/v1
	if parts[0] == "apis" {
		n = 3
	}
	rest := parts[min(n, len(parts)):]
	if len(rest) >= 3 && rest[0] == "namespaces" {
		c.namespace, rest = rest[1], rest[2:]
	}
	if len(rest) > 0 {
		c.kind = rest[0]
		c.path = "/" + strings.Join(append(slices.Clone(parts[:n]), rest[0]), "/")
	}
	if len(rest) > 1 {
		c.name = rest[1]
	}
	switch {
	case c.kind == "":
		c.verb = "discover"
	case c.get("watch") != "":
		c.verb = "watch"
	case r.Method == http.MethodGet && c.name == "":
		c.verb = "list"
	}
	return c
}

func (c call) selects(s *stored) bool {
	if c.namespace != "" && s.namespace != c.namespace {
		return false
	}
	typ, ok := strings.CutPrefix(c.get("fieldSelector"), "type=")
	return !ok || s.typ == typ
}

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := parseCall(r)
	a.mu.Lock()
	a.requests = append(a.requests, c.verb+" "+c.kind)
	fault := a.fault
	a.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	a.answer(w, r)
}

// answer answers without faults.
func (a *fakeAPI) answer(w http.ResponseWriter, r *http.Request) {
	c := parseCall(r)
	w.Header().Set("Content-Type", "application/json")
	switch {
	case c.verb == "discover":
		a.discovery(w, r.URL.Path)
	case !a.serves(c):
		status(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	case c.verb == "watch":
		a.watch(w, r, c)
	case c.verb == "list":
		a.list(w, c)
	case c.verb == "get":
		a.object(w, c)
	default:
		a.write(w, r, c)
	}
}

// servedAs returns what stands for a version, whose kinds are below the path, in served.
func servedAs(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, gatewayPath), "/apis/")
}

func (a *fakeAPI) serves(c call) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	version := servedAs(path.Dir(c.path))
	return !strings.HasPrefix(version, "v") && version != xVersion || slices.Contains(a.served[version], c.kind)
}

func (a *fakeAPI) discovery(w http.ResponseWriter, path string) {
	a.mu.Lock()
	kinds := a.served[servedAs(path)]
	a.mu.Unlock()
	if len(kinds) == 0 {
		status(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
		return
	}
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: strings.TrimPrefix(path, "/apis/")}
	for _, k := range kinds {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: k}, metav1.APIResource{Name: k + "/status"})
	}
	_ = json.NewEncoder(w).Encode(list)
}

func status(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(failure(code, reason, message))
}

func failure(code int, reason metav1.StatusReason, message string) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	}
}

func refuse(reason metav1.StatusReason, code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		status(w, code, reason, "not now: "+string(reason))
		return true
	}
}

// list answers with all objects, or with a page of them.
func (a *fakeAPI) list(w http.ResponseWriter, c call) {
	a.mu.Lock()
	version, all := a.version, a.objects[c.path]
	a.mu.Unlock()
	limit := 0
	if v := c.get("resourceVersion"); v == "" {
		limit, _ = strconv.Atoi(c.get("limit"))
	}
	from, _ := strconv.Atoi(c.get("continue"))
	var items []json.RawMessage
	next := ""
	for i := from; i < len(all); i++ {
		if limit > 0 && len(items) == limit {
			next = strconv.Itoa(i)
			break
		}
		if c.selects(all[i]) {
			items = append(items, all[i].raw)
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": kindOf[c.kind] + "List", "apiVersion": apiVersion(c.path), "items": append([]json.RawMessage{}, items...),
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(version), "continue": next},
	})
}

func (a *fakeAPI) object(w http.ResponseWriter, c call) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, found := a.find(c.path, c.namespace, c.name)
	if !found {
		status(w, http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
		return
	}
	_, _ = w.Write(a.objects[c.path][at].raw)
}

// write creates or changes a Lease.
func (a *fakeAPI) write(w http.ResponseWriter, r *http.Request, c call) {
	var lease coordinationv1.Lease
	if err := json.NewDecoder(r.Body).Decode(&lease); err != nil {
		status(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	at, found := a.find(c.path, c.namespace, lease.Name)
	switch {
	case r.Method == http.MethodPost && found:
		status(w, http.StatusConflict, metav1.StatusReasonAlreadyExists, "exists")
	case r.Method == http.MethodPut && !found:
		status(w, http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
	case r.Method == http.MethodPut && strconv.Itoa(a.objects[c.path][at].version) != lease.ResourceVersion:
		status(w, http.StatusConflict, metav1.StatusReasonConflict, "the object has been modified")
	default:
		a.putLocked(&lease)
		a.happened()
		at, _ = a.find(c.path, c.namespace, lease.Name)
		_, _ = w.Write(a.objects[c.path][at].raw)
	}
}

// watch streams events.
func (a *fakeAPI) watch(w http.ResponseWriter, r *http.Request, c call) {
	initial := c.get("sendInitialEvents") == "true"
	a.mu.Lock()
	if a.down { // since the connection was made
		a.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	if initial && !a.streaming {
		a.mu.Unlock()
		status(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")
		return
	}
	from, _ := strconv.Atoi(c.get("resourceVersion"))
	s := fakeStream{w: w, c: c, streams: a.streams}
	all := a.objects[c.path]
	if initial || from == 0 {
		from = a.version
	} else {
		all = nil
	}
	a.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	flush(w)
	for _, o := range all {
		if c.selects(o) {
			s.send("ADDED", o.raw)
		}
	}
	if initial {
		s.bookmark(from, true)
	}
	flush(w)
	for {
		var wake chan struct{}
		if wake, from = a.next(&s, from); wake == nil {
			return
		}
		flush(w)
		select {
		case <-r.Context().Done():
			return
		case <-wake:
		}
	}
}

// next sends what has happened since a version. It returns what to wait for, nil if the stream is over, and the version that was reached.
func (a *fakeAPI) next(s *fakeStream, from int) (chan struct{}, int) {
	a.mu.Lock()
	wake, version, events, down := a.wake, a.version, a.events[s.c.path], a.down
	over, expired := s.streams != a.streams, from < a.compacted
	a.mu.Unlock()
	switch {
	case over && down:
		panic(http.ErrAbortHandler)
	case over:
		return nil, from
	case expired:
		raw, _ := json.Marshal(failure(http.StatusGone, metav1.StatusReasonExpired, "too old resource version"))
		s.send("ERROR", raw)
		flush(s.w)
		return nil, from
	}
	for _, e := range events {
		if e.version > from && s.c.selects(e.stored) {
			s.send(e.typ, e.raw)
		}
	}
	return wake, version
}

type fakeStream struct {
	w       http.ResponseWriter
	c       call
	streams int
}

func (s *fakeStream) send(typ string, raw json.RawMessage) {
	_ = json.NewEncoder(s.w).Encode(map[string]any{"type": typ, "object": raw})
}

func (s *fakeStream) bookmark(version int, end bool) {
	meta := map[string]any{"resourceVersion": strconv.Itoa(version)}
	if end {
		meta["annotations"] = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	raw, _ := json.Marshal(map[string]any{"kind": kindOf[s.c.kind], "apiVersion": apiVersion(s.c.path), "metadata": meta})
	s.send("BOOKMARK", raw)
}

func flush(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// RoundTrip makes the server a transport, with no network between.
func (a *fakeAPI) RoundTrip(req *http.Request) (*http.Response, error) {
	a.mu.Lock()
	down := a.down
	a.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	ctx, cancel := context.WithCancel(req.Context())
	pr, pw := io.Pipe()
	w := &pipeWriter{header: http.Header{}, pipe: pw, begun: make(chan struct{})}
	forget := context.AfterFunc(req.Context(), func() { _ = pr.CloseWithError(context.Cause(req.Context())) })
	go func() {
		defer forget()
		defer cancel()
		defer func() {
			err, _ := recover().(error)
			if errors.Is(err, http.ErrAbortHandler) {
				err = io.ErrUnexpectedEOF
			} else if err != nil {
				panic(err)
			}
			_ = pw.CloseWithError(err)
			w.WriteHeader(http.StatusOK)
		}()
		a.ServeHTTP(w, req.WithContext(ctx))
	}()
	select {
	case <-ctx.Done():
		select {
		case <-w.begun: // answered and ended
		default:
			return nil, context.Cause(req.Context())
		}
	case <-w.begun:
	}
	return &http.Response{
		Status: http.StatusText(w.code), StatusCode: w.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: w.header, ContentLength: -1, Request: req,
		Body: &pipeBody{pr, cancel},
	}, nil
}

type pipeBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b *pipeBody) Close() error { b.cancel(); return b.PipeReader.Close() }

type pipeWriter struct {
	header http.Header
	pipe   *io.PipeWriter
	once   sync.Once
	begun  chan struct{}
	code   int
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(code int) {
	w.once.Do(func() { w.code = code; w.header = w.header.Clone(); close(w.begun) })
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(p)
}

func (a *fakeAPI) config() *rest.Config {
	return &rest.Config{Host: "http://cluster.test", Transport: a, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
}

// Objects.

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func service(namespace, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: meta(namespace, name), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
}

func endpointSlice(namespace, name, service string, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: meta(namespace, name), AddressType: discoveryv1.AddressTypeIPv4}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: service}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

func ingress(namespace, name, host string) *networkingv1.Ingress {
	return &networkingv1.Ingress{ObjectMeta: meta(namespace, name), Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{Host: host}}}}
}

func ingressClass(name string) *networkingv1.IngressClass {
	return &networkingv1.IngressClass{ObjectMeta: meta("", name), Spec: networkingv1.IngressClassSpec{Controller: "fairlead.io/ingress-controller"}}
}

func httpRoute(namespace, name string) *gatewayv1.HTTPRoute {
	return &gatewayv1.HTTPRoute{ObjectMeta: meta(namespace, name)}
}

func secret(namespace, name string, typ corev1.SecretType) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: meta(namespace, name), Type: typ, Data: map[string][]byte{"tls.crt": []byte("crt"), "tls.key": []byte("key"), "password": []byte("x")}}
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": name}}}
}

// oneOfEach is an object of every kind.
func oneOfEach() []metav1.Object {
	return []metav1.Object{
		namespace("shop"), service("shop", "web"), endpointSlice("shop", "web-1", "web", "10.0.0.1"), secret("shop", "cert", corev1.SecretTypeTLS),
		ingressClass("fairlead"), ingress("shop", "web", "a.example"), &gatewayv1.GatewayClass{ObjectMeta: meta("", "fairlead")},
		&gatewayv1.Gateway{ObjectMeta: meta("shop", "edge")}, httpRoute("shop", "web"), &gatewayv1.GRPCRoute{ObjectMeta: meta("shop", "rpc")},
		&gatewayv1.ReferenceGrant{ObjectMeta: meta("shop", "grant")},
		&gatewayv1.TLSRoute{ObjectMeta: meta("shop", "db")}, &gatewayv1.TCPRoute{ObjectMeta: meta("shop", "db")}, &gatewayv1.UDPRoute{ObjectMeta: meta("shop", "dns")},
		&gatewayx.XBackendTrafficPolicy{ObjectMeta: meta("shop", "web")},
		&gatewayx.XBackend{ObjectMeta: meta("shop", "partner")},
	}
}

// all returns what the server holds, as text: the slow and obviously right twin of a snapshot.
func (a *fakeAPI) all() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for path, list := range a.objects {
		kind := path[strings.LastIndex(path, "/")+1:]
		for _, s := range list {
			if kind == "leases" || kind == "configmaps" || kind == "customresourcedefinitions" || kind == "secrets" && s.typ != string(corev1.SecretTypeTLS) {
				continue
			}
			text := kind + " " + s.namespace + "/" + s.name
			switch kind {
			case "endpointslices":
				var o discoveryv1.EndpointSlice
				_ = json.Unmarshal(s.raw, &o)
				text = sliceText(&o)
			case "services", "ingresses", "gateways", "listenersets", "backendtlspolicies", "xbackendtrafficpolicies", "xbackends", "httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes", "gatewayclasses":
				text += " " + strconv.Itoa(s.version)
			}
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return out
}

func sliceText(s *discoveryv1.EndpointSlice) string {
	text := "endpointslices " + s.Namespace + "/" + s.Name + " of " + s.Labels[discoveryv1.LabelServiceName]
	for _, e := range s.Endpoints {
		text += " " + e.Addresses[0]
	}
	return text
}

// text is a snapshot in the same words.
func text(s *object.Snapshot) []string {
	if s == nil {
		return nil
	}
	var out []string
	for _, slices := range s.EndpointSlices {
		for _, o := range slices {
			out = append(out, sliceText(o))
		}
	}
	out = append(out, lines("namespaces", false, s.Namespaces)...)
	out = append(out, lines("nodes", false, s.Nodes)...)
	out = append(out, lines("services", true, s.Services)...)
	out = append(out, lines("secrets", false, s.Secrets)...)
	out = append(out, lines("ingressclasses", false, s.IngressClasses)...)
	out = append(out, lines("ingresses", true, s.Ingresses)...)
	out = append(out, lines("gatewayclasses", true, s.GatewayClasses)...)
	out = append(out, lines("gateways", true, s.Gateways)...)
	out = append(out, lines("backendtlspolicies", true, s.BackendTLSPolicies)...)
	out = append(out, lines("xbackendtrafficpolicies", true, s.XBackendTrafficPolicies)...)
	out = append(out, lines("xbackends", true, s.XBackends)...)
	out = append(out, lines("listenersets", true, s.ListenerSets)...)
	out = append(out, lines("httproutes", true, s.HTTPRoutes)...)
	out = append(out, lines("grpcroutes", true, s.GRPCRoutes)...)
	out = append(out, lines("tlsroutes", true, s.TLSRoutes)...)
	out = append(out, lines("tcproutes", true, s.TCPRoutes)...)
	out = append(out, lines("udproutes", true, s.UDPRoutes)...)
	out = append(out, lines("referencegrants", false, s.ReferenceGrants)...)
	slices.Sort(out)
	return out
}

func lines[K comparable, T metav1.Object](kind string, version bool, m map[K]T) []string {
	var out []string
	for _, o := range m {
		line := kind + " " + o.GetNamespace() + "/" + o.GetName()
		if version {
			line += " " + o.GetResourceVersion()
		}
		out = append(out, line)
	}
	return out
}

// waitFor waits, in real time, until cond holds.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
