package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const kubeconfig = `apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: one, cluster: {server: "https://one.example:6443"}}
- {name: two, cluster: {server: "https://two.example:6443"}}
contexts:
- {name: one, context: {cluster: one, user: me}}
- {name: two, context: {cluster: two, user: me}}
users:
- {name: me, user: {token: secret}}
`

func TestLoadConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	tests := []struct{ name, path, env, context, host, err string }{
		{"a file", path, "", "", "https://one.example:6443", ""},
		{"a context of it", path, "", "two", "https://two.example:6443", ""},
		{"a context that it does not have", path, "", "three", "", `"three"`},
		{"no such file", path + "x", "", "", "", "no such file"},
		{"what kubectl uses", "", path, "", "https://one.example:6443", ""},
		{"nothing", "", path + "x", "", "", "load kubeconfig: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", test.env)
			config, err := LoadConfig(test.path, test.context)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want one with %s", err, test.err)
				}
				return
			}
			if err != nil || config.Host != test.host || config.BearerToken != "secret" {
				t.Errorf("config %+v, error %v", config, err)
			}
		})
	}
}
