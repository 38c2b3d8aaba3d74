package watch

import (
	"runtime"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const many = 10_000

// large is a cluster of Services as a real one has them, each with one slice of three endpoints, and an Ingress.
func large(t testing.TB) *Cluster {
	a := newFake(t)
	a.mu.Lock()
	for i := range many {
		for _, o := range realistic(i) {
			a.putLocked(o)
		}
	}
	a.mu.Unlock()
	return start(t, a, nil)
}

func realistic(i int) []metav1.Object {
	ns, name := "team-"+strconv.Itoa(i%200), "service-"+strconv.Itoa(i)
	s := service(ns, name)
	s.Labels = map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": ns}
	s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{".":{},"f:app.kubernetes.io/name":{}}},"f:spec":{"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{},"f:protocol":{}}}}}`)}}
	in := ingress(ns, name, name+".example.com")
	in.ManagedFields = s.ManagedFields
	e := endpointSlice(ns, name+"-abcde", name, "10.1.2.3", "10.1.2.4", "10.1.2.5")
	e.ManagedFields = s.ManagedFields
	e.GenerateName = name + "-"
	e.Labels["endpointslice.kubernetes.io/managed-by"] = "endpointslice-controller.k8s.io"
	e.Annotations = map[string]string{"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}
	e.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: name, UID: "5b1d9c1e-0f0e-4f2b-9d3b-5f0c2b6a1d00"}}
	port, portName, proto := int32(8080), "http", corev1.ProtocolTCP
	e.Ports = []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &proto}}
	for j := range e.Endpoints {
		ready, leaving, node, zone := true, false, "node-"+strconv.Itoa(i%50), "zone-"+strconv.Itoa(i%3)
		x := &e.Endpoints[j]
		x.Conditions = discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready, Terminating: &leaving}
		x.NodeName, x.Zone = &node, &zone
		x.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: ns, Name: name + "-7d9f8b6c5-x" + strconv.Itoa(j), UID: "5b1d9c1e-0f0e-4f2b-9d3b-5f0c2b6a1d0f"}
	}
	return []metav1.Object{s, in, e}
}

// One slice changes among 10,000 and the picture is read: everything but the network and the decoding.
func BenchmarkReadAfterOneChange(b *testing.B) {
	c := large(b)
	var slices, ingresses *source
	for _, s := range c.sources {
		switch s.kind.name {
		case "endpointslices":
			slices = s
		case "ingresses":
			ingresses = s
		}
	}
	changed := func(n int, i int) metav1.Object {
		o := realistic(n % many)[i]
		o.SetResourceVersion("x" + strconv.Itoa(n))
		return o
	}
	b.Run("slice", func(b *testing.B) {
		b.ReportAllocs()
		c.Read()
		n := 0
		for b.Loop() {
			n++
			o := changed(n, 2).(*discoveryv1.EndpointSlice)
			o.Endpoints[0].Addresses[0] = "10.9.9." + strconv.Itoa(n%250)
			if err := slices.Update(o); err != nil {
				b.Fatal(err)
			}
			c.Read()
		}
	})
	b.Run("ingress", func(b *testing.B) {
		b.ReportAllocs()
		c.Read()
		n := 0
		for b.Loop() {
			n++
			if err := ingresses.Update(changed(n, 1)); err != nil {
				b.Fatal(err)
			}
			c.Read()
		}
	})
	b.Run("nothing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.Read()
		}
	})
	b.Run("same routes", func(b *testing.B) {
		x, y := c.Read(), c.Read()
		for b.Loop() {
			if !x.SameRoutes(y) {
				b.Fatal("they are the same")
			}
		}
	})
}

// What a list of 10,000 that brings nothing new costs, as after a watch that has expired.
func BenchmarkRelist(b *testing.B) {
	c := large(b)
	var src *source
	for _, s := range c.sources {
		if s.kind.name == "endpointslices" {
			src = s
		}
	}
	list := make([]any, 0, many)
	for _, l := range c.Read().EndpointSlices {
		for _, s := range l {
			list = append(list, s.DeepCopy())
		}
	}
	for b.Loop() {
		if err := src.Replace(list, ""); err != nil {
			b.Fatal(err)
		}
	}
	if c.changes != c.seen {
		b.Error("the same list changed something")
	}
}

// Bytes that are held for each object.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		before := heap()
		a := newFake(b)
		for i := range many {
			for _, o := range realistic(i) {
				a.putLocked(o)
			}
		}
		a.events = nil
		server := heap()
		c := open(b, a, nil)
		begun := time.Now()
		if err := c.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		took := time.Since(begun)
		snap := c.Read()
		held := heap()
		b.ReportMetric(float64(held-server)/(3*many), "B/object")
		b.ReportMetric(float64(server-before)/(3*many), "JSON-B/object")
		b.ReportMetric(float64(took.Milliseconds()), "ms-to-sync")
		if len(snap.EndpointSlices) != many || len(snap.Services) != many || len(snap.Ingresses) != many {
			b.Fatal("not everything is held")
		}
		c.Close()
		runtime.KeepAlive(snap)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
