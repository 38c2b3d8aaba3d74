package watch

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/consts"

	"github.com/fairlead-io/fairlead/internal/object"
)

// definitionsAfter is how long a reading of the definitions is good for, unless other kinds are watched by then. An upgrade may change nothing else.
const definitionsAfter = time.Minute

// define reads the definitions of the kinds that are known, by name, and only what stands beside their schemas, which are large. Where Fairlead may not
// read them there are none; what cannot be read for another reason stays what it was.
func (d *discovery) define(ctx context.Context, known map[string][]string) {
	names := definitionNames(d.c.kinds, known)
	if now := time.Now(); strings.Join(names, ",") == d.defined && now.Sub(d.read) < definitionsAfter {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	definitions, errs := d.all(ctx, names)
	found := make(map[string]*object.Definition, len(names))
	for i, name := range names {
		switch err := errs[i]; {
		case err == nil:
			found[name] = definitions[i]
		case apierrors.IsForbidden(err):
			d.c.log.Debug("may not read the definitions of the Gateway API, so that their version is not known", "error", err)
			d.replace(nil)
			d.defined, d.read = strings.Join(names, ","), time.Now()
			return
		case !apierrors.IsNotFound(err):
			d.c.log.Debug("cannot read a definition of the Gateway API", "name", name, "error", err)
			return
		}
	}
	d.replace(found)
	d.defined, d.read = strings.Join(names, ","), time.Now()
}

// definitionNames are the names of the definitions of the kinds that are known.
func definitionNames(kinds []*kind, known map[string][]string) (names []string) {
	for _, k := range kinds {
		version := best(k, known)
		if version == "" {
			continue
		}
		group, _, named := strings.Cut(version, "/")
		if !named {
			group = gatewayv1.GroupName
		}
		names = append(names, k.name+"."+group)
	}
	return names
}

// all reads definitions, the first by itself and the others side by side: the first picture waits for them, and an API server takes its time to read what is large. If
// it forbids the first it is not asked for the others.
func (d *discovery) all(ctx context.Context, names []string) ([]*object.Definition, []error) {
	definitions, errs := make([]*object.Definition, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { definitions[i], errs[i] = d.definition(ctx, name) })
		if i > 0 {
			continue
		}
		if wg.Wait(); apierrors.IsForbidden(errs[0]) {
			break
		}
	}
	wg.Wait()
	return definitions, errs
}

func (d *discovery) definition(ctx context.Context, name string) (*object.Definition, error) {
	raw, err := d.c.api.gateway.Discovery().RESTClient().Get().
		AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", name).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").
		Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	var read metav1.PartialObjectMetadata
	if err := json.Unmarshal(raw, &read); err != nil {
		return nil, err
	}
	return &object.Definition{Version: read.Annotations[consts.BundleVersionAnnotation]}, nil
}

// replace makes definitions part of the picture, if they are others.
func (d *discovery) replace(found map[string]*object.Definition) {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	if maps.EqualFunc(d.c.definitions, found, func(a, b *object.Definition) bool { return *a == *b }) {
		return
	}
	d.c.definitions = found
	d.c.announce()
}
