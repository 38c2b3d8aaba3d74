package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/proxy"
	"github.com/fairlead-io/fairlead/internal/route"
)

// config is the file of --config: what an operator may decide and few need to. Every field has a safe default; an unknown field is an error.
// docs/configuration.md describes the fields.
type config struct {
	Ingress struct {
		// RedirectHTTPS redirects plain requests for every Ingress host with a TLS block.
		RedirectHTTPS bool `json:"redirectHTTPS"`
		// HTTPPort and HTTPSPort are where Ingress objects are served. 0 means 80 and 443.
		HTTPPort  uint16 `json:"httpPort"`
		HTTPSPort uint16 `json:"httpsPort"`
	} `json:"ingress"`
	// AllowExternalName allows Services of type ExternalName, and XBackends, as backends.
	AllowExternalName bool `json:"allowExternalName"`
	// ACME are the certificate authorities that certificates are ordered from.
	ACME acmeConfig `json:"acme"`
	// TrustedProxies are the networks whose X-Forwarded-* headers are believed.
	TrustedProxies []string `json:"trustedProxies"`
	// PublishAddresses are what the status of Ingresses and Gateways shows.
	PublishAddresses []string `json:"publishAddresses"`
	// Balancing is for Services that say nothing of it themselves.
	Balancing struct {
		// Algorithm is a value of fairlead.io/load-balancing, and HashKey one of fairlead.io/hash-key.
		Algorithm string          `json:"algorithm"`
		HashKey   string          `json:"hashKey"`
		SlowStart metav1.Duration `json:"slowStart"`
		// SessionKeyFile holds the key for the names of endpoints in sessions. All replicas need the same. Empty: the UID of each Service.
		SessionKeyFile string `json:"sessionKeyFile"`
	} `json:"balancing"`
	// Health is for Services that say nothing of it themselves: the annotations of docs/health.md, without their prefix.
	Health map[string]string `json:"health"`
	Limits struct {
		HeaderBytes       int             `json:"headerBytes"`
		HeaderCount       int             `json:"headerCount"`
		TargetBytes       int             `json:"targetBytes"`
		BodyBytes         int64           `json:"bodyBytes"`
		ReadHeaderTimeout metav1.Duration `json:"readHeaderTimeout"`
		HandshakeTimeout  metav1.Duration `json:"handshakeTimeout"`
		IdleTimeout       metav1.Duration `json:"idleTimeout"`
		ReadTimeout       metav1.Duration `json:"readTimeout"`
		WriteTimeout      metav1.Duration `json:"writeTimeout"`
		TunnelIdle        metav1.Duration `json:"tunnelIdle"`
		FlowIdle          metav1.Duration `json:"flowIdle"`
		Flows             int             `json:"flows"`
		Connections       int             `json:"connections"`
		ConnectionsPerIP  int             `json:"connectionsPerIP"`
		Streams           int             `json:"streams"`
		Resets            int             `json:"resets"`
		// ReplayBytes is how much of a request's body a Service may have kept, to send it again, and ReplayMemory what all bodies together may hold.
		ReplayBytes  int   `json:"replayBytes"`
		ReplayMemory int64 `json:"replayMemory"`
	} `json:"limits"`
	Drain struct {
		// Delay is how long a stopping process goes on accepting while it tells clients to leave.
		Delay *metav1.Duration `json:"delay"`
		// Grace is how long requests may then take to finish.
		Grace *metav1.Duration `json:"grace"`
	} `json:"drain"`
	AccessLog struct {
		Disabled bool `json:"disabled"`
		// RedactQuery replaces the query string in the access log, where tokens tend to be.
		RedactQuery bool `json:"redactQuery"`
	} `json:"accessLog"`
}

// readConfig reads the file of --config; an empty name is the default configuration.
func readConfig(name string) (config, error) {
	var c config
	if name == "" {
		return c, nil
	}
	data, err := os.ReadFile(name) //nolint:gosec // the operator names the file
	if err != nil {
		return c, fmt.Errorf("read config: %w", err)
	}
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return c, fmt.Errorf("read config %s: %w", name, err)
	}
	if _, err := c.trustedProxies(); err != nil {
		return c, fmt.Errorf("read config %s: %w", name, err)
	}
	if err := c.ACME.validate(); err != nil {
		return c, fmt.Errorf("read config %s: %w", name, err)
	}
	if _, _, err := compile.ParseCare(c.Health); err != nil {
		return c, fmt.Errorf("read config %s: %w", name, err)
	}
	if _, err := c.balancing(); err != nil {
		return c, fmt.Errorf("read config %s: %w", name, err)
	}
	return c, nil
}

// balancing is the policy of Services that say nothing of it.
func (c config) balancing() (route.Policy, error) {
	b := c.Balancing
	return compile.ParsePolicy(b.Algorithm, b.HashKey, b.SlowStart.Duration)
}

// minSessionKey is the least length of a key that cannot be guessed.
const minSessionKey = 32

// sessionKey is the key for the names of endpoints in sessions; nil if the file names none.
func (c config) sessionKey() ([]byte, error) {
	name := c.Balancing.SessionKeyFile
	if name == "" {
		return nil, nil
	}
	key, err := os.ReadFile(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read balancing.sessionKeyFile: %w", err)
	}
	if key = bytes.TrimSpace(key); len(key) < minSessionKey {
		return nil, fmt.Errorf("read balancing.sessionKeyFile: %s holds %d characters, at least %d are needed", name, len(key), minSessionKey)
	}
	return key, nil
}

func (c config) trustedProxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, s := range c.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			if a, aerr := netip.ParseAddr(s); aerr == nil {
				p, err = netip.PrefixFrom(a, a.BitLen()), nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("trustedProxies[%d]: %q is not an address or a network such as 10.0.0.0/8", i, s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func (c config) limits() proxy.Limits {
	l := c.Limits
	return proxy.Limits{
		HeaderBytes: l.HeaderBytes, HeaderCount: l.HeaderCount, TargetBytes: l.TargetBytes, BodyBytes: l.BodyBytes,
		ReadHeaderTimeout: l.ReadHeaderTimeout.Duration, HandshakeTimeout: l.HandshakeTimeout.Duration, IdleTimeout: l.IdleTimeout.Duration,
		ReadTimeout: l.ReadTimeout.Duration, WriteTimeout: l.WriteTimeout.Duration, TunnelIdle: l.TunnelIdle.Duration,
		FlowIdle: l.FlowIdle.Duration, Flows: l.Flows,
		Connections: l.Connections, ConnectionsPerIP: l.ConnectionsPerIP, Streams: l.Streams, Resets: l.Resets,
	}
}

// drain returns the delay and grace as the proxy wants them, where zero means its default: what the file sets to 0 becomes negative, which means none.
func (c config) drain() (delay, grace time.Duration) {
	get := func(d *metav1.Duration) time.Duration {
		if d == nil {
			return 0
		}
		if d.Duration == 0 {
			return -1
		}
		return d.Duration
	}
	return get(c.Drain.Delay), get(c.Drain.Grace)
}
