package provision

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-io/fairlead/internal/compile"
)

// appliedAnnotation lists what of a Service is there because we put it there, and goes when it is not wanted any more: label:NAME, annotation:NAME and
// loadBalancerIP. Whatever is not in it belongs to somebody else.
const appliedAnnotation = "fairlead.io/applied"

const appliedAddress = "loadBalancerIP"

// applied is the value of appliedAnnotation.
func applied(want *compile.Service) string {
	var words []string
	for k := range want.Labels {
		words = append(words, "label:"+k)
	}
	for k := range want.Annotations {
		words = append(words, "annotation:"+k)
	}
	if want.LoadBalancerIP != "" {
		words = append(words, appliedAddress)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// newService returns the Service to create for a wish.
func newService(want *compile.Service) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: want.Name.Namespace, Name: want.Name.Name, Labels: maps.Clone(want.Labels), Annotations: maps.Clone(want.Annotations),
		},
		Spec: corev1.ServiceSpec{
			Type: want.Type, ExternalName: want.ExternalName, Selector: want.Selector,
			LoadBalancerIP: want.LoadBalancerIP, ExternalTrafficPolicy: want.ExternalTrafficPolicy,
		},
	}
	if s.Annotations == nil {
		s.Annotations = make(map[string]string)
	}
	s.Annotations[appliedAnnotation] = applied(want)
	s.Annotations[compile.GenerationAnnotation] = generation(want)
	if want.Type != corev1.ServiceTypeExternalName {
		s.Spec.Ports = ports(nil, want)
	}
	return s
}

// patch is a JSON merge patch (RFC 7396) of a Service: what is absent from it stays as it is, what is null in it goes. A nil one changes nothing.
type patch map[string]any

// onto makes a patch good for one version of a Service only.
func (c patch) onto(have *corev1.Service) patch {
	metadata := patch{"resourceVersion": have.ResourceVersion, "uid": have.UID}
	if m, ok := c["metadata"].(patch); ok {
		maps.Copy(metadata, m)
	}
	out := maps.Clone(c)
	out["metadata"] = metadata
	return out
}

// changes returns what to change for have to be as want says; nil if it is already.
func changes(have *corev1.Service, want *compile.Service) patch {
	words := strings.Fields(have.Annotations[appliedAnnotation])
	annotations := maps.Clone(want.Annotations)
	if annotations == nil {
		annotations = make(map[string]string)
	}
	annotations[appliedAnnotation] = applied(want)

	labelled := pairs(have.Labels, want.Labels, words, "label:")
	annotated := pairs(have.Annotations, annotations, words, "annotation:")
	spec := specChanges(have, want, slices.Contains(words, appliedAddress))
	if len(labelled)+len(annotated)+len(spec) == 0 {
		return nil
	}
	annotated[compile.GenerationAnnotation] = generation(want)
	metadata := patch{"annotations": annotated}
	metadata.put("labels", labelled)
	out := patch{"metadata": metadata}
	out.put("spec", spec)
	return out
}

func generation(want *compile.Service) string { return strconv.FormatInt(want.Generation, 10) }

// put adds a part to a patch, if there is anything in it.
func (c patch) put(name string, part patch) {
	if len(part) > 0 {
		c[name] = part
	}
}

// pairs returns what to change in labels or annotations: those that are wanted, and those that we put there (they are among words, with a prefix) and that are
// not wanted any more.
func pairs(have, want map[string]string, words []string, prefix string) patch {
	out := patch{}
	for k, v := range want {
		if old, ok := have[k]; !ok || old != v {
			out[k] = v
		}
	}
	for _, word := range words {
		k, ok := strings.CutPrefix(word, prefix)
		if _, wanted := want[k]; !ok || wanted {
			continue
		}
		if _, there := have[k]; there {
			out[k] = nil
		}
	}
	return out
}

// specChanges returns what to change in the spec. address says that its load balancer address was put there by us.
func specChanges(have *corev1.Service, want *compile.Service, address bool) patch {
	out, spec := patch{}, &have.Spec
	if spec.Type != want.Type {
		out["type"] = want.Type
	}
	if want.Type == corev1.ServiceTypeExternalName {
		if spec.ExternalName != want.ExternalName {
			out["externalName"] = want.ExternalName
		}
		return out
	}
	if spec.Type == corev1.ServiceTypeExternalName {
		out["externalName"] = nil
	}
	if !maps.Equal(spec.Selector, want.Selector) {
		out["selector"] = replaced(spec.Selector, want.Selector)
	}
	if !samePorts(spec.Ports, want.Ports) {
		out["ports"] = ports(spec.Ports, want)
	}
	if want.LoadBalancerIP != "" && spec.LoadBalancerIP != want.LoadBalancerIP {
		out["loadBalancerIP"] = want.LoadBalancerIP
	}
	if want.LoadBalancerIP == "" && spec.LoadBalancerIP != "" && address {
		out["loadBalancerIP"] = nil
	}
	if want.ExternalTrafficPolicy != "" && spec.ExternalTrafficPolicy != want.ExternalTrafficPolicy {
		out["externalTrafficPolicy"] = want.ExternalTrafficPolicy
	}
	return out
}

// replaced returns what to change in a map for there to be nothing else in it than what is wanted.
func replaced(have, want map[string]string) patch {
	out := patch{}
	for k := range have {
		out[k] = nil
	}
	for k, v := range want {
		out[k] = v
	}
	return out
}

// ports returns the ports that a Service should have. Those that it has keep their node ports.
func ports(have []corev1.ServicePort, want *compile.Service) []corev1.ServicePort {
	out := make([]corev1.ServicePort, len(want.Ports))
	for i, p := range want.Ports {
		out[i] = corev1.ServicePort{Name: p.Name, Port: int32(p.Port), TargetPort: intstr.FromInt32(int32(p.Bind)), Protocol: protocolOf(p)}
		if p.AppProtocol != "" {
			out[i].AppProtocol = &p.AppProtocol
		}
		for j := range have {
			if have[j].Port == int32(p.Port) && transport(&have[j]) == protocolOf(p) && want.Type != corev1.ServiceTypeClusterIP {
				out[i].NodePort = have[j].NodePort
			}
		}
	}
	return out
}

// protocolOf is the protocol that a port should have, and transport the one that it has.
func protocolOf(p compile.ServicePort) corev1.Protocol {
	if p.UDP {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}

func transport(p *corev1.ServicePort) corev1.Protocol {
	return cmp.Or(p.Protocol, corev1.ProtocolTCP)
}

// samePorts tells whether a Service has the ports that it should have, in whatever order, and no others.
func samePorts(have []corev1.ServicePort, want []compile.ServicePort) bool {
	if len(have) != len(want) {
		return false
	}
	for _, p := range want {
		if !slices.ContainsFunc(have, func(h corev1.ServicePort) bool {
			app := ""
			if h.AppProtocol != nil {
				app = *h.AppProtocol
			}
			return h.Port == int32(p.Port) && transport(&h) == protocolOf(p) && h.Name == p.Name && h.TargetPort == intstr.FromInt32(int32(p.Bind)) && app == p.AppProtocol
		}) {
			return false
		}
	}
	return true
}

// sameBinds tells whether two versions of a Service record the same.
func sameBinds(a, b *corev1.Service) bool {
	type entry struct {
		port   int32
		over   corev1.Protocol
		target intstr.IntOrString
	}
	entries := func(s *corev1.Service) map[entry]bool {
		out := make(map[entry]bool, len(s.Spec.Ports))
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			out[entry{p.Port, transport(p), p.TargetPort}] = true
		}
		return out
	}
	return maps.Equal(entries(a), entries(b))
}

// sameLabels tells whether two versions of a Service belong to the same.
func sameLabels(a, b *corev1.Service) bool { return maps.Equal(a.Labels, b.Labels) }
