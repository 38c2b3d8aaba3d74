package watch

import (
	"context"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// discover watches the kinds of the Gateway API that the cluster knows, as they come and go, until c is closed. It asks, rather than watching the definitions,
// because everybody may ask.
func (c *Cluster) discover() {
	d := discovery{c: c, missing: map[*kind]int{}}
	retry := min(500*time.Millisecond, c.opt.Discovery)
	for {
		wait := c.opt.Discovery
		known, err := d.ask(c.ctx)
		if err == nil {
			d.define(c.ctx, known) // first, so that the first picture has them
			d.apply(known)
			retry = min(500*time.Millisecond, wait)
		} else {
			c.log.Debug("cannot find out which kinds of the Gateway API there are", "error", err)
			wait, retry = retry, min(2*retry, wait)
		}
		if !pause(c.ctx, wait) {
			return
		}
	}
}

// discovery is what is remembered from one answer to the next.
type discovery struct {
	c       *Cluster
	missing map[*kind]int // how many answers in a row lacked a kind that is watched
	defined string        // the names of the definitions that were read last
	read    time.Time     // when that was
}

// ask returns the kinds that are known in each version.
func (d *discovery) ask(ctx context.Context) (map[string][]string, error) {
	known := map[string][]string{}
	for _, k := range d.c.kinds {
		for _, version := range k.gateway {
			if _, asked := known[version]; !asked {
				names, err := d.resources(ctx, version)
				if err != nil {
					return nil, err
				}
				known[version] = names
			}
			if slices.Contains(known[version], k.name) {
				break
			}
		}
	}
	return known, nil
}

func (d *discovery) resources(ctx context.Context, version string) ([]string, error) {
	if !strings.Contains(version, "/") {
		version = gatewayv1.GroupName + "/" + version
	}
	list, err := d.c.api.gateway.ServerResourcesForGroupVersionWithContext(ctx, version)
	if apierrors.IsNotFound(err) {
		return []string{}, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]string, len(list.APIResources))
	for i := range list.APIResources {
		out[i] = list.APIResources[i].Name
	}
	return out, nil
}

// apply starts and stops watching, so that every kind that is known is watched.
func (d *discovery) apply(known map[string][]string) {
	var begun, ended []string
	start := map[*kind]string{}
	for _, k := range d.c.kinds {
		switch version := best(k, known); {
		case k.gateway == nil:
		case version != "":
			if d.missing[k] = 0; k.running == nil || k.running.version != version {
				start[k] = version
				begun = append(begun, k.name+" "+version)
			}
		case k.running == nil:
			d.absent(k)
		case d.gone(k):
			ended = append(ended, k.name)
		}
	}
	if begun != nil {
		d.watch(start)
		d.c.log.Info("kinds of the Gateway API are being watched", "kinds", begun)
	}
	if ended != nil {
		d.c.log.Warn("the cluster does not know these kinds of the Gateway API any more", "kinds", ended)
	}
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	if !d.c.discovered {
		d.c.discovered = true
		d.c.check()
	}
}

// watch watches kinds in new versions. All of them are awaited before the first has news, so that the others can be waited for.
func (d *discovery) watch(start map[*kind]string) {
	for k := range start {
		if k.running != nil {
			k.halt()
		}
	}
	d.c.mu.Lock()
	for k := range start {
		k.await()
	}
	d.c.mu.Unlock()
	for k, version := range start {
		k.start(d.c.ctx, &d.c.wg, version)
	}
}

// best returns the best version that a kind is known in, or "".
func best(k *kind, known map[string][]string) string {
	for _, version := range k.gateway {
		if slices.Contains(known[version], k.name) {
			return version
		}
	}
	return ""
}

// gone is told that a kind is not known, and reports whether it is believed: an API server that is about to start may lack kinds for a moment.
func (d *discovery) gone(k *kind) bool {
	if d.missing[k]++; d.missing[k] < 2 {
		return false
	}
	k.halt()
	for _, s := range k.sources {
		s.replace(map[object.Key]metav1.Object{})
	}
	d.absent(k)
	return true
}

// absent notes that there are no objects of a kind because there is no such kind.
func (d *discovery) absent(k *kind) {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	for _, s := range k.sources {
		s.health = health{}
		s.complete(false)
	}
}
