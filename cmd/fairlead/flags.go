package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/manifest"
)

// source holds the flags that decide how a folder is read and compiled. serve and the commands that only look share them, so that what lint and explain say
// is what serve does.
type source struct {
	portMap          string
	backends         []string
	gatewayAddresses string
	configFile       string
	node, zone       string
}

func (s *source) register(f *pflag.FlagSet) {
	f.StringVar(&s.portMap, "port-map", s.portMap, "bind other ports than the listeners say, as `FROM:TO,...`, such as 80:8080,443:8443")
	f.StringArrayVar(&s.backends, "backend", nil, "give a Service without EndpointSlice an endpoint, as `NS/SERVICE:PORT=HOST:PORT`; repeatable")
	f.StringVar(&s.gatewayAddresses, "gateway-addresses", "", "give each Gateway an address of its own from this `CIDR`, such as 127.0.1.0/24; host: they share this machine's")
	f.StringVar(&s.node, "node-name", os.Getenv("NODE_NAME"), "the `NAME` of the node that this runs on, for Services that prefer endpoints near their clients")
	f.StringVar(&s.zone, "zone", os.Getenv("NODE_ZONE"), "the `ZONE` of that node; empty means what the cluster says of it")
	f.StringVar(&s.configFile, "config", "", "read the operator's choices from this YAML `FILE`")
}

// hostAddresses is the value of --gateway-addresses with which all Gateways share the addresses of this machine.
const hostAddresses = "host"

// settings is what the flags say, checked.
type settings struct {
	config   config
	compile  compile.Options
	manifest manifest.Options
}

func (s *source) settings() (settings, error) {
	var out settings
	var err error
	if out.config, err = readConfig(s.configFile); err != nil {
		return out, err
	}
	out.compile = compile.Options{
		HTTPPort: out.config.Ingress.HTTPPort, HTTPSPort: out.config.Ingress.HTTPSPort, RedirectHTTPS: out.config.Ingress.RedirectHTTPS,
		AllowExternalName: out.config.AllowExternalName, PublishAddresses: out.config.PublishAddresses, ACME: out.config.ACME.compile(), Node: s.node, Zone: s.zone,
	}
	if out.compile.Care, out.compile.Retry, err = compile.ParseCare(out.config.Health); err != nil {
		return out, err
	}
	out.compile.ReplayBytes = out.config.Limits.ReplayBytes
	if out.compile.Balancing, err = out.config.balancing(); err != nil {
		return out, err
	}
	if out.compile.PortMap, err = parsePortMap("port-map", s.portMap); err != nil {
		return out, err
	}
	if s.gatewayAddresses != "" && s.gatewayAddresses != hostAddresses {
		if out.compile.GatewayAddresses, err = netip.ParsePrefix(s.gatewayAddresses); err != nil {
			return out, fmt.Errorf("--gateway-addresses: %q is not a network such as 127.0.1.0/24", s.gatewayAddresses)
		}
	}
	for _, b := range s.backends {
		parsed, err := manifest.ParseBackend(b)
		if err != nil {
			return out, fmt.Errorf("--backend: %w", err)
		}
		out.manifest.Backends = append(out.manifest.Backends, parsed)
	}
	return out, nil
}

// parsePortMap parses the value of a flag such as "80:8080,443:8443".
func parsePortMap(flag, s string) (map[uint16]uint16, error) {
	if s == "" {
		return nil, nil
	}
	out := map[uint16]uint16{}
	used := map[uint16]uint16{}
	for pair := range strings.SplitSeq(s, ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(pair), ":")
		f, ferr := parsePort(from)
		t, terr := parsePort(to)
		if !ok || ferr != nil || terr != nil {
			return nil, fmt.Errorf("--%s: %q is not FROM:TO with ports from 1 to 65535, such as 80:8080", flag, pair)
		}
		if other, dup := used[t]; dup && other != f {
			return nil, fmt.Errorf("--%s: ports %d and %d are both mapped to %d", flag, other, f, t)
		}
		if other, dup := out[f]; dup && other != t {
			return nil, fmt.Errorf("--%s: port %d is mapped to both %d and %d", flag, f, other, t)
		}
		out[f], used[t] = t, f
	}
	return out, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port", s)
	}
	return uint16(n), nil
}
