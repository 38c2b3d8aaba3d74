package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

// CertificatesIssued is the type of the condition of a Gateway or ListenerSet that says how its certificates on order stand. Objects that order none have none.
const CertificatesIssued = "fairlead.io/CertificatesIssued"

// The codes of what there is to say about an order.
const (
	CodeOrdered = "CertificateOrdered"
	CodeIssued  = "CertificateIssued"
	CodeFailed  = "CertificateFailed"
)

// Issuance is how a certificate on order stands. The zero value is one of which nothing is known.
type Issuance struct {
	Failed   string    // the last attempt failed, with these words
	Next     time.Time // when the next one is due
	Issuer   string    // who issued the certificate that there is; empty: there is none
	NotAfter time.Time // of it
}

// WithIssuance returns the status and the problems of a result with what became of its orders, by Secret. The result stays as it is.
func (r Result) WithIssuance(known map[object.Key]Issuance) (Status, []Problem) {
	if len(r.Orders) == 0 {
		return r.Status, r.Problems
	}
	status, all := r.Status, problems{list: slices.Clone(r.Problems)}
	byObject := map[object.Ref][]notice{}
	for _, o := range r.Orders {
		ref := object.Ref{Kind: o.Source.Kind, Namespace: o.Source.Namespace, Name: o.Source.Name}
		i, isKnown := known[object.Key{Namespace: o.Namespace, Name: o.Name}]
		n := noticeOf(o, i)
		if isKnown && (i.Failed != "" || i.Issuer != "") { // of the others the compiler has said what there is to say
			severity := Note
			if n.code == CodeFailed {
				severity = Warning
			}
			all.add(severity, ref, o.Source.Field, n.code, "%s", n.text)
		}
		byObject[ref] = append(byObject[ref], n)
	}
	status.Gateways, status.ListenerSets = maps.Clone(r.Status.Gateways), maps.Clone(r.Status.ListenerSets)
	for ref, notices := range byObject {
		key := ref.Key()
		if g, ok := status.Gateways[key]; ok && ref.Kind == "Gateway" {
			g.Conditions = append(slices.Clip(g.Conditions), issuanceCondition(notices, generationOf(g.Conditions)))
			status.Gateways[key] = g
		}
		if s, ok := status.ListenerSets[key]; ok && ref.Kind == listenerSetKind {
			s.Conditions = append(slices.Clip(s.Conditions), issuanceCondition(notices, generationOf(s.Conditions)))
			status.ListenerSets[key] = s
		}
	}
	return status, all.sorted()
}

// notice is what there is to say about one order.
type notice struct{ code, text string }

func noticeOf(o route.CertificateOrder, i Issuance) notice {
	hosts, secret := list(o.Hosts), object.Key{Namespace: o.Namespace, Name: o.Name}
	switch {
	case i.Failed != "":
		text := fmt.Sprintf("no certificate for %s: %s; the next attempt is at %s", hosts, oneLine(i.Failed), i.Next.UTC().Format(time.RFC3339))
		if i.Issuer != "" {
			text += fmt.Sprintf("; the one that there is serves until %s", i.NotAfter.UTC().Format(time.RFC3339))
		}
		return notice{CodeFailed, text}
	case i.Issuer != "":
		return notice{CodeIssued, fmt.Sprintf("Secret %s has the certificate for %s that %s issued; it is valid until %s", secret, hosts, i.Issuer, i.NotAfter.UTC().Format(time.RFC3339))}
	case len(o.Chain) > 0:
		return notice{CodeIssued, fmt.Sprintf("Secret %s has the certificate for %s that %s issued", secret, hosts, o.Issuer)}
	}
	return notice{CodeOrdered, fmt.Sprintf("the certificate for %s is on order", hosts)}
}

// oneLine writes several lines as one.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// issuanceCondition joins notices: one that failed counts more than one that is pending, and that more than all that are issued.
func issuanceCondition(notices []notice, generation int64) metav1.Condition {
	c := metav1.Condition{Type: CertificatesIssued, Status: metav1.ConditionTrue, Reason: "Issued", ObservedGeneration: generation}
	for _, worst := range []struct{ code, reason string }{{CodeFailed, "Failed"}, {CodeOrdered, "Pending"}} {
		var texts []string
		for _, n := range notices {
			if n.code == worst.code {
				texts = append(texts, n.text)
			}
		}
		if len(texts) > 0 {
			c.Status, c.Reason, c.Message = metav1.ConditionFalse, worst.reason, strings.Join(texts, "; ")
			return c
		}
	}
	return c
}

// generationOf is the generation that the other conditions of an object are about.
func generationOf(conditions []metav1.Condition) int64 {
	if len(conditions) == 0 {
		return 0
	}
	return conditions[0].ObservedGeneration
}
