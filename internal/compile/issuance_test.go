package compile

import (
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/fairlead-io/fairlead/internal/object"
	"github.com/fairlead-io/fairlead/internal/route"
)

func TestWhatBecameOfOrdersIsInTheStatusOfWhoWantsThem(t *testing.T) {
	r := Compile(load(t, readFile(t, "testdata/a-listener-orders-the-certificate-for-its-hostname/in.yaml")),
		Options{ACME: &ACMEOptions{Issuers: map[string]ACMEIssuer{"staging": {}, "dns": {DNS: true}}}})
	b, wild := object.Key{Namespace: "shop", Name: "gw-tls-cd59d56fd6"}, object.Key{Namespace: "shop", Name: "wild"}
	until := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	failed := Issuance{Failed: "dns: urn:ietf:params:acme:error:dns - NXDOMAIN\nbackup: away", Next: until}
	for _, test := range []struct {
		name  string
		known map[object.Key]Issuance
		want  string
		codes []string
	}{
		{"nothing is known", nil, "False Pending the certificate for b.example.com is on order; the certificate for *.example.com is on order", nil},
		{
			"one is issued",
			map[object.Key]Issuance{b: {Issuer: "staging", NotAfter: until}},
			"False Pending the certificate for *.example.com is on order",
			[]string{CodeIssued},
		},
		{
			"one failed",
			map[object.Key]Issuance{b: {Issuer: "staging", NotAfter: until}, wild: failed},
			"False Failed no certificate for *.example.com: dns: urn:ietf:params:acme:error:dns - NXDOMAIN; backup: away; the next attempt is at 2026-03-01T00:00:00Z",
			[]string{CodeIssued, CodeFailed},
		},
		{"all are issued", map[object.Key]Issuance{b: {Issuer: "staging", NotAfter: until}, wild: {Issuer: "dns", NotAfter: until}}, "True Issued ", []string{CodeIssued, CodeIssued}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := r.Status.String()
			status, all := r.WithIssuance(test.known)
			conditions := status.Gateways[object.Key{Namespace: "shop", Name: "gw"}].Conditions
			last := conditions[len(conditions)-1]
			if got := string(last.Status) + " " + last.Reason + " " + last.Message; last.Type != CertificatesIssued || got != test.want {
				t.Errorf("got condition %s %q, want %q", last.Type, got, test.want)
			}
			var codes []string
			for _, p := range all {
				if p.Code == CodeIssued || p.Code == CodeFailed {
					codes = append(codes, p.Code)
				}
			}
			if diff := gocmp.Diff(test.codes, codes); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if after := r.Status.String(); after != before {
				t.Error("the result itself was changed")
			}
		})
	}
}

func TestAResultWithoutOrdersHasNothingToAdd(t *testing.T) {
	r := Compile(load(t, readFile(t, "testdata/a-grant-opens-a-cross-namespace-secret/in.yaml")), Options{})
	status, all := r.WithIssuance(map[object.Key]Issuance{{Namespace: "x", Name: "y"}: {Failed: "no"}})
	if status.String() != r.Status.String() || len(all) != len(r.Problems) {
		t.Error("a result without orders was changed")
	}
}

// A name beside another must be a name, differ for other hosts, and be the same each time.
func TestTheSecretBesideAnother(t *testing.T) {
	long := ""
	for len(long) < 250 {
		long += "a-"
	}
	seen := map[string]bool{}
	for _, name := range []string{"web-tls", long} {
		for _, host := range []string{"a.example.com", "b.example.com", "*.example.com"} {
			got := besideName(name, host)
			if len(got) > 253 || seen[got] || got != besideName(name, host) || !validName(got) {
				t.Errorf("the Secret beside %s for %s is %q", name, host, got)
			}
			seen[got] = true
		}
	}
}

func TestAnOrderIsOneLine(t *testing.T) {
	o := route.CertificateOrder{
		Namespace: "shop", Name: "tls", Hosts: []string{"a.example.com", "*.example.com"}, Issuers: []string{"one", "two"},
		Source: route.Source{Kind: "Ingress", Namespace: "shop", Name: "web", Field: "spec.tls[0]"},
	}
	if got, want := o.String(), "order Secret shop/tls: a.example.com, *.example.com from one, then two  # Ingress shop/web spec.tls[0]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
