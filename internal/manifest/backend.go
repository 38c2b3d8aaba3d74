package manifest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// flagName is where Issues with backends point to.
const flagName = "--backend"

// Backend is one endpoint of a Service that has no EndpointSlice in the folder.
type Backend struct {
	Service  object.Key
	Port     string // of the Service: its number or its name
	Endpoint netip.AddrPort
}

// String returns what ParseBackend reads.
func (b Backend) String() string {
	return b.Service.String() + ":" + b.Port + "=" + b.Endpoint.String()
}

// ParseBackend reads NAMESPACE/SERVICE:PORT=HOST:PORT, such as shop/web:80=127.0.0.1:3000. The first PORT is a number or a name; HOST is an IP address (IPv6
// in brackets) or localhost, which means 127.0.0.1: names are not looked up.
func ParseBackend(s string) (Backend, error) {
	b, err := parseBackend(s)
	if err != nil {
		return Backend{}, fmt.Errorf("parse backend %q: %w", s, err)
	}
	return b, nil
}

func parseBackend(s string) (Backend, error) {
	service, endpoint, ok := strings.Cut(s, "=")
	if !ok {
		return Backend{}, errors.New("want NAMESPACE/SERVICE:PORT=HOST:PORT, such as shop/web:80=127.0.0.1:3000; there is no '='")
	}
	key, port, err := parseServicePort(service)
	if err != nil {
		return Backend{}, err
	}
	to, err := parseEndpoint(endpoint)
	if err != nil {
		return Backend{}, err
	}
	return Backend{Service: key, Port: port, Endpoint: to}, nil
}

func parseServicePort(s string) (object.Key, string, error) {
	name, port, ok := strings.Cut(s, ":")
	if !ok {
		return object.Key{}, "", fmt.Errorf("%q names no port of the Service; want NAMESPACE/SERVICE:PORT", s)
	}
	namespace, name, ok := strings.Cut(name, "/")
	if !ok {
		return object.Key{}, "", fmt.Errorf("%q names no namespace; want NAMESPACE/SERVICE:PORT", s)
	}
	if message := checkName(namespace, 63, false); message != "" {
		return object.Key{}, "", fmt.Errorf("namespace: %s", message)
	}
	if message := checkName(name, 63, false); message != "" {
		return object.Key{}, "", fmt.Errorf("service: %s", message)
	}
	if n, err := strconv.Atoi(port); err == nil {
		if n < 1 || n > 65535 {
			return object.Key{}, "", fmt.Errorf("port %d of the Service is not between 1 and 65535", n)
		}
		port = strconv.Itoa(n)
	} else if message := checkName(port, 63, false); message != "" {
		return object.Key{}, "", fmt.Errorf("port of the Service: %s", message)
	}
	return object.Key{Namespace: namespace, Name: name}, port, nil
}

func parseEndpoint(s string) (netip.AddrPort, error) {
	if port, ok := strings.CutPrefix(s, "localhost:"); ok {
		s = "127.0.0.1:" + port
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return netip.AddrPort{}, fmt.Errorf("endpoint %q has no port; want HOST:PORT", s)
	}
	host, port := s[:i], s[i+1:]
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}, fmt.Errorf("port %q of the endpoint is not a number between 1 and 65535", port)
	}
	inner, bracket := strings.CutPrefix(host, "[")
	inner = strings.TrimSuffix(inner, "]")
	addr, err := netip.ParseAddr(inner)
	switch {
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("host %q of the endpoint is neither an IP address nor localhost", host)
	case addr.Is6() && !bracket:
		return netip.AddrPort{}, fmt.Errorf("an IPv6 address of an endpoint stands in brackets: [%s]:%s", host, port)
	case addr.Is4() && bracket:
		return netip.AddrPort{}, fmt.Errorf("brackets are for IPv6 addresses; want %s:%s", inner, port)
	case addr.Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("address %s of the endpoint has a zone, which an EndpointSlice cannot hold", inner)
	case addr.IsUnspecified() || addr.IsMulticast():
		return netip.AddrPort{}, fmt.Errorf("address %s of the endpoint is not the address of one host", inner)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}

// backends gives the Services of the flags their endpoints.
func (b *builder) backends(list []Backend) {
	flags := map[object.Key][]int{} // the flags of each Service, in their order
	var keys []object.Key
	for i, backend := range list {
		if flags[backend.Service] == nil {
			keys = append(keys, backend.Service)
		}
		flags[backend.Service] = append(flags[backend.Service], i)
	}
	for _, key := range keys {
		b.backendsOf(key, list, flags[key])
	}
}

func (b *builder) backendsOf(key object.Key, list []Backend, flags []int) {
	ref := object.Ref{Kind: kindService, Namespace: key.Namespace, Name: key.Name}
	service := b.snap.Services[key]
	switch {
	case len(b.snap.EndpointSlices[key]) > 0:
		b.flagIssues(flags, ref, false, "the Service has an EndpointSlice (%s), so the flag has no effect", b.firstSlice(key))
		return
	case service == nil:
		service = impliedService(key, list, flags)
		b.add(entry{ref: ref, object: service}, flagOrigin(flags[0]))
		service = b.snap.Services[key] // the one from the snapshot before, if it was the same
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		b.flagIssues(flags, ref, false, "the Service is of type ExternalName, so the flag has no effect")
		return
	}
	var done []Backend
	for _, i := range flags {
		port := findPort(service, list[i].Port)
		if port == nil {
			b.flagIssues([]int{i}, ref, true, "the Service has no port %s; it has %s", list[i].Port, portNames(service))
			continue
		}
		backend := Backend{Service: key, Port: port.Name, Endpoint: list[i].Endpoint}
		if slices.Contains(done, backend) {
			continue
		}
		done = append(done, backend)
		slice := impliedSlice(backend, port, i)
		for b.held[kindOf(kindEndpointSlice).ref(object.KeyOf(slice))].object != nil {
			slice.Name += "-flag" // another Service's slice has the name
		}
		b.add(entry{ref: kindOf(kindEndpointSlice).ref(object.KeyOf(slice)), object: slice}, flagOrigin(i))
	}
}

func flagOrigin(i int) string { return flagName + ":" + strconv.Itoa(i+1) }

func (b *builder) flagIssues(flags []int, ref object.Ref, fatal bool, format string, args ...any) {
	for _, i := range flags {
		b.issues = append(b.issues, Issue{File: flagName, Line: i + 1, Object: ref, Message: fmt.Sprintf(format, args...), Fatal: fatal})
	}
}

// firstSlice says where the first EndpointSlice of a Service is.
func (b *builder) firstSlice(key object.Key) string {
	first := slices.MinFunc(b.snap.EndpointSlices[key], func(x, y *discoveryv1.EndpointSlice) int { return strings.Compare(x.Name, y.Name) })
	return b.snap.Origins[object.Ref{Kind: kindEndpointSlice, Namespace: first.Namespace, Name: first.Name}]
}

// findPort finds a port of a Service by number or name.
func findPort(s *corev1.Service, port string) *corev1.ServicePort {
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; p.Name == port || strconv.Itoa(int(p.Port)) == port {
			return p
		}
	}
	return nil
}

func portNames(s *corev1.Service) string {
	var names []string
	for _, p := range s.Spec.Ports {
		name := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			name += " (" + p.Name + ")"
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// impliedService is the Service that the flags speak of. A port that they name has the number of its first endpoint, or the next one that is free.
func impliedService(key object.Key, list []Backend, flags []int) *corev1.Service {
	s := &corev1.Service{}
	s.Namespace, s.Name = key.Namespace, key.Name
	used := map[int32]bool{}
	for _, i := range flags {
		if n, err := strconv.ParseInt(list[i].Port, 10, 32); err == nil {
			used[int32(n)] = true
		}
	}
	for _, i := range flags {
		if findPort(s, list[i].Port) != nil {
			continue
		}
		if n, err := strconv.ParseInt(list[i].Port, 10, 32); err == nil {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "port-" + list[i].Port, Port: int32(n)})
			continue
		}
		number := int32(list[i].Endpoint.Port())
		for used[number] {
			number = number%65535 + 1
		}
		used[number] = true
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: list[i].Port, Port: number})
	}
	if len(s.Spec.Ports) == 1 && used[s.Spec.Ports[0].Port] && strings.HasPrefix(s.Spec.Ports[0].Name, "port-") {
		s.Spec.Ports[0].Name = "" // a single port needs no name
	}
	setDefaults(s, kindOf(kindService))
	return s
}

// impliedSlice is the EndpointSlice of one flag.
func impliedSlice(backend Backend, port *corev1.ServicePort, flag int) *discoveryv1.EndpointSlice {
	addr := backend.Endpoint.Addr()
	family := discoveryv1.AddressTypeIPv4
	if addr.Is6() {
		family = discoveryv1.AddressTypeIPv6
	}
	name, number, ready := port.Name, int32(backend.Endpoint.Port()), true
	s := &discoveryv1.EndpointSlice{
		AddressType: family,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{addr.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &number, Protocol: &port.Protocol, AppProtocol: port.AppProtocol}},
	}
	s.ObjectMeta = metav1.ObjectMeta{
		Namespace: backend.Service.Namespace,
		Name:      backend.Service.Name + "-backend-" + strconv.Itoa(flag+1),
		Labels:    map[string]string{discoveryv1.LabelServiceName: backend.Service.Name},
	}
	setDefaults(s, kindOf(kindEndpointSlice))
	return s
}
