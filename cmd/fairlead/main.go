// Command fairlead is an ingress controller: it compiles Ingress and Gateway API objects into a routing table and serves it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(runWith(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// exitError ends the program with a status, after everything that had to be said was said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// runWith executes the command line and returns the exit status: 0 for success, 1 for "no" (lint found problems, nothing serves the URL), 2 for a command that
// could not do its work.
func runWith(ctx context.Context, args []string, out, errOut io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	default:
		_, _ = fmt.Fprintln(errOut, "fairlead:", err)
		return 2
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "fairlead",
		Short:         "An ingress controller that explains itself",
		Long:          "Fairlead serves Kubernetes Ingress and Gateway API routes, from a cluster or from a folder of the same YAML, and says why a request goes where it goes.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newServe(), newDemo(), newTable(), newLint(), newExplain(), newBackends(), newCerts(), newProbe(), newCleanup(), newVersion())
	return root
}
