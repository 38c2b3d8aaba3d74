package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	issue "github.com/fairlead-io/fairlead/internal/acme"
	"github.com/fairlead-io/fairlead/internal/acme/dns01"
)

// secretRef says where a secret is: in a Secret of Fairlead's own namespace, or in a file. It is read each time that it is needed.
type secretRef struct {
	Secret string `json:"secret"`
	Key    string `json:"key"`
	File   string `json:"file"`
}

func (r secretRef) validate() error {
	if (r.Secret == "") == (r.File == "") || (r.Secret == "") != (r.Key == "") {
		return errors.New("name a secret and a key in it, or a file")
	}
	return nil
}

func (r secretRef) reader(secret readSecret) dns01.Secret {
	return func(ctx context.Context) (string, error) {
		if r.File != "" {
			text, err := os.ReadFile(r.File)
			return string(text), err
		}
		text, err := secret(ctx, r.Secret, r.Key)
		return string(text), err
	}
}

// dnsConfig says how records get into the DNS: one of the three ways.
type dnsConfig struct {
	// PropagationTimeout is how long a record may take to be seen. 0 means two minutes.
	PropagationTimeout metav1.Duration `json:"propagationTimeout"`

	RFC2136 *struct {
		Server    string    `json:"server"`
		KeyName   string    `json:"keyName"`
		Algorithm string    `json:"algorithm"`
		Key       secretRef `json:"key"`
	} `json:"rfc2136"`
	ACMEDNS *struct {
		URL        string    `json:"url"`
		Username   string    `json:"username"`
		Password   secretRef `json:"password"`
		Subdomain  string    `json:"subdomain"`
		FullDomain string    `json:"fullDomain"`
	} `json:"acmeDNS"`
	Webhook *struct {
		URL   string     `json:"url"`
		Token *secretRef `json:"token"`
	} `json:"webhook"`
}

func (c *dnsConfig) validate() error {
	ways := 0
	var err error
	if r := c.RFC2136; r != nil {
		ways++
		if r.Server == "" {
			err = errors.New("server: it is missing")
		} else if r.KeyName != "" {
			err = wrap("key", r.Key.validate())
		}
		err = wrap("dns.rfc2136", err)
	}
	if a := c.ACMEDNS; a != nil {
		ways++
		if a.URL == "" || a.Username == "" || a.Subdomain == "" || a.FullDomain == "" {
			err = errors.New("dns.acmeDNS: it needs url, username, subdomain and fullDomain, as the server gave them")
		} else {
			err = wrap("dns.acmeDNS.password", a.Password.validate())
		}
	}
	if w := c.Webhook; w != nil {
		ways++
		if !strings.HasPrefix(w.URL, "https://") && !strings.HasPrefix(w.URL, "http://") {
			err = fmt.Errorf("dns.webhook.url: %q is not a URL", w.URL)
		} else if w.Token != nil {
			err = wrap("dns.webhook.token", w.Token.validate())
		}
	}
	if ways != 1 {
		return errors.New("dns: one of rfc2136, acmeDNS and webhook")
	}
	return err
}

// wrap puts the path of a field before an error, if there is one.
func wrap(field string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", field, err)
}

// dns returns what the ACME room wants.
func (c *dnsConfig) dns(resolvers []string, secret readSecret) *issue.DNS {
	out := &issue.DNS{Resolvers: resolvers, Wait: c.PropagationTimeout.Duration}
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()} //nolint:forbidigo // a copy, for its settings
	switch {
	case c.RFC2136 != nil:
		r := c.RFC2136
		out.Provider = &dns01.Update{Server: r.Server, KeyName: r.KeyName, Algorithm: r.Algorithm, Key: r.Key.reader(secret)}
	case c.ACMEDNS != nil:
		a := c.ACMEDNS
		out.Override = strings.TrimSuffix(a.FullDomain, ".")
		out.Provider = &dns01.ACMEDNS{URL: a.URL, Username: a.Username, Password: a.Password.reader(secret), Subdomain: a.Subdomain, Client: client}
	default:
		w := &dns01.Webhook{URL: c.Webhook.URL, Client: client}
		if t := c.Webhook.Token; t != nil {
			w.Token = t.reader(secret)
		}
		out.Provider = w
	}
	return out
}
