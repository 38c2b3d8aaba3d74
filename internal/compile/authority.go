package compile

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-io/fairlead/internal/object"
)

// The codes of an authorityError, beside those of Gateway API.
const (
	codeConfigMapNotFound  = "ConfigMapNotFound"
	codeInvalidAuthorities = "InvalidAuthorities"
)

// authorityError says why a ConfigMap is of no use as a list of certificate authorities.
type authorityError struct{ Code, Message string }

// parsedAuthorities is what readAuthorities remembers of a ConfigMap, because many may name the same.
type parsedAuthorities struct {
	pem []byte
	err *authorityError
}

// readAuthorities returns the certificates of authorities in a ConfigMap, as PEM. Every one of them can be parsed, and there is at least one, or there is an
// error. It does not ask whether anybody may refer to the ConfigMap: see mayRefer.
func (c *compiler) readAuthorities(ref object.Key) ([]byte, *authorityError) {
	a, ok := c.authorities[ref]
	if !ok {
		a.pem, a.err = parseAuthorities(ref, c.in.ConfigMaps[ref])
		set(&c.authorities, ref, a)
	}
	return a.pem, a.err
}

func parseAuthorities(ref object.Key, m *corev1.ConfigMap) ([]byte, *authorityError) {
	if m == nil {
		return nil, &authorityError{codeConfigMapNotFound, fmt.Sprintf("ConfigMap %s does not exist", ref)}
	}
	text := []byte(m.Data[corev1.ServiceAccountRootCAKey])
	if _, err := parseChain(text); err != nil {
		return nil, &authorityError{codeInvalidAuthorities, fmt.Sprintf("%s of ConfigMap %s %v", corev1.ServiceAccountRootCAKey, ref, err)}
	}
	return append(slices.Clip(text), '\n'), nil // so that another can follow
}

// configMapReferent names a ConfigMap.
func configMapReferent(k object.Key) referent {
	return referent{Group: corev1.GroupName, Kind: "ConfigMap", Namespace: k.Namespace, Name: k.Name}
}

// readConfigMaps are the ConfigMaps that somebody refers to, sorted.
func (c *compiler) readConfigMaps() []object.Key {
	return slices.SortedFunc(maps.Keys(c.authorities), object.Key.Compare)
}
