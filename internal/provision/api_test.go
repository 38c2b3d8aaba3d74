package provision

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"

	"github.com/fairlead-io/fairlead/internal/object"
)

// api is an API server for the real clients. It has Services, with what matters here: resource versions, preconditions, merge patches, node ports and cluster
// addresses that it gives itself; and Gateways to be asked for.
type api struct {
	t *testing.T

	mu       sync.Mutex
	version  int
	services map[object.Key]*corev1.Service
	gateways map[object.Key]*gatewayv1.Gateway
	calls    []string // VERB namespace/name, of writes with the body behind it
	// before may answer a request in the API server's place with an error, or do something before it is looked at. It is not called with mu held.
	before func(call string) *metav1.Status
	// written is called with mu held after each change.
	written func()
	now     func() metav1.Time
	busy    int
	busiest int // the most requests at a time
}

func newAPI(t *testing.T) *api {
	t.Helper()
	return &api{t: t, services: map[object.Key]*corev1.Service{}, gateways: map[object.Key]*gatewayv1.Gateway{}, written: func() {}, now: func() metav1.Time { return metav1.Time{} }}
}

// writer returns a Writer whose clients talk to the API server, and not by a network.
func (a *api) writer(opt Options) *Writer {
	config := &rest.Config{Host: "http://api.invalid", Transport: a, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		a.t.Fatal(err)
	}
	gateway, err := versioned.NewForConfig(config)
	if err != nil {
		a.t.Fatal(err)
	}
	opt.Kubernetes, opt.Gateway = kube, gateway
	return New(opt)
}

// taken returns the calls since it was called last, sorted, and forgets them.
func (a *api) taken() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.calls
	a.calls = nil
	slices.Sort(out)
	return out
}

// snapshot returns what a watch would have seen by now.
func (a *api) snapshot() *object.Snapshot {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &object.Snapshot{Services: maps.Clone(a.services), Gateways: maps.Clone(a.gateways)}
}

// edit changes a Service as somebody else might.
func (a *api) edit(key object.Key, f func(*corev1.Service)) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	have := a.services[key]
	if have == nil {
		a.t.Fatalf("there is no Service %s", key)
	}
	s := have.DeepCopy()
	f(s)
	a.store(s)
}

// store keeps a Service as it is now. Objects that were handed out do not change.
func (a *api) store(s *corev1.Service) {
	a.version++
	s.ResourceVersion = fmt.Sprint(a.version)
	if s.UID == "" {
		s.UID, s.CreationTimestamp = types.UID(fmt.Sprintf("uid-of-%d", a.version)), a.now()
	}
	a.allocate(s)
	a.services[object.KeyOf(s)] = s
	a.written()
}

// allocate gives a Service what an API server gives it.
func (a *api) allocate(s *corev1.Service) {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		s.Spec.ClusterIP = ""
		return
	}
	if s.Spec.ClusterIP == "" {
		s.Spec.ClusterIP = fmt.Sprintf("10.96.0.%d", a.version)
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if s.Spec.Type == corev1.ServiceTypeClusterIP {
			p.NodePort = 0
		} else if p.NodePort == 0 {
			p.NodePort = int32(30000 + 100*a.version + i)
		}
	}
}

// RoundTrip is the API server's side of the clients.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		_ = r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	kind, key := parsePath(r.URL.Path)
	call := r.Method + " " + kind + " " + key.String()
	a.mu.Lock()
	a.busy++
	a.busiest = max(a.busiest, a.busy)
	before := a.before
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.busy--
		a.mu.Unlock()
	}()
	if before != nil {
		if status := before(call); status != nil {
			a.note(call)
			return answer(status, int(status.Code)), nil
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Method == http.MethodPatch {
		call += " " + withoutVersion(body)
	}
	a.calls = append(a.calls, call)
	out, code := a.serve(r, kind, key, body)
	return answer(out, code), nil
}

func (a *api) note(call string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls = append(a.calls, call)
}

// withoutVersion is a patch as people read it.
func withoutVersion(body []byte) string {
	var p map[string]any
	_ = json.Unmarshal(body, &p)
	if m, ok := p["metadata"].(map[string]any); ok {
		delete(m, "resourceVersion")
		delete(m, "uid")
	}
	text, _ := json.Marshal(p)
	return string(text)
}

func parsePath(path string) (kind string, key object.Key) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, p := range parts {
		switch p {
		case "namespaces":
			key.Namespace = parts[i+1]
		case "services", "gateways":
			kind = p
			if len(parts) > i+1 {
				key.Name = parts[i+1]
			}
		}
	}
	return kind, key
}

func answer(v any, code int) *http.Response {
	data, _ := json.Marshal(v)
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(data))}
}

func status(code int, reason metav1.StatusReason, message string) *metav1.Status {
	return &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message}
}

func (a *api) serve(r *http.Request, kind string, key object.Key, body []byte) (any, int) {
	if kind == "gateways" {
		if g := a.gateways[key]; g != nil {
			return g, 200
		}
		return status(404, metav1.StatusReasonNotFound, "no such Gateway"), 404
	}
	have := a.services[key]
	switch {
	case r.Method == http.MethodGet && key.Name == "":
		return a.list(key.Namespace, r.URL.Query().Get("labelSelector"))
	case r.Method == http.MethodPost:
		return a.create(body)
	case have == nil:
		return status(404, metav1.StatusReasonNotFound, "no such Service"), 404
	case r.Method == http.MethodPatch:
		return a.patch(have, body)
	case r.Method == http.MethodDelete:
		return a.remove(have, body)
	}
	return have, 200
}

func (a *api) list(namespace, selector string) (any, int) {
	sel, err := labels.Parse(selector)
	if err != nil {
		a.t.Errorf("selector %q: %v", selector, err)
	}
	out := corev1.ServiceList{}
	for _, s := range object.Sorted(a.services) {
		if (namespace == "" || s.Namespace == namespace) && sel.Matches(labels.Set(s.Labels)) {
			out.Items = append(out.Items, *s)
		}
	}
	return out, 200
}

func (a *api) create(body []byte) (any, int) {
	s := &corev1.Service{}
	if err := json.Unmarshal(body, s); err != nil {
		a.t.Error(err)
	}
	if a.services[object.KeyOf(s)] != nil {
		return status(409, metav1.StatusReasonAlreadyExists, "is there"), 409
	}
	a.store(s)
	return s, 201
}

func (a *api) patch(have *corev1.Service, body []byte) (any, int) {
	var change map[string]any
	if err := json.Unmarshal(body, &change); err != nil {
		a.t.Error(err)
	}
	metadata, _ := change["metadata"].(map[string]any)
	if metadata["resourceVersion"] != have.ResourceVersion || metadata["uid"] != string(have.UID) {
		return status(409, metav1.StatusReasonConflict, "the object has been modified"), 409
	}
	data, _ := json.Marshal(have)
	var all map[string]any
	_ = json.Unmarshal(data, &all)
	data, _ = json.Marshal(merge(all, change))
	s := &corev1.Service{}
	if err := json.Unmarshal(data, s); err != nil {
		a.t.Errorf("patch %s: %v", body, err)
	}
	a.store(s)
	return s, 200
}

// merge is RFC 7396.
func merge(have, change map[string]any) map[string]any {
	if have == nil {
		have = map[string]any{}
	}
	for k, v := range change {
		switch v := v.(type) {
		case nil:
			delete(have, k)
		case map[string]any:
			inner, _ := have[k].(map[string]any)
			have[k] = merge(inner, v)
		default:
			have[k] = v
		}
	}
	return have
}

func (a *api) remove(have *corev1.Service, body []byte) (any, int) {
	var opt metav1.DeleteOptions
	if err := json.Unmarshal(body, &opt); err != nil {
		a.t.Error(err)
	}
	p := opt.Preconditions
	if p == nil || p.UID == nil || p.ResourceVersion == nil {
		a.t.Errorf("Service %s is deleted without preconditions: %s", have.Name, body)
	} else if *p.UID != have.UID || *p.ResourceVersion != have.ResourceVersion {
		return status(409, metav1.StatusReasonConflict, "precondition failed"), 409
	}
	delete(a.services, object.KeyOf(have))
	a.version++
	a.written()
	return &metav1.Status{Status: metav1.StatusSuccess}, 200
}
