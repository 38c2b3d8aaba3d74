package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/manifest"
	"github.com/fairlead-io/fairlead/internal/object"
)

// finding is one thing that is wrong, wherever it was found: in the file or in the object.
type finding struct {
	Origin    string `json:"origin,omitempty"` // file:line
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Field     string `json:"field,omitempty"`
	Severity  string `json:"severity"`
	Code      string `json:"code"`
	Message   string `json:"message"`
}

// where names the object, or the file if no object could be made out.
func (f finding) where() string {
	if f.Kind == "" {
		return f.Origin
	}
	return object.Ref{Kind: f.Kind, Namespace: f.Namespace, Name: f.Name}.String()
}

// String returns the finding as one line, in the form that editors and CI systems link to the file.
func (f finding) String() string {
	line := ""
	if f.Origin != "" {
		line = f.Origin + ": "
	}
	line += f.Severity + ": "
	if f.Kind != "" {
		line += f.where() + " "
	}
	if f.Field != "" {
		line += f.Field + ": "
	}
	return printable(line + f.Message + " (" + f.Code + ")")
}

// findings joins what the folder and the compiler found, sorted by place.
func findings(in *object.Snapshot, result compile.Result, issues []manifest.Issue) []finding {
	out := make([]finding, 0, len(issues)+len(result.Problems))
	for _, i := range issues {
		severity := compile.Warning
		if i.Fatal {
			severity = compile.Error
		}
		out = append(out, finding{
			Origin: place(i), Kind: i.Object.Kind, Namespace: i.Object.Namespace, Name: i.Object.Name,
			Severity: string(severity), Code: "Manifest", Message: i.Message,
		})
	}
	for _, p := range result.Problems {
		f := finding{
			Kind: p.Object.Kind, Namespace: p.Object.Namespace, Name: p.Object.Name, Field: p.Field,
			Severity: string(p.Severity), Code: p.Code, Message: p.Message,
		}
		if in != nil {
			f.Origin = in.Origins[p.Object]
		}
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// place says where an issue is: file:line, or the file alone when all of it is meant.
func place(i manifest.Issue) string {
	if i.Line == 0 {
		return i.File
	}
	return fmt.Sprintf("%s:%d", i.File, i.Line)
}

// look reads and compiles a folder, for the commands that only look.
func (s *source) look(dir string) (*object.Snapshot, compile.Result, []manifest.Issue, error) {
	set, err := s.settings()
	if err != nil {
		return nil, compile.Result{}, nil, err
	}
	folder, err := manifest.Open(dir, set.manifest)
	if err != nil {
		return nil, compile.Result{}, nil, err
	}
	snap, issues := folder.Read()
	return snap, compile.Compile(snap, set.compile), issues, nil
}

func newTable() *cobra.Command {
	var src source
	cmd := &cobra.Command{
		Use:     "table DIR",
		Short:   "Print the routing table that a folder of YAML compiles to",
		Example: "  fairlead table ./k8s",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, result, issues, err := src.look(args[0])
			if err != nil {
				return err
			}
			warn(cmd.ErrOrStderr(), issues)
			_, err = io.WriteString(cmd.OutOrStdout(), tableText(result))
			return err
		},
	}
	src.register(cmd.Flags())
	return cmd
}

// tableText is the routing table, and below it the certificates on order.
func tableText(result compile.Result) string {
	var text strings.Builder
	text.WriteString(result.Table.String())
	for i, o := range result.Orders {
		if i == 0 {
			text.WriteByte('\n')
		}
		text.WriteString(o.String() + "\n")
	}
	return text.String()
}

// warn says on standard error what could not be read, for the commands whose answer does not show it.
func warn(w io.Writer, issues []manifest.Issue) {
	for _, i := range issues {
		if i.Fatal {
			_, _ = fmt.Fprintln(w, "fairlead: not used:", printable(i.String()))
		}
	}
}

// printable replaces control characters, which a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func newLint() *cobra.Command {
	var src source
	var output string
	cmd := &cobra.Command{
		Use:   "lint DIR",
		Short: "Check a folder of YAML: print each problem and the status that the objects would get",
		Long: `Check a folder of YAML: print each problem and the status that the objects would get.

Exits with 0 when there are no errors and no warnings, with 1 when there are, and with 2 when the folder cannot be read.`,
		Example: "  fairlead lint ./k8s\n  fairlead lint -o json ./k8s | jq '.problems[].message'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("-o: %q is not text or json", output)
			}
			snap, result, issues, err := src.look(args[0])
			if err != nil {
				return err
			}
			found := findings(snap, result, issues)
			if output == "json" {
				err = lintJSON(cmd.OutOrStdout(), found, result)
			} else {
				err = lintText(cmd.OutOrStdout(), found, result)
			}
			bad := slices.ContainsFunc(found, func(f finding) bool { return f.Severity != string(compile.Note) })
			if err == nil && bad {
				return exitError(1)
			}
			return err
		},
	}
	src.register(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "text", "print `text` or json")
	return cmd
}

func lintText(w io.Writer, found []finding, result compile.Result) error {
	var err error
	for _, f := range found {
		_, e := fmt.Fprintln(w, f)
		err = errors.Join(err, e)
	}
	if len(found) > 0 {
		_, e := fmt.Fprintln(w)
		err = errors.Join(err, e)
	}
	_, e := io.WriteString(w, result.Status.String())
	return errors.Join(err, e)
}

// objectStatus is the status that an object would get.
type objectStatus struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Status    any    `json:"status"`
}

// statuses lists what the compiler has to say of each object, in the order of the kinds, by namespace and name.
func statuses(s compile.Status) []objectStatus {
	out := []objectStatus{}
	for _, name := range slices.Sorted(maps.Keys(s.GatewayClasses)) {
		out = append(out, objectStatus{"GatewayClass", "", name, s.GatewayClasses[name]})
	}
	out = appendStatuses(out, "Gateway", s.Gateways)
	out = appendStatuses(out, "ListenerSet", s.ListenerSets)
	out = appendStatuses(out, "HTTPRoute", s.HTTPRoutes)
	out = appendStatuses(out, "BackendTLSPolicy", s.BackendTLSPolicies)
	out = appendStatuses(out, "XBackendTrafficPolicy", s.XBackendTrafficPolicies)
	out = appendStatuses(out, "XBackend", s.XBackends)
	out = appendStatuses(out, "GRPCRoute", s.GRPCRoutes)
	out = appendStatuses(out, "TLSRoute", s.TLSRoutes)
	out = appendStatuses(out, "TCPRoute", s.TCPRoutes)
	out = appendStatuses(out, "UDPRoute", s.UDPRoutes)
	return appendStatuses(out, "Ingress", s.Ingresses)
}

func appendStatuses[S any](out []objectStatus, kind string, m map[object.Key]S) []objectStatus {
	for _, key := range slices.SortedFunc(maps.Keys(m), object.Key.Compare) {
		out = append(out, objectStatus{kind, key.Namespace, key.Name, m[key]})
	}
	return out
}

func lintJSON(w io.Writer, found []finding, result compile.Result) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Problems []finding      `json:"problems"`
		Status   []objectStatus `json:"status"`
	}{found, statuses(result.Status)})
}
