package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	issue "github.com/fairlead-io/fairlead/internal/acme"
	"github.com/fairlead-io/fairlead/internal/compile"
	"github.com/fairlead-io/fairlead/internal/manifest"
	"github.com/fairlead-io/fairlead/internal/object"
)

// acmeConfig is what the file of --config says about certificate authorities. docs/tls.md describes the fields.
type acmeConfig struct {
	// Storage is the folder for accounts, keys and certificates, where no cluster keeps them.
	Storage string `json:"storage"`
	// Default are the issuers for objects that name none.
	Default []string       `json:"default"`
	Issuers []issuerConfig `json:"issuers"`
	// FirstRetry is how long to wait after a first failure. 0 means a minute.
	FirstRetry metav1.Duration `json:"firstRetry"`
	// Parallel is how many orders are under way at a time. 0 means 10.
	Parallel int `json:"parallel"`
	// Orders and Per limit how many orders an authority gets in a time. 0 means 10 in 10 s.
	Orders int             `json:"orders"`
	Per    metav1.Duration `json:"per"`
}

// issuerConfig is one certificate authority.
type issuerConfig struct {
	Name        string `json:"name"`
	Directory   string `json:"directory"`
	Email       string `json:"email"`
	AcceptTerms bool   `json:"acceptTerms"`
	// ExternalAccount binds the account to one that exists at the authority.
	ExternalAccount *struct {
		KeyID string    `json:"keyID"`
		Key   secretRef `json:"key"`
	} `json:"externalAccount"`
	// CAFile and CA are the roots that the directory's certificate is checked with, PEM; neither means the system's.
	CAFile    string `json:"caFile"`
	CA        string `json:"ca"`
	Profile   string `json:"profile"`
	KeyType   string `json:"keyType"`
	MultiName bool   `json:"multiName"`
	// Challenges are the ways to prove a name over the network: http-01 and tls-alpn-01. Empty means both.
	Challenges []string `json:"challenges"`
	// Resolvers are asked whether names exist, as HOST:PORT; empty means the system's. SkipLookup asks nobody.
	Resolvers  []string `json:"resolvers"`
	SkipLookup bool     `json:"skipLookup"`
	// DNS proves names in the DNS instead, which alone does for wildcards.
	DNS *dnsConfig `json:"dns"`
}

// keyTypes are the names of types of keys.
var keyTypes = []string{"", "p256", "p384", "ed25519", "rsa2048", "rsa4096"}

func (c *acmeConfig) validate() error {
	seen := map[string]bool{}
	for i := range c.Issuers {
		is := &c.Issuers[i]
		if err := is.validate(); err != nil {
			return fmt.Errorf("acme.issuers[%d]: %w", i, err)
		}
		if seen[is.Name] {
			return fmt.Errorf("acme.issuers[%d]: there is another issuer %s", i, is.Name)
		}
		seen[is.Name] = true
	}
	for i, name := range c.Default {
		if !seen[name] {
			return fmt.Errorf("acme.default[%d]: there is no issuer %q", i, name)
		}
	}
	return nil
}

func (c *issuerConfig) validate() error {
	switch {
	case c.Name == "none" || !isLabelValue(c.Name):
		return fmt.Errorf("name: %q is not a name of lower-case letters, digits and hyphens", c.Name)
	case !strings.HasPrefix(c.Directory, "https://"):
		return fmt.Errorf("directory: %q is not a URL that begins with https://", c.Directory)
	case !strings.Contains(c.Email, "@"):
		return fmt.Errorf("email: %q is not an address, at which the authority can reach you", c.Email)
	case !c.AcceptTerms:
		return errors.New("acceptTerms: read the authority's terms, and say true if you accept them")
	case !slices.Contains(keyTypes, c.KeyType):
		return fmt.Errorf("keyType: %q is none of %s", c.KeyType, strings.Join(keyTypes[1:], ", "))
	case c.CA != "" && c.CAFile != "":
		return errors.New("ca and caFile: one of them")
	}
	if err := c.validateAccount(); err != nil {
		return err
	}
	for _, name := range c.Challenges {
		if name != "http-01" && name != "tls-alpn-01" {
			return fmt.Errorf("challenges: %q is neither http-01 nor tls-alpn-01", name)
		}
	}
	if c.DNS != nil {
		return c.DNS.validate()
	}
	return nil
}

func (c *issuerConfig) validateAccount() error {
	e := c.ExternalAccount
	if e == nil {
		return nil
	}
	if e.KeyID == "" {
		return errors.New("externalAccount.keyID: it is missing")
	}
	return wrap("externalAccount.key", e.Key.validate())
}

// isLabelValue tells whether s is a label of RFC 1123, which is good for a label's value too.
func isLabelValue(s string) bool {
	return s != "" && len(s) <= 63 && strings.Trim(s, "-") == s && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// compile returns what the compiler must know.
func (c *acmeConfig) compile() *compile.ACMEOptions {
	if len(c.Issuers) == 0 {
		return nil
	}
	out := &compile.ACMEOptions{Issuers: map[string]compile.ACMEIssuer{}, Default: c.Default}
	for _, i := range c.Issuers {
		out.Issuers[i.Name] = compile.ACMEIssuer{DNS: i.DNS != nil, MultiName: i.MultiName}
	}
	return out
}

// readSecret reads a value of a Secret in Fairlead's own namespace.
type readSecret func(ctx context.Context, name, key string) ([]byte, error)

// issuers returns the issuers as the ACME room wants them.
func (c *acmeConfig) issuers(secret readSecret) ([]issue.Issuer, error) {
	var out []issue.Issuer
	for n := range c.Issuers {
		i, err := c.Issuers[n].issuer(secret)
		if err != nil {
			return nil, fmt.Errorf("acme.issuers[%d]: %w", n, err)
		}
		out = append(out, i)
	}
	return out, nil
}

func (c *issuerConfig) issuer(secret readSecret) (issue.Issuer, error) {
	off := func(name string) bool { return len(c.Challenges) > 0 && !slices.Contains(c.Challenges, name) }
	out := issue.Issuer{
		Name: c.Name, Directory: c.Directory, Email: c.Email, AcceptTerms: c.AcceptTerms, Profile: c.Profile, KeyType: issue.KeyType(c.KeyType), MultiName: c.MultiName,
		NoHTTP: off("http-01"), NoTLS: off("tls-alpn-01"),
	}
	if !c.SkipLookup {
		out.Resolve = lookup(c.Resolvers)
	}
	if c.DNS != nil {
		out.DNS = c.DNS.dns(c.Resolvers, secret)
	}
	var err error
	if out.Roots, err = c.roots(); err != nil {
		return out, err
	}
	if c.ExternalAccount != nil {
		out.ExternalAccount = c.externalAccount(secret)
	}
	return out, nil
}

// externalAccount returns what reads the account at the authority, when an account with it is made.
func (c *issuerConfig) externalAccount(secret readSecret) func(context.Context) (*acme.EAB, error) {
	e := c.ExternalAccount
	return func(ctx context.Context) (*acme.EAB, error) {
		key, err := e.Key.reader(secret)(ctx)
		if err != nil {
			return nil, fmt.Errorf("external account: %w", err)
		}
		return &acme.EAB{KeyID: e.KeyID, MACKey: strings.TrimSpace(key)}, nil
	}
}

// roots are the certificates that the directory's own is checked with; nil is the system's.
func (c *issuerConfig) roots() (*x509.CertPool, error) {
	text, field := []byte(c.CA), "ca"
	if c.CAFile != "" {
		var err error
		field = "caFile"
		if text, err = os.ReadFile(c.CAFile); err != nil {
			return nil, fmt.Errorf("caFile: %w", err)
		}
	}
	if len(text) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: there is no certificate in it", field)
	}
	return pool, nil
}

// lookup returns a look-up of names at resolvers, one after the other; none means those of the system.
func lookup(resolvers []string) func(ctx context.Context, host string) ([]string, error) {
	if len(resolvers) == 0 {
		return net.DefaultResolver.LookupHost
	}
	turn := 0
	var mu sync.Mutex
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		mu.Lock()
		address := resolvers[turn%len(resolvers)]
		turn++
		mu.Unlock()
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
	}}
	return func(ctx context.Context, host string) ([]string, error) {
		return r.LookupHost(ctx, strings.TrimSuffix(host, ".")+".")
	}
}

// manager makes the ACME room; nil without issuers.
func (c *acmeConfig) manager(opt issue.Options, secret readSecret) (*issue.Manager, error) {
	if len(c.Issuers) == 0 {
		return nil, nil
	}
	var err error
	if opt.Issuers, err = c.issuers(secret); err != nil {
		return nil, err
	}
	issue.LimitOrders(c.Orders, c.Per.Duration)
	opt.FirstRetry, opt.Parallel = c.FirstRetry.Duration, c.Parallel
	return issue.New(opt)
}

// issuerOf makes what gets certificates for what from reads; nil without issuers. The reader that it returns shows them.
func issuerOf(from reader, c *acmeConfig, log *slog.Logger) (reader, *issue.Manager, error) {
	if len(c.Issuers) == 0 {
		return from, nil, nil
	}
	if l, ok := from.(*liveCluster); ok {
		return from, l.issuer, nil
	}
	return withACME(from, c, log)
}

// issuing is a folder of manifests with the certificates that were issued for it.
type issuing struct {
	reader
	*issue.Manager
	issued *manifest.Folder
}

// withACME adds certificates to a folder.
func withACME(from reader, c *acmeConfig, log *slog.Logger) (reader, *issue.Manager, error) {
	if c.Storage == "" {
		return nil, nil, errors.New("acme.storage: name a folder for accounts, keys and certificates")
	}
	storage, folder, err := issue.OpenFolder(c.Storage)
	if err != nil {
		return nil, nil, err
	}
	noSecrets := func(context.Context, string, string) ([]byte, error) {
		return nil, errors.New("secret: there are none without a cluster; use file")
	}
	m, err := c.manager(issue.Options{Storage: storage, Publisher: folder, Log: log}, noSecrets)
	if err != nil {
		return nil, nil, err
	}
	issued, err := manifest.Open(folder.Dir(), manifest.Options{})
	if err != nil {
		m.Close()
		return nil, nil, err
	}
	return &issuing{from, m, issued}, m, nil
}

// Read implements reader. A Secret of the user's own wins.
func (i *issuing) Read() (*object.Snapshot, []manifest.Issue) {
	snap, issues := i.reader.Read()
	issued, _ := i.issued.Read()
	if len(issued.Secrets) == 0 {
		return snap, issues
	}
	all := *snap
	all.Secrets = make(map[object.Key]*corev1.Secret, len(snap.Secrets)+len(issued.Secrets))
	maps.Copy(all.Secrets, issued.Secrets)
	maps.Copy(all.Secrets, snap.Secrets)
	return &all, issues
}

// Watch implements reader.
func (i *issuing) Watch(ctx context.Context, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- i.issued.Watch(ctx, changed) }()
	err := i.reader.Watch(ctx, changed)
	cancel()
	return errors.Join(err, <-ended)
}

// write gets certificates until ctx ends.
func (i *issuing) write(ctx context.Context) { i.Run(ctx) }

// issuances is what became of orders, as the compiler writes it into the status.
func issuances(states []issue.State) map[object.Key]compile.Issuance {
	out := make(map[object.Key]compile.Issuance, len(states))
	for _, s := range states {
		out[object.Key{Namespace: s.Secret.Namespace, Name: s.Secret.Name}] = compile.Issuance{Failed: s.Err, Next: s.Next, Issuer: s.Issuer, NotAfter: s.NotAfter}
	}
	return out
}
