package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Release is the name of the Helm release that Install makes, and Namespace where it is.
const (
	Release   = "fairlead"
	Namespace = "fairlead-system"
)

// Install installs the definitions of the Gateway API (experimental channel) and the chart of a checkout, with the image that AddFairlead makes of it, and waits
// until it is ready. Called again it upgrades. values are further arguments of helm.
func (c *Cluster) Install(ctx context.Context, checkout string, values ...string) error {
	if err := c.InstallGatewayAPI(ctx, checkout); err != nil {
		return err
	}
	if err := c.AddFairlead(ctx, checkout); err != nil {
		return err
	}
	args, err := c.HelmArgs(checkout)
	if err != nil {
		return err
	}
	return c.do(ctx, "helm", append(append([]string{"upgrade", "--install", "--create-namespace"}, args...), values...)...)
}

// HelmArgs are what install and upgrade have in common: names, chart and image. The image's hash is an annotation of the pods, so that another image rolls them.
func (c *Cluster) HelmArgs(checkout string) ([]string, error) {
	return c.HelmArgsOf(checkout, Release, Namespace)
}

// HelmArgsOf are those for another release beside the first, in another namespace.
func (c *Cluster) HelmArgsOf(checkout, release, namespace string) ([]string, error) {
	program, err := os.ReadFile(filepath.Join(c.State, "fairlead"))
	if err != nil {
		return nil, fmt.Errorf("find the image's program: %w", err)
	}
	return []string{
		release, filepath.Join(checkout, "charts", "fairlead"), "-n", namespace, "--wait", "--timeout=120s",
		"--set=image.registry=localhost,image.repository=fairlead,image.tag=dev,image.pullPolicy=Never",
		"--set-string=podAnnotations.program=" + digest(program)[:16],
	}, nil
}

// InstallGatewayAPI installs the definitions that the product's module requires, those of the experimental channel.
func (c *Cluster) InstallGatewayAPI(ctx context.Context, checkout string) error {
	dir, err := moduleDir(ctx, checkout, "sigs.k8s.io/gateway-api")
	if err != nil {
		return err
	}
	if err := c.do(ctx, "kubectl", "apply", "--server-side", "-k", filepath.Join(dir, "config", "crd", "experimental")); err != nil {
		return err
	}
	return c.do(ctx, "kubectl", "wait", "--for=condition=Established", "--timeout=30s", "crd/gateways.gateway.networking.k8s.io", "crd/httproutes.gateway.networking.k8s.io")
}

// AppImage is the application of the end-to-end tests.
const AppImage = "localhost/app:dev"

// AddApp builds the application of the end-to-end tests from a checkout and gives it to the nodes as AppImage.
func (c *Cluster) AddApp(ctx context.Context, checkout string) error {
	binary := filepath.Join(c.State, "app")
	if err := (program{name: "app", pkg: "./internal/echo/pod"}).build(ctx, checkout, binary); err != nil {
		return err
	}
	return c.AddImage(ctx, "app", Image{Tags: []string{AppImage}, Files: map[string]string{"/app": binary}, Entrypoint: []string{"/app"}, User: "65532"})
}

// AuthorityImage has a certificate authority, /pebble, and the DNS that it asks, /names.
const AuthorityImage = "localhost/authority:dev"

// AddAuthority builds Pebble from the module of a checkout that requires it and gives it to the nodes as AuthorityImage.
func (c *Cluster) AddAuthority(ctx context.Context, checkout string) error {
	files := map[string]string{"/pebble": filepath.Join(c.State, "pebble"), "/names": filepath.Join(c.State, "names")}
	for name, pkg := range map[string]string{"/pebble": "pebble", "/names": "pebble-challtestsrv"} {
		p := program{name: pkg, pkg: "github.com/letsencrypt/pebble/v2/cmd/" + pkg}
		if err := p.build(ctx, filepath.Join(checkout, "conformance", "acme"), files[name]); err != nil {
			return err
		}
	}
	return c.AddImage(ctx, "authority", Image{Tags: []string{AuthorityImage}, Files: files, Entrypoint: []string{"/pebble"}, User: "65532"})
}

// do runs a command in the cluster that has to succeed.
func (c *Cluster) do(ctx context.Context, name string, args ...string) error {
	cmd, err := c.Command(ctx, name, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
