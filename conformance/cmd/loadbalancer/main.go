// Command loadbalancer gives Services of type LoadBalancer an address from a pool; see package loadbalancer.
package main

import (
	"context"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairlead-io/fairlead/conformance/loadbalancer"
)

func main() {
	kubeconfig := flag.String("kubeconfig", os.Getenv("KUBECONFIG"), "who to talk to")
	pool := flag.String("pool", "10.100.1.0/24", "the addresses to hand out")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(*kubeconfig, *pool, log); err != nil {
		log.Error("ended", "error", err)
		os.Exit(1)
	}
}

func run(kubeconfig, pool string, log *slog.Logger) error {
	prefix, err := netip.ParsePrefix(pool)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return (&loadbalancer.Controller{Client: client, Pool: prefix, Log: log}).Run(ctx)
}
