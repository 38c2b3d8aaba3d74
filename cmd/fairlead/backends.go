package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-io/fairlead/internal/backend"
)

// maxBackends is how much of /debug/backends is read.
const maxBackends = 256 << 20

func newBackends() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "backends [ADDRESS]",
		Short: "Show what a running Fairlead thinks of its backends",
		Long: `Show what a running Fairlead thinks of its backends: each pool's policy, and of each endpoint its weight, its health and why it is left out, what is
under way there, how long it takes, how its last answers were, how often it was left out, and the last error.

ADDRESS is the admin address of the process, 127.0.0.1:9000 unless it is given.`,
		Example: "  fairlead backends\n  kubectl -n fairlead-system port-forward deploy/fairlead 9000 & fairlead backends",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			address := "127.0.0.1:9000"
			if len(args) > 0 {
				address = args[0]
			}
			pools, err := askBackends(cmd.Context(), address)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(pools)
			}
			return printBackends(cmd.OutOrStdout(), pools, time.Now())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// backendPool is a pool as /debug/backends shows it, with the key as text.
type backendPool struct {
	Key string `json:"key"`
	backend.PoolStatus
}

// askBackends reads /debug/backends of a process.
func askBackends(ctx context.Context, address string) ([]backendPool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/debug/backends", nil)
	if err != nil {
		return nil, fmt.Errorf("ask for backends: %w", err)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for backends: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for backends: %s answered %s", address, res.Status)
	}
	var pools []backendPool
	if err := json.NewDecoder(io.LimitReader(res.Body, maxBackends)).Decode(&pools); err != nil {
		return nil, fmt.Errorf("ask for backends: %s: %w", address, err)
	}
	return pools, nil
}

// printBackends prints a line for each pool, and below it one for each endpoint.
func printBackends(out io.Writer, pools []backendPool, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for i := range pools {
		p := &pools[i]
		_, _ = fmt.Fprintln(w, poolLine(p))
		if len(p.Endpoints) == 0 {
			_, _ = fmt.Fprintln(w, "  no endpoints")
			continue
		}
		_, _ = fmt.Fprintln(w, "  ENDPOINT\tHEALTH\tWEIGHT\tIN FLIGHT\tCONNECTIONS\tLATENCY\tBAD\tEJECTED\tLAST ERROR")
		for j := range p.Endpoints {
			_, _ = fmt.Fprintln(w, "  "+strings.Join(endpointCells(&p.Endpoints[j], now), "\t"))
		}
	}
	return w.Flush()
}

func poolLine(p *backendPool) string {
	words := []string{"pool", p.Key, string(p.Protocol), string(p.Algorithm)}
	if p.Policy != "" {
		words = append(words, p.Policy)
	}
	if p.Pending > 0 {
		words = append(words, strconv.Itoa(p.Pending)+" waiting")
	}
	if p.Panic {
		words = append(words, "PANIC")
	}
	if p.Retired {
		words = append(words, "retired")
	}
	return printable(strings.Join(words, " "))
}

func endpointCells(e *backend.EndpointStatus, now time.Time) []string {
	latency, bad, last := "-", "-", "-"
	if e.LatencyMS > 0 {
		latency = strconv.FormatFloat(e.LatencyMS, 'f', 1, 64) + "ms"
	}
	if e.Answers > 0 {
		bad = fmt.Sprintf("%d/%d", e.Bad, e.Answers)
	}
	if e.LastError != "" {
		last = printable(e.LastError) + " (" + now.Sub(e.LastErrorAt).Round(time.Second).String() + " ago)"
	}
	address := e.Address
	if e.Name != "" {
		address += " (" + printable(e.Name) + ")"
	}
	return []string{
		address, healthText(e, now), strconv.Itoa(e.Weight), strconv.Itoa(e.InFlight), strconv.Itoa(e.Connections), latency, bad, strconv.Itoa(e.Ejections), last,
	}
}

// healthText says whether the endpoint is used, and if not, why and until when.
func healthText(e *backend.EndpointStatus, now time.Time) string {
	text := "ok"
	if !e.Healthy {
		text = "out: " + e.Why
		if !e.RetryAt.IsZero() {
			text += ", next trial in " + max(e.RetryAt.Sub(now), 0).Round(time.Second).String()
		}
	}
	if e.Terminating {
		text += ", terminating"
	}
	if e.Far {
		text += ", far"
	}
	if e.Warmth > 0 {
		text += ", warming up " + strconv.Itoa(e.Warmth) + "%"
	}
	return text
}
