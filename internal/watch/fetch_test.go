package watch

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

func TestWant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		tls, opaque, missing := object.Key{Namespace: "shop", Name: "cert"}, object.Key{Namespace: "shop", Name: "opaque"}, object.Key{Namespace: "shop", Name: "missing"}
		a.put(secret("shop", "cert", corev1.SecretTypeTLS), secret("shop", "opaque", corev1.SecretTypeOpaque), secret("shop", "unwanted", corev1.SecretTypeOpaque))
		c := start(t, a, nil)
		defer c.Close()
		first := c.Read()
		if len(first.Secrets) != 1 {
			t.Fatalf("Secrets: %v", first.Secrets)
		}
		a.took()
		c.Want([]object.Key{tls, opaque, missing, opaque})
		c.AwaitSecrets(t.Context())
		second := c.Read()
		if got := second.Secrets[opaque]; len(second.Secrets) != 2 || got.Type != corev1.SecretTypeOpaque || got.Data != nil || second.Secrets[tls] != first.Secrets[tls] {
			t.Fatalf("Secrets: %v", second.Secrets)
		}
		if n := count(a.took())["get secrets"]; n != 2 {
			t.Errorf("asked %d times, want once for each that is not watched", n)
		}
		c.Want([]object.Key{missing, opaque, tls})
		synctest.Wait()
		if n := count(a.took())["get secrets"]; n != 0 {
			t.Errorf("asked %d times for the same again", n)
		}

		// Asked again by the clock. The same answer is the same object.
		advance(time.Minute)
		if n := count(a.took())["get secrets"]; n < 2 || n > 4 {
			t.Errorf("asked %d times in a minute", n)
		}
		if third := c.Read(); third.Secrets[opaque] != second.Secrets[opaque] || c.changes != c.seen {
			t.Error("the same Secret is another object")
		}

		// The Secret is replaced by one of the right type, and that by one of the wrong type.
		a.remove(secret("shop", "opaque", ""))
		a.put(secret("shop", "opaque", corev1.SecretTypeTLS))
		synctest.Wait()
		if got := c.Read().Secrets[opaque]; got.Type != corev1.SecretTypeTLS || string(got.Data["tls.key"]) != "key" || got.Data["password"] != nil {
			t.Errorf("Secret: %v", got)
		}
		advance(time.Minute)
		a.set(func() {
			path, _ := pathOf(&corev1.Secret{})
			at, _ := a.find(path, "shop", "opaque")
			gone := *a.objects[path][at]
			a.version++
			gone.version = a.version
			a.events[path] = append(a.events[path], fakeEvent{"DELETED", &gone})
			a.objects[path] = slices.Delete(slices.Clone(a.objects[path]), at, at+1)
			a.putLocked(secret("shop", "opaque", corev1.SecretTypeOpaque))
		})
		synctest.Wait()
		if got := c.Read().Secrets[opaque]; got == nil || got.Type != corev1.SecretTypeOpaque || got.Data != nil {
			t.Errorf("Secret: %v", got)
		}

		// What cannot be read stays as it was known; what is gone is gone; what is not wanted is forgotten.
		a.set(func() { a.fault = refuse(metav1.StatusReasonForbidden, http.StatusForbidden) })
		advance(time.Minute)
		if len(c.Read().Secrets) != 2 {
			t.Error("no answer was taken for one")
		}
		a.set(func() { a.fault = nil })
		a.remove(secret("shop", "opaque", ""))
		advance(time.Minute)
		if len(c.Read().Secrets) != 1 {
			t.Error("a Secret that is gone is still there")
		}
		a.put(secret("shop", "opaque", corev1.SecretTypeOpaque))
		advance(time.Minute)
		c.Want(nil)
		synctest.Wait()
		if len(c.Read().Secrets) != 1 || len(c.secrets.answers) != 0 {
			t.Error("what is not wanted is remembered")
		}
	})
}

func TestWantOnlyWhatMayBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		a.put(secret("other", "s", corev1.SecretTypeOpaque))
		c := start(t, a, func(o *Options) { o.Namespaces = []string{"shop"} })
		defer c.Close()
		a.took()
		keys := []object.Key{{Namespace: "other", Name: "s"}}
		for i := range 3000 {
			keys = append(keys, object.Key{Namespace: "shop", Name: strconv.Itoa(i)})
		}
		c.Want(keys)
		advance(20 * time.Second)
		if n := count(a.took())["get secrets"]; n != maxWanted || len(c.Read().Secrets) != 0 {
			t.Errorf("asked %d times, %d Secrets", n, len(c.Read().Secrets))
		}
	})
}

func TestWantConfigMaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newFake(t)
		ca := &corev1.ConfigMap{ObjectMeta: meta("shop", "ca"), Data: map[string]string{"ca.crt": "x", "large": "y"}}
		a.put(ca, &corev1.ConfigMap{ObjectMeta: meta("shop", "other")})
		c := start(t, a, nil)
		defer c.Close()
		advance(time.Minute)
		for _, r := range a.took() {
			if strings.Contains(r, "configmaps") {
				t.Errorf("asked without being told: %s", r)
			}
		}
		c.WantConfigMaps([]object.Key{{Namespace: "shop", Name: "ca"}, {Namespace: "shop", Name: "missing"}})
		c.AwaitConfigMaps(t.Context())
		if got := c.Read().ConfigMaps; len(got) != 1 || got[object.KeyOf(ca)].Data["ca.crt"] != "x" || len(got[object.KeyOf(ca)].Data) != 1 {
			t.Errorf("ConfigMaps: %v", got)
		}
		ca.Data = map[string]string{"ca.crt": "y"}
		a.put(ca)
		advance(refreshOfFew)
		if got := c.Read().ConfigMaps; got[object.KeyOf(ca)].Data["ca.crt"] != "y" {
			t.Errorf("ConfigMaps: %v", got)
		}
	})
}
