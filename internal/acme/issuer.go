package acme

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// authority is who issues certificates.
type authority interface {
	// issue gets a certificate for hosts, and its key. old is the one that it takes the place of.
	issue(ctx context.Context, hosts []string, old Issued) (Issued, error)
	// renewalInfo asks when a certificate should be renewed.
	renewalInfo(ctx context.Context, leaf *x509.Certificate) (acme.RenewalInfo, error)
}

// issuer is an Issuer, ready to be asked.
type issuer struct {
	Issuer
	magic   *certmagic.ACMEIssuer
	cache   *certmagic.Cache
	storage certmagic.Storage
	log     *zap.Logger
}

func newIssuer(i Issuer, cache *certmagic.Cache, storage certmagic.Storage, hold net.Addr, log *zap.Logger) *issuer {
	port := hold.(*net.TCPAddr).Port
	out := &issuer{Issuer: i, cache: cache, storage: storage, log: log}
	template := certmagic.ACMEIssuer{
		CA: i.Directory, Email: i.Email, Agreed: i.AcceptTerms, NewAccountFunc: bind(i.ExternalAccount), Profile: i.Profile, TrustedRoots: i.Roots,
		DisableHTTPChallenge: i.NoHTTP, DisableTLSALPNChallenge: i.NoTLS,
		ListenHost: "127.0.0.1", AltHTTPPort: port, AltTLSALPNPort: port, Logger: log,
	}
	if d := i.DNS; d != nil {
		template.DNS01Solver = &certmagic.DNS01Solver{DNSManager: certmagic.DNSManager{
			DNSProvider: d.Provider, Resolvers: d.Resolvers, OverrideDomain: d.Override, PropagationTimeout: d.Wait, Logger: log,
		}}
	}
	out.magic = certmagic.NewACMEIssuer(out.config(storage), template)
	return out
}

// bind returns what certmagic calls before it makes an account.
func bind(external func(context.Context) (*acme.EAB, error)) func(context.Context, *certmagic.ACMEIssuer, acme.Account) (acme.Account, error) {
	if external == nil {
		return nil
	}
	return func(ctx context.Context, magic *certmagic.ACMEIssuer, account acme.Account) (_ acme.Account, err error) {
		magic.ExternalAccount, err = external(ctx)
		return account, err
	}
}

// config returns the configuration that certmagic works by. What it stores goes to storage.
func (i *issuer) config(storage certmagic.Storage) *certmagic.Config {
	var issuers []certmagic.Issuer
	if i.magic != nil {
		issuers = []certmagic.Issuer{i.magic}
	}
	return certmagic.New(i.cache, certmagic.Config{
		Storage: storage, Issuers: issuers, Logger: i.log, DisableStorageCheck: true, KeySource: certmagic.StandardKeyGenerator{KeyType: i.KeyType},
		OCSP: certmagic.OCSPConfig{DisableStapling: true},
	})
}

// issue implements authority. One that knows the old certificate counts the order as a renewal.
func (i *issuer) issue(ctx context.Context, hosts []string, old Issued) (Issued, error) {
	if err := i.resolve(ctx, hosts); err != nil {
		return Issued{}, err
	}
	if len(hosts) == 1 && old.Issuer == i.Name {
		return i.renew(ctx, hosts[0], old)
	}
	key, err := certmagic.StandardKeyGenerator{KeyType: i.KeyType}.GenerateKey()
	if err != nil {
		return Issued{}, fmt.Errorf("make a key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return Issued{}, fmt.Errorf("make a key: %T cannot sign", key)
	}
	pem, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return Issued{}, fmt.Errorf("encode the key: %w", err)
	}
	csr, err := acmez.NewCSR(signer, hosts)
	if err != nil {
		return Issued{}, fmt.Errorf("make a certificate request: %w", err)
	}
	if err := i.magic.PreCheck(ctx, hosts, false); err != nil {
		return Issued{}, err
	}
	cert, err := i.magic.Issue(ctx, csr)
	if err != nil {
		return Issued{}, err
	}
	return Issued{Chain: cert.Certificate, Key: pem, Issuer: i.Name}, nil
}

// renew lets certmagic renew a certificate, which tells the authority which one is replaced. Certificates are not kept in the shared storage but in their
// Secret, so it is shown one that has this certificate and no other.
func (i *issuer) renew(ctx context.Context, host string, old Issued) (Issued, error) {
	meta, err := json.Marshal(map[string]any{"sans": []string{host}, "issuer_data": acme.Certificate{CA: i.Directory}})
	if err != nil {
		return Issued{}, fmt.Errorf("describe the certificate: %w", err)
	}
	key := i.magic.IssuerKey()
	names := [...]string{certmagic.StorageKeys.SiteCert(key, host), certmagic.StorageKeys.SitePrivateKey(key, host), certmagic.StorageKeys.SiteMeta(key, host)}
	d := newDesk(i.storage, map[string][]byte{names[0]: old.Chain, names[1]: old.Key, names[2]: meta})
	if err := i.config(d).RenewCertSync(ctx, host, true); err != nil {
		return Issued{}, err
	}
	return Issued{Chain: d.get(names[0]), Key: d.get(names[1]), Issuer: i.Name}, nil
}

// resolve looks hosts up, where that is worth it. Only a clear no is one: a resolver that is down must not keep certificates from being renewed.
func (i *issuer) resolve(ctx context.Context, hosts []string) error {
	if i.DNS != nil || i.Resolve == nil {
		return nil
	}
	for _, host := range hosts {
		_, err := i.Resolve(ctx, host)
		if no, ok := errors.AsType[*net.DNSError](err); ok && no.IsNotFound {
			return fmt.Errorf("no order was made, because the DNS has no address for %s", host)
		}
	}
	return nil
}

// renewalInfo implements authority.
func (i *issuer) renewalInfo(ctx context.Context, leaf *x509.Certificate) (acme.RenewalInfo, error) {
	return i.magic.GetRenewalInfo(ctx, certmagic.Certificate{Certificate: tls.Certificate{Leaf: leaf}})
}
