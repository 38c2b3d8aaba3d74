// Command cluster starts and ends a real Kubernetes for tests, and runs commands in it.
//
//	cluster up                 build what is missing, start it, say how to reach it
//	cluster programs           build what is missing, and print the folder that it is in
//	cluster down               end it; nothing stays but the built programs
//	cluster kubectl ARG...     run kubectl in it
//	cluster sh COMMAND...      run any command in it
//	cluster image              build Fairlead from this checkout and give it to the nodes as localhost/fairlead:dev
//	cluster install ARG...     install the Gateway API, and with helm the chart of this checkout and that image; arguments are helm's
//	cluster suite FLAG...      run the Gateway API's conformance suite; flags are the suite's, and go test's with -test before them
//	cluster e2e FLAG...        run the end-to-end tests; flags are theirs, and go test's with -test before them
//	cluster compare KEPT NEW   fail if two reports of the conformance suite say different things, and say which
//
// The environment variable CLUSTER names the cluster, if it is not the one without a name; several can run at once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// workspace is the cluster and the checkout that it tests.
type workspace struct {
	*cluster.Cluster
	cache    string
	module   string // the folder conformance of the checkout
	checkout string
}

func open() (workspace, error) {
	cache, err := cluster.CacheDir()
	if err != nil {
		return workspace{}, err
	}
	state, err := cluster.StateDir()
	if err != nil {
		return workspace{}, err
	}
	module, err := filepath.Abs(".")
	if err != nil {
		return workspace{}, err
	}
	bin, err := cluster.BinDir(filepath.Join(module, "tools"), cache)
	if err != nil {
		return workspace{}, err
	}
	return workspace{Cluster: &cluster.Cluster{Bin: bin, State: state, Log: os.Stdout}, cache: cache, module: module, checkout: filepath.Dir(module)}, nil
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("want up, programs, down, image, install, suite, e2e, compare, kubectl or sh")
	}
	if slices.Contains([]string{"init", "supervise", "stop-part", "start-part"}, args[0]) {
		return inside(args[0], args[1:])
	}
	w, err := open()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch command, args := args[0], args[1:]; command {
	case "up":
		return w.up(ctx)
	case "programs":
		return w.programs(ctx)
	case "down":
		return w.Down()
	case "image":
		return w.AddFairlead(ctx, w.checkout)
	case "install":
		return w.Install(ctx, w.checkout, args...)
	case "suite":
		return w.suite(ctx, args)
	case "e2e":
		return w.e2e(ctx, args)
	case "compare":
		return compare(args)
	case "kubectl":
		return w.attached(ctx, "kubectl", args...)
	case "sh":
		if len(args) == 0 {
			return errors.New("sh wants a command")
		}
		return w.attached(ctx, args[0], args[1:]...)
	}
	return fmt.Errorf("%q is not up, programs, down, image, install, suite, e2e, compare, kubectl or sh", args[0])
}

// compare compares two reports of the conformance suite.
func compare(files []string) error {
	if len(files) != 2 {
		return errors.New("compare wants two files: the report that is kept, and the new one")
	}
	var reports [2][]byte
	for i, file := range files {
		var err error
		if reports[i], err = os.ReadFile(file); err != nil {
			return fmt.Errorf("compare reports: %w", err)
		}
	}
	differences, err := cluster.ReportDifferences(reports[0], reports[1])
	if err != nil {
		return fmt.Errorf("compare %s with %s: %w", files[0], files[1], err)
	}
	for _, d := range differences {
		fmt.Println(d)
	}
	if len(differences) > 0 {
		return fmt.Errorf("the suite's report differs from %s in %d places", files[0], len(differences))
	}
	return nil
}

// attached runs a command in the cluster with the terminal of this one.
func (w workspace) attached(ctx context.Context, name string, args ...string) error {
	cmd, err := w.Command(ctx, name, args...)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

// programs builds what is missing. What it says about that is not for who reads the folder's name.
func (w workspace) programs(ctx context.Context) error {
	bin, err := cluster.Binaries(ctx, filepath.Join(w.module, "tools"), w.cache, os.Stderr)
	if err == nil {
		_, err = fmt.Println(bin)
	}
	return err
}

func (w workspace) up(ctx context.Context) (err error) {
	if err := cluster.Prepare(ctx, os.Stdout); err != nil {
		return err
	}
	if w.Bin, err = cluster.Binaries(ctx, filepath.Join(w.module, "tools"), w.cache, os.Stdout); err != nil {
		return err
	}
	begun := time.Now()
	if err := w.Up(ctx); err != nil {
		return err
	}
	fmt.Printf(`
A cluster with two nodes is up after %.1f s. Try:

  make kubectl ARGS="get nodes -o wide"
  make kubectl ARGS="get pods -A"
  make cluster-down

Its logs are in %s.
`, time.Since(begun).Seconds(), filepath.Join(w.State, "logs"))
	return nil
}

// suite gives the nodes the suite's images and runs it. What the suite is told of this checkout comes last, so that flags win.
func (w workspace) suite(ctx context.Context, flags []string) error {
	module := filepath.Join(w.module, "suite")
	if err := w.AddSuiteImages(ctx, module); err != nil {
		return err
	}
	program, err := w.TestProgram(ctx, module, ".", "suite")
	if err != nil {
		return err
	}
	fixed := []string{"-test.v", "-test.timeout=120m", "-gateway-class=fairlead"}
	return w.attached(ctx, program, append(fixed, flags...)...)
}

// e2e gives the nodes the images of this checkout and runs the end-to-end tests on the client, a machine that is none of the nodes. They use this very program to stop
// and start parts of the cluster.
func (w workspace) e2e(ctx context.Context, flags []string) error {
	for _, prepare := range []func(context.Context, string) error{w.InstallGatewayAPI, w.AddFairlead, w.AddApp, w.AddAuthority} {
		if err := prepare(ctx, w.checkout); err != nil {
			return err
		}
	}
	program, err := w.TestProgram(ctx, w.module, "./e2e", "e2e")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fixed := []string{"--net=/run/netns/client", "--", program, "-test.v", "-test.timeout=120m", "-bin=" + w.Bin, "-state=" + w.State, "-checkout=" + w.checkout, "-program=" + self}
	return w.attached(ctx, "nsenter", append(fixed, flags...)...)
}

// inside runs the parts that happen in the cluster's own namespaces.
func inside(part string, args []string) error {
	var c cluster.Cluster
	flags := flag.NewFlagSet(part, flag.ExitOnError)
	flags.StringVar(&c.Bin, "bin", "", "")
	flags.StringVar(&c.State, "state", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c.Log = os.Stdout
	switch part {
	case "init":
		return c.Init()
	case "stop-part":
		return c.StopPart(flags.Arg(0))
	case "start-part":
		return c.StartPart(context.Background(), flags.Arg(0))
	}
	return c.Supervise(context.Background())
}
