package acmestore

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/fairlead-io/fairlead/internal/acme"
	"github.com/fairlead-io/fairlead/internal/object"
)

// Publisher keeps certificates in the Secrets that objects name. It reads and writes the Secrets themselves, and no copy of them.
type Publisher struct{ Kubernetes kubernetes.Interface }

var _ acme.Publisher = Publisher{}

// Read implements acme.Publisher.
func (p Publisher) Read(ctx context.Context, s acme.Secret) (acme.Issued, error) {
	have, err := p.Kubernetes.CoreV1().Secrets(s.Namespace).Get(ctx, s.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return acme.Issued{}, nil
	}
	if err != nil {
		return acme.Issued{}, err
	}
	issuer := have.Labels[object.IssuerLabel]
	if issuer == "" || have.Type != corev1.SecretTypeTLS {
		return acme.Issued{}, acme.ErrForeign
	}
	return acme.Issued{Chain: have.Data[corev1.TLSCertKey], Key: have.Data[corev1.TLSPrivateKeyKey], Issuer: issuer, Version: have.ResourceVersion}, nil
}

// Write implements acme.Publisher. What others have added to the Secret stays.
func (p Publisher) Write(ctx context.Context, s acme.Secret, next acme.Issued) error {
	secrets := p.Kubernetes.CoreV1().Secrets(s.Namespace)
	if next.Version == "" {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}, Type: corev1.SecretTypeTLS}
		fill(secret, next)
		_, err := secrets.Create(ctx, secret, metav1.CreateOptions{FieldManager: fieldManager})
		return changed(err)
	}
	secret, err := secrets.Get(ctx, s.Name, metav1.GetOptions{})
	if err != nil {
		return changed(err)
	}
	if secret.ResourceVersion != next.Version {
		return acme.ErrChanged
	}
	fill(secret, next)
	_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{FieldManager: fieldManager})
	return changed(err)
}

func fill(secret *corev1.Secret, next acme.Issued) {
	if secret.Labels == nil {
		secret.Labels = map[string]string{}
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Labels[object.IssuerLabel] = next.Issuer
	secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey] = next.Chain, next.Key
}

// changed makes the API server's words for a Secret that is another one now ours.
func changed(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) && !isNamespace(err) {
		return acme.ErrChanged
	}
	return err
}

// isNamespace tells whether what was not found is the namespace.
func isNamespace(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && status.ErrStatus.Details != nil && status.ErrStatus.Details.Kind == "namespaces"
}

// Value reads a value of a Secret in the Store's namespace.
func (s *Store) Value(ctx context.Context, name, key string) ([]byte, error) {
	have, err := s.opt.Kubernetes.CoreV1().Secrets(s.opt.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", s.opt.Namespace, name, err)
	}
	value, ok := have.Data[key]
	if !ok {
		return nil, fmt.Errorf("read Secret %s/%s: it has no key %q", s.opt.Namespace, name, key)
	}
	return value, nil
}
