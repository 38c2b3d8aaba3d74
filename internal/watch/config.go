package watch

import (
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"
	gateway "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"
)

// LoadConfig finds out how to reach the API server. A path of a kubeconfig file wins; without one it is the service account of the pod, and outside of a pod
// what kubectl would use: $KUBECONFIG or ~/.kube/config. kubeContext names one of the contexts of a kubeconfig; empty means the current one.
func LoadConfig(path, kubeContext string) (*rest.Config, error) {
	if path == "" && kubeContext == "" {
		if config, err := rest.InClusterConfig(); err == nil {
			return config, nil
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: kubeContext}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("load kubeconfig: %w", err)
	}
	return config, nil
}

// Config returns how c reaches the API server, for others who do: with the same name and the same number of requests a second, counted apart.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.api.config) }

// clients are what asks the API server.
type clients struct {
	config  *rest.Config
	kube    *kubernetes.Clientset
	gateway *gateway.Clientset
}

func newClients(opt Options) (*clients, error) {
	config := rest.CopyConfig(opt.Config)
	config.QPS, config.Burst, config.UserAgent = opt.QPS, opt.Burst, opt.UserAgent
	config.RateLimiter = nil
	config.Timeout = 0 // would end watches, too; sessions have limits of their own
	config.WarningHandler, config.WarningHandlerWithContext = rest.NoWarnings{}, nil

	own := rest.CopyConfig(config)
	own.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(opt.QPS, opt.Burst)
	transport, err := rest.HTTPClientFor(own)
	if err != nil {
		return nil, err
	}
	out := &clients{config: config}
	if out.gateway, err = gateway.NewForConfigAndClient(own, transport); err != nil {
		return nil, err
	}
	out.kube, err = newKube(own, transport)
	return out, err
}

// newKube makes a client for the kinds that are built in. They come in a form that is smaller and faster to read than JSON.
func newKube(config *rest.Config, transport *http.Client) (*kubernetes.Clientset, error) {
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return kubernetes.NewForConfigAndClient(config, transport)
}
