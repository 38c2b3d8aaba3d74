package compile

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-io/fairlead/internal/object"
)

func TestAddressPool(t *testing.T) {
	tests := []struct {
		prefix string
		want   string // all that it hands out
	}{
		{"127.0.1.0/30", "127.0.1.1 127.0.1.2"},
		{"127.0.1.4/31", "127.0.1.4 127.0.1.5"},
		{"127.0.1.7/32", "127.0.1.7"},
		{"255.255.255.252/30", "255.255.255.253 255.255.255.254"},
		{"fd00::/126", "fd00::1 fd00::2 fd00::3"},
		{"fd00::8/128", "fd00::8"},
	}
	for _, test := range tests {
		pool := addressPool{prefix: netip.MustParsePrefix(test.prefix), owner: map[netip.Addr]object.Ref{}}
		var got []string
		for range 10 {
			if addr, ok := pool.take(object.Ref{Kind: "Gateway", Name: "gw"}); ok {
				got = append(got, addr.String())
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s hands out %v, want %s", test.prefix, got, test.want)
		}
	}
}

// A prefix may be written with an address inside of it.
func TestUnmaskedPrefix(t *testing.T) {
	in := load(t, mustGateway)
	res := Compile(in, Options{GatewayAddresses: netip.MustParsePrefix("127.0.1.77/24")})
	if got := res.Table.Ports[0].Bind.Address; got != "127.0.1.1" {
		t.Errorf("the Gateway got %s, want 127.0.1.1", got)
	}
}

// What a Gateway asks for in spec.addresses, and what its condition Programmed says to that.
func TestStaticAddresses(t *testing.T) {
	tests := []struct {
		name, wish string
		opt        Options
		want       string // reason and beginning of the message, or the addresses that it gets
	}{
		{"host name where Gateways have IP addresses", "{type: Hostname, value: a.example.com}", own, "AddressNotUsable: Gateways have addresses from 127.0.1.0/24 here, and no host names"},
		{"any host name where Gateways have IP addresses", "{type: Hostname}", own, "AddressNotAssigned: Gateways have addresses from 127.0.1.0/24"},
		{"no IP address", "{value: somewhere}", own, `AddressNotUsable: "somewhere" is not an IP address`},
		{"network address", "{value: 127.0.1.0}", own, "AddressNotUsable: 127.0.1.0 is not an address that Gateways may have here"},
		{"broadcast address", "{value: 127.0.1.255}", own, "AddressNotUsable: 127.0.1.255 is not an address that Gateways may have here"},
		{"every address", "{value: 0.0.0.0}", own, "AddressNotUsable: 0.0.0.0 is not an address that Gateways may have here"},
		{"twice the same", "{value: 127.0.1.7}, {value: 127.0.1.7}", own, "127.0.1.7"},
		{"one and any", "{value: 127.0.1.7}, {type: IPAddress}", own, "127.0.1.7,127.0.1.1"},
		{"nothing is published", "{value: 10.0.0.1}", Options{}, "AddressNotUsable: 10.0.0.1 is not an address of this Gateway: no address of type IPAddress is published here"},
		{"published name in other case", "{type: Hostname, value: LB.example.com}", shared, "lb.example.com"},
		{"published address of the other type", "{type: Hostname, value: 10.0.0.1}", shared, "AddressNotUsable: 10.0.0.1 is not an address of this Gateway, which has lb.example.com"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in := load(t, strings.Replace(mustGateway, "  listeners:", "  addresses: ["+test.wish+"]\n  listeners:", 1))
			got := Compile(in, test.opt).Status.String()
			if !strings.Contains(got, "Programmed=False "+test.want) && !strings.Contains(got, "Gateway infra/gw: Accepted Programmed addresses="+test.want+"\n") {
				t.Errorf("want %s, got\n%s", test.want, got)
			}
		})
	}
}

var (
	own    = Options{GatewayAddresses: netip.MustParsePrefix("127.0.1.0/24")}
	shared = Options{PublishAddresses: []string{"10.0.0.1", "lb.example.com"}}
)
