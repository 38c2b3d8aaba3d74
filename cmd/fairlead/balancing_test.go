package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The balancing of the file of --config is checked before anything is served.
func TestBalancingConfig(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	writeFile(t, dir, "key", strings.Repeat("k", 32)+"\n")
	writeFile(t, dir, "short", "secret")
	for _, tt := range []struct{ config, want, key string }{
		{"{}", "", ""},
		{"{algorithm: sed, slowStart: 30s}", "", ""},
		{"{algorithm: consistent-hash, hashKey: 'cookie:user'}", "", ""},
		{"{sessionKeyFile: " + key + "}", "", strings.Repeat("k", 32)},
		{"{algorithm: fastest}", "there are round-robin", ""},
		{"{algorithm: consistent-hash}", "balancing.hashKey", ""},
		{"{slowStart: 2h}", "balancing.slowStart", ""},
		{"{sessionKeyFile: " + filepath.Join(dir, "short") + "}", "at least 32", ""},
		{"{sessionKeyFile: " + filepath.Join(dir, "none") + "}", "no such file", ""},
	} {
		file := filepath.Join(dir, "config.yaml")
		if err := os.WriteFile(file, []byte("balancing: "+tt.config+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := readConfig(file)
		var got []byte
		if err == nil {
			got, err = c.sessionKey()
		}
		if string(got) != tt.key || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: key %q, error %v; want %q and %q", tt.config, got, err, tt.key, tt.want)
		}
	}
}
