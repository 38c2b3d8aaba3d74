package main

import (
	"strings"
	"testing"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/object"
)

// What flags say of addresses counts whether Gateways have Services or share the addresses of the nodes.
func TestAddressFlags(t *testing.T) {
	flags := clusterFlags{
		namespace: "own", podSelector: "app=fairlead", serviceType: "NodePort", trafficPolicy: "Local", publishService: "edge/front", hostService: "own/admin",
		hostPorts: "80:80,443:8443", publishAddresses: []string{"192.0.2.2"},
	}
	for _, host := range []bool{true, false} {
		opt, err := flags.options(compile.Options{PublishAddresses: []string{"192.0.2.1"}}, host)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(opt.PublishAddresses, " "); got != "192.0.2.1 192.0.2.2" {
			t.Errorf("host %v: addresses %s", host, got)
		}
		if opt.PublishService != (object.Key{Namespace: "edge", Name: "front"}) || opt.HostService != (object.Key{Namespace: "own", Name: "admin"}) || opt.HostPorts[443] != 8443 {
			t.Errorf("host %v: %+v", host, opt)
		}
		if (opt.Cluster == nil) != host {
			t.Errorf("host %v: Services %+v", host, opt.Cluster)
		}
	}
	if !flags.readsNodes() || (&clusterFlags{}).readsNodes() || !(&clusterFlags{publishNodes: true}).readsNodes() {
		t.Error("nodes are read if their addresses may be shown, and not otherwise")
	}
	for _, tt := range []struct {
		flags clusterFlags
		want  string
	}{
		{clusterFlags{publishService: "front"}, `--publish-service: "front" is not NAMESPACE/NAME`},
		{clusterFlags{hostService: "own/"}, `--host-service: "own/" is not NAMESPACE/NAME`},
		{clusterFlags{hostPorts: "80"}, `--host-ports: "80" is not FROM:TO`},
		{clusterFlags{hostPorts: "80:1,443:1"}, "--host-ports: ports 80 and 443 are both mapped to 1"},
	} {
		if _, err := tt.flags.options(compile.Options{}, true); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}
