package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-io/fairlead/conformance/cluster"
)

// space is the namespace of the applications.
const space = "e2e"

// pair is the certificate of *.e2e.test; authority trusts it.
var pair = sync.OnceValues(func() (certificate, key string) { return selfSigned("*.e2e.test") })

func selfSigned(name string) (certificate, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// trust returns the settings of a client that believes our certificate and no other.
func trust(host string) *tls.Config {
	certificate, _ := pair()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certificate))
	return &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}
}

// applications is what an application team brings.
func applications(t *testing.T) string {
	t.Helper()
	certificate, key := pair()
	encode := base64.StdEncoding.EncodeToString
	return strings.NewReplacer("@CRT@", encode([]byte(certificate)), "@KEY@", encode([]byte(key))).Replace(
		strings.Join([]string{teamManifest, deployment("app", 3, applicationProbes), deployment("plain", 2, fairleadProbes)}, "\n---\n"))
}

const teamManifest = `apiVersion: v1
kind: Namespace
metadata: {name: e2e}
---
apiVersion: v1
kind: Secret
metadata: {name: pair, namespace: e2e}
type: kubernetes.io/tls
data: {tls.crt: @CRT@, tls.key: @KEY@}
---
apiVersion: v1
kind: Secret
metadata: {name: opaque, namespace: e2e}
type: Opaque
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: e2e}
spec: {selector: {app: app}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: e2e}
spec: {type: LoadBalancer, selector: {app: plain}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: app, namespace: e2e}
spec:
  ingressClassName: fairlead
  rules:
  - host: ingress.e2e.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: secure, namespace: e2e}
spec:
  ingressClassName: fairlead
  tls: [{hosts: [secure.e2e.test], secretName: pair}, {hosts: [opaque.e2e.test], secretName: opaque}]
  rules:
  - host: secure.e2e.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: rejected, namespace: e2e}
spec:
  ingressClassName: fairlead
  rules:
  - host: rejected.e2e.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: nothing, port: {number: 80}}}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: e2e}
spec:
  gatewayClassName: fairlead
  allowedListeners: {namespaces: {from: Same}}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, hostname: "*.e2e.test", tls: {certificateRefs: [{name: pair}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: e2e}
spec:
  parentRef: {name: web}
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: e2e}
spec:
  parentRefs: [{name: web, sectionName: http}]
  hostnames: [calls.e2e.test]
  rules: [{backendRefs: [{name: app, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: nowhere, namespace: e2e}
spec: {parentRefs: [{name: web}], hostnames: [tls.e2e.test], rules: [{backendRefs: [{name: app, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: nowhere, namespace: e2e}
spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: app, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: UDPRoute
metadata: {name: nowhere, namespace: e2e}
spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{name: app, port: 80}]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: authority, namespace: e2e}
data: {ca.crt: "none"}
---
apiVersion: v1
kind: Service
metadata: {name: verified, namespace: e2e}
spec: {selector: {app: app}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: verified, namespace: e2e}
spec:
  targetRefs: [{group: "", kind: Service, name: verified}]
  validation: {hostname: app.e2e.test, caCertificateRefs: [{group: "", kind: ConfigMap, name: authority}]}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: budget, namespace: e2e}
spec:
  targetRefs: [{group: "", kind: Service, name: app}]
  retryConstraint: {budget: {percent: 50, interval: 10s}, minRetryRate: {count: 20, interval: 1s}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: outside, namespace: e2e}
spec: {type: ExternalHostname, externalHostname: {hostname: outside.e2e.test}, port: {port: 80}, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: outside, namespace: e2e}
spec:
  parentRefs: [{name: web, sectionName: http}]
  hostnames: [outside.e2e.test]
  rules: [{backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: outside}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: verified, namespace: e2e}
spec:
  parentRefs: [{name: web, sectionName: http}]
  hostnames: [verified.e2e.test]
  rules: [{backendRefs: [{name: verified, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: e2e}
spec:
  parentRefs: [{name: web}]
  hostnames: [route.e2e.test]
  rules: [{backendRefs: [{name: app, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: patient, namespace: e2e}
spec:
  parentRefs: [{name: web, sectionName: http}]
  hostnames: [patient.e2e.test]
  rules:
  - backendRefs: [{name: app, port: 80}]
    timeouts: {backendRequest: 2s}
    retry: {attempts: 2}
`

// How often an application is asked whether it is ready, and fairleadProbes is as often as the chart has Fairlead be asked.
const (
	applicationProbes = `        readinessProbe: {httpGet: {path: /readyz, port: 8081}, periodSeconds: 1, failureThreshold: 1}`
	fairleadProbes    = `        startupProbe: {httpGet: {path: /readyz, port: 8081}, periodSeconds: 1, timeoutSeconds: 2, failureThreshold: 60}
        readinessProbe: {httpGet: {path: /readyz, port: 8081}, periodSeconds: 2, timeoutSeconds: 2, failureThreshold: 2}`
)

// deployment is an application that behaves well: it goes on serving for a while after it was told to end, until everybody has heard of it. Its pods are spread over
// the nodes, and confined as those of the chart are, so that to start them is as much work.
func deployment(name string, replicas int, probes string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: e2e}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 30
      securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: %[1]s}}, matchLabelKeys: [pod-template-hash]}
      volumes: [{name: record, emptyDir: {}}]
      containers:
      - name: app
        image: %[3]s
        imagePullPolicy: Never
        resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 512Mi}}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        volumeMounts: [{name: record, mountPath: /record}]
%[4]s
        lifecycle: {preStop: {sleep: {seconds: 3}}}
`, name, replicas, cluster.AppImage, probes)
}
