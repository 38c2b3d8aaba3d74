// Command cluster starts and ends a real Kubernetes for tests, and runs commands in it.
//
//	cluster up                 build what is missing, start it, say how to reach it
//	cluster down               end it; nothing stays but the built programs
//	cluster kubectl ARG...     run kubectl in it
//	cluster sh COMMAND...      run any command in it
//	cluster image              build Fairlead from this checkout and give it to the nodes as localhost/fairlead:dev
//
// The environment variable FAIRLEAD_CLUSTER names the folder of its files and logs, if it is not the one in the cache; several clusters can run at once.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("want up, down, image, kubectl or sh")
	}
	switch args[0] {
	case "init", "supervise":
		return inside(args[0], args[1:])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	cache, err := cluster.CacheDir()
	if err != nil {
		return err
	}
	c := &cluster.Cluster{State: cmp.Or(os.Getenv("FAIRLEAD_CLUSTER"), filepath.Join(cache, "cluster")), Log: os.Stdout}
	tools, err := filepath.Abs("tools")
	if err != nil {
		return err
	}
	switch args[0] {
	case "down":
		return c.Down()
	case "up":
		return up(ctx, c, tools, cache)
	case "image":
		if c.Bin, err = cluster.BinDir(tools, cache); err != nil {
			return err
		}
		return c.AddFairlead(ctx, filepath.Join(tools, "..", ".."))
	case "kubectl", "sh":
		if c.Bin, err = cluster.BinDir(tools, cache); err != nil {
			return err
		}
		if args[0] == "sh" {
			args = args[1:]
		}
		if len(args) == 0 {
			return errors.New("sh wants a command")
		}
		cmd, err := c.Command(ctx, args[0], args[1:]...)
		if err != nil {
			return err
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd.Run()
	}
	return fmt.Errorf("%q is not up, down, image, kubectl or sh", args[0])
}

func up(ctx context.Context, c *cluster.Cluster, tools, cache string) (err error) {
	if err := cluster.Prepare(ctx, os.Stdout); err != nil {
		return err
	}
	if c.Bin, err = cluster.Binaries(ctx, tools, cache, os.Stdout); err != nil {
		return err
	}
	begun := time.Now()
	if err := c.Up(ctx); err != nil {
		return err
	}
	fmt.Printf(`
A cluster with two nodes is up after %.1f s. Try:

  make kubectl ARGS="get nodes -o wide"
  make kubectl ARGS="get pods -A"
  make cluster-down

Its logs are in %s.
`, time.Since(begun).Seconds(), filepath.Join(c.State, "logs"))
	return nil
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
	if part == "init" {
		return c.Init()
	}
	return c.Supervise(context.Background())
}
