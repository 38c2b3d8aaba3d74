package e2e_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

// accountOf is what the API server calls the account of a release.
func accountOf(namespace, name string) string {
	return "system:serviceaccount:" + namespace + ":" + name
}

// right is what a rule grants: a verb on a resource, such as patch gateway.networking.k8s.io gateways/status.
type right struct{ verb, group, resource string }

func (r right) String() string { return fmt.Sprintf("%s %s.%s", r.verb, r.resource, r.group) }

// unexercised says why a right may be granted though this run does not need it; "" if there is no reason.
func unexercised(r right) string {
	switch {
	case r.verb == "list":
		return "API servers that do not stream what there is are listed"
	case r.verb == "get" && (r.group != "" || r.resource == "services"):
		return "what somebody else wrote at the same moment is read again"
	}
	return ""
}

// rights compares what the chart grants with what the API server saw during the whole run: nothing is needed that is not granted, and nothing is granted that nobody
// needs. An API server that has just started refuses what is granted, too, until it has read the roles.
func (f *field) rights(t *testing.T) {
	used, refused := f.used(t, accountOf(cluster.Namespace, cluster.Release))
	granted := f.granted(t, cluster.Release)
	for _, r := range slices.SortedFunc(maps.Keys(refused), compareRights) {
		if !granted[r] {
			t.Errorf("not granted, and needed: %s", r)
		}
	}
	for _, r := range slices.SortedFunc(maps.Keys(granted), compareRights) {
		switch {
		case used[r]:
		case unexercised(r) != "":
			t.Logf("%s was not used: %s", r, unexercised(r))
		default:
			t.Errorf("granted and never used: %s", r)
		}
	}
	t.Logf("%d rights granted, %d used", len(granted), len(used))
}

func compareRights(a, b right) int { return strings.Compare(a.String(), b.String()) }

// used reads in the audit log what an account did, and what it was not allowed to.
func (f *field) used(t *testing.T, account string) (used, refused map[right]bool) {
	t.Helper()
	used, refused = map[right]bool{}, map[right]bool{}
	f.audit(t, 0, func(e auditEvent) {
		if e.User.Username != account || e.ObjectRef.Resource == "" {
			return
		}
		if r := e.right(); e.Status.Code == 403 {
			refused[r] = true
		} else {
			used[r] = true
		}
	})
	return used, refused
}

// auditEvent is a line of the audit log.
type auditEvent struct {
	Verb      string
	User      struct{ Username string }
	ObjectRef struct{ APIGroup, Resource, Subresource, Name string }
	Status    struct{ Code int } `json:"responseStatus"`
}

func (e auditEvent) right() right {
	return right{e.Verb, e.ObjectRef.APIGroup, strings.TrimSuffix(e.ObjectRef.Resource+"/"+e.ObjectRef.Subresource, "/")}
}

// audit reads the audit log from an offset on, and returns where it ends now.
func (f *field) audit(t *testing.T, from int64, each func(auditEvent)) int64 {
	t.Helper()
	file, err := os.Open(f.cluster.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(from, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) { // the rest of the line is still to be written
			return from
		}
		var e auditEvent
		if err = cmp.Or(err, json.Unmarshal(line, &e)); err != nil {
			t.Fatal(err)
		}
		from += int64(len(line))
		each(e)
	}
}

// granted reads the roles of a release.
func (f *field) granted(t *testing.T, release string) map[right]bool {
	t.Helper()
	var list struct{ Items []rbacv1.ClusterRole } // a Role has the same rules
	text := must(t, "", "kubectl", "get", "clusterroles,roles", "-A", "-l", "app.kubernetes.io/instance="+release, "-o", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	out := map[right]bool{}
	for _, role := range list.Items {
		for _, rule := range role.Rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						out[right{verb, group, resource}] = true
					}
				}
			}
		}
	}
	if len(out) < 10 {
		t.Fatalf("the release grants only %v", out)
	}
	return out
}

// uninstall looks for anything that is left when the release is gone.
func (f *field) uninstall(t *testing.T) {
	begun := time.Now()
	must(t, "", "helm", "uninstall", cluster.Release, "-n", cluster.Namespace, "--wait", "--timeout=120s")
	figure(t, "helm uninstall --wait: %.1f s", time.Since(begun).Seconds())
	// Accounts at authorities stay, for the next installation; this is what docs/install.md says to do about it.
	must(t, "", "kubectl", "delete", "secrets", "-n", cluster.Namespace, "-l", "fairlead.io/acme")
	kinds := strings.Join(listable(t), ",")
	own := strings.Join(listable(t, "--namespaced"), ",")
	eventually(t, time.Minute, func() error {
		var left []string
		for _, selector := range []string{"app.kubernetes.io/instance=" + cluster.Release, "gateway.networking.k8s.io/gateway-name"} {
			left = append(left, strings.Fields(must(t, "", "kubectl", "get", kinds, "-A", "-l", selector, "-o", "name", "--ignore-not-found"))...)
		}
		all := strings.Fields(must(t, "", "kubectl", "get", own, "-n", cluster.Namespace, "-o", "name", "--ignore-not-found"))
		left = append(left, slices.DeleteFunc(all, func(name string) bool {
			return slices.Contains([]string{"serviceaccount/default", "configmap/kube-root-ca.crt"}, name) // of every namespace
		})...)
		if len(left) > 0 {
			return fmt.Errorf("helm uninstall leaves %v", left)
		}
		return nil
	})
	for what, path := range map[string]string{
		"ingress/app": "{.status.loadBalancer.ingress}", "ingress/secure": "{.status.loadBalancer.ingress}", "httproute/app": "{.status.parents}", "grpcroute/calls": "{.status.parents}",
		"xbackendtrafficpolicy/budget": "{.status.ancestors}", "xbackend/outside": "{.status.parents}",
	} {
		if left := must(t, "", "kubectl", "get", "-n", space, what, "-o", "jsonpath="+path); left != "" && left != "[]" {
			t.Errorf("helm uninstall leaves in the status of %s: %s", what, left)
		}
	}
	must(t, "", "kubectl", "delete", "namespace", space, cluster.Namespace)
}

// listable are the kinds that can be listed, but for Events, which remain for an hour whatever one does.
func listable(t *testing.T, flags ...string) []string {
	t.Helper()
	names := strings.Fields(must(t, "", "kubectl", append([]string{"api-resources", "--verbs=list,delete", "-o", "name"}, flags...)...))
	return slices.DeleteFunc(names, func(k string) bool { return strings.HasPrefix(k, "events") })
}
