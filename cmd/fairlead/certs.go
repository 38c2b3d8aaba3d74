package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	issue "github.com/fairlead-io/fairlead/internal/acme"
	"github.com/fairlead-io/fairlead/internal/cert"
)

// certOrder is what /debug/orders shows of a certificate on order.
type certOrder struct {
	Secret  string    `json:"secret"` // namespace/name
	Hosts   []string  `json:"hosts"`
	Issuers []string  `json:"issuers"`
	For     string    `json:"for"`   // the object that wants it
	Phase   string    `json:"phase"` // pending, issued or failed; unknown on replicas that do not order
	Issuer  string    `json:"issuer,omitempty"`
	Next    time.Time `json:"next,omitzero"` // the next renewal, or the next attempt after a failure
	Err     string    `json:"error,omitempty"`
	Tried   time.Time `json:"tried,omitzero"`
}

// orders are the certificates on order. Only the replica that orders them knows what became of them.
func (s *server) orders() []certOrder {
	out := []certOrder{}
	known := map[issue.Secret]issue.State{}
	if s.issuer != nil {
		for _, state := range s.issuer.States() {
			known[state.Secret] = state
		}
	}
	for _, o := range s.shows().result.Orders {
		c := certOrder{Secret: o.Namespace + "/" + o.Name, Hosts: o.Hosts, Issuers: o.Issuers, For: o.Source.String(), Phase: "unknown", Issuer: o.Issuer}
		if st, ok := known[issue.Secret{Namespace: o.Namespace, Name: o.Name}]; ok {
			c.Phase, c.Issuer, c.Next, c.Err, c.Tried = string(st.Phase), st.Issuer, st.Next, st.Err, st.LastTry
		}
		out = append(out, c)
	}
	return out
}

func newCerts() *cobra.Command {
	var admin string
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Print the certificates of a running Fairlead: what is presented, what is on order, when it is renewed, what went wrong",
		Long: `Print the certificates of a running Fairlead: what is presented, what is on order, when it is renewed, what went wrong.

Of several replicas only the one that orders certificates knows when they are renewed and what went wrong.`,
		Example: "  fairlead certs\n  kubectl -n fairlead-system exec deploy/fairlead -- /fairlead certs",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var presented []cert.Info
			var orders []certOrder
			client := &http.Client{Timeout: 10 * time.Second}
			for page, into := range map[string]any{"certificates": &presented, "orders": &orders} {
				if err := getJSON(client, "http://"+admin+"/debug/"+page, into); err != nil {
					return err
				}
			}
			return printCerts(cmd.OutOrStdout(), presented, orders)
		},
	}
	cmd.Flags().StringVar(&admin, "admin-address", "127.0.0.1:9000", "ask the Fairlead whose admin `ADDR` this is")
	return cmd
}

// getJSON reads a page of the admin address.
func getJSON(client *http.Client, url string, into any) error {
	resp, err := client.Get(url) //nolint:noctx // the client has a timeout
	if err != nil {
		return fmt.Errorf("ask a running Fairlead: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask a running Fairlead: %s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// certLine is a line of the output.
type certLine struct{ secret, from, names, expires, next, problem string }

// printCerts prints a line for each Secret, and one for each name for which a self-signed certificate is presented.
func printCerts(w io.Writer, presented []cert.Info, orders []certOrder) error {
	lines := certLines(presented, orders)
	slices.SortFunc(lines, func(a, b certLine) int { return cmp.Or(cmp.Compare(a.secret, b.secret), cmp.Compare(a.names, b.names)) })
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "SECRET\tSOURCE\tNAMES\tEXPIRES\tNEXT\tPROBLEM")
	for _, l := range slices.Compact(lines) {
		_, _ = fmt.Fprintln(t, printable(l.secret)+"\t"+printable(l.from)+"\t"+printable(l.names)+"\t"+l.expires+"\t"+l.next+"\t"+printable(l.problem))
	}
	return t.Flush()
}

func certLines(presented []cert.Info, orders []certOrder) []certLine {
	byName := map[string]certOrder{}
	for _, o := range orders {
		byName[o.Secret] = o
	}
	var lines []certLine
	seen := map[string]bool{}
	for _, c := range presented {
		l := certLine{secret: c.Secret, from: "user", names: strings.Join(c.DNSNames, ","), expires: stamp(c.NotAfter), next: "-", problem: "-"}
		if c.Fallback {
			l = certLine{secret: "-", from: "self-signed", names: cmp.Or(c.Hostname, "*"), expires: "-", next: "-", problem: "-"}
		}
		if o, ok := byName[c.Secret]; ok && !c.Fallback {
			l = o.line(l)
			seen[c.Secret] = true
		}
		lines = append(lines, l)
	}
	for _, o := range orders {
		if !seen[o.Secret] {
			lines = append(lines, o.line(certLine{secret: o.Secret, names: strings.Join(o.Hosts, ","), expires: "-", next: "-", problem: "-"}))
		}
	}
	return lines
}

// line adds to a line what the order says.
func (o certOrder) line(l certLine) certLine {
	l.from = "acme:" + cmp.Or(o.Issuer, strings.Join(o.Issuers, ","))
	l.next = stamp(o.Next)
	l.problem = cmp.Or(strings.ReplaceAll(o.Err, "\n", "; "), "-")
	return l
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
