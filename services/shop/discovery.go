package shop

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/nearside/nearside/sdk/api"
)

// peers is what a service, or a shopper, needs of discovery: an SDK client, or a test's
// stand-in for one.
type peers interface {
	// Transport carries requests for http://<service>/… to an instance of that service.
	Transport(base http.RoundTripper) http.RoundTripper
	// Register makes self known until leave is called. It returns when the registry has
	// acknowledged, or after about a second, when it does not answer: then it goes on trying
	// in the background. An error is a definite no, or the end of ctx.
	Register(ctx context.Context, self instance) (leave func(context.Context) error, err error)
	Close() error
}

// dialer makes peers. It does not wait for any network.
type dialer func(peerConfig) (peers, error)

// instance is what is registered.
type instance struct {
	service, id string
	address     string
	port        int
	zone        api.Zone
	ttl         time.Duration
}

// peerConfig is where a program is at home, and how patient it is.
type peerConfig struct {
	app         string // who asks: names the snapshot and shows in logs
	region      api.Region
	zone        api.Zone
	registry    []string
	snapshotDir string
	tokenFile   string
	attempt     time.Duration        // see patience
	traces      trace.TracerProvider // nil = none
	log         *slog.Logger
}

// patience of a program with the services behind it.
type patience struct {
	attempt time.Duration // with one try at one instance
	answer  time.Duration // with all it does for one request; then it answers 502
}

// patienceOf nests the time-outs of the shop: a service answers, if only to say whom it
// could not reach, while the one before it still waits. Orders may ask payments twice and
// begin a third time; storefront may wait for orders' answer and begin again, and a shopper
// gives up on two storefronts before the call fails.
func patienceOf(service string) patience {
	switch service {
	case shopper:
		return patience{attempt: 2 * time.Second, answer: shopperTimeout}
	case Storefront:
		return patience{attempt: 1500 * time.Millisecond, answer: 1900 * time.Millisecond}
	case Orders:
		return patience{attempt: 500 * time.Millisecond, answer: 1400 * time.Millisecond}
	}
	return patience{attempt: 500 * time.Millisecond, answer: 500 * time.Millisecond}
}

// quickAttempt bounds one try at an instance for what is answered at once; 0 = the caller's
// own patience has to do. Catalog and users ask nobody, and neither the home page nor a
// product needs orders: a hung instance costs such a call less than patienceOf allows.
func quickAttempt(service, path string) time.Duration {
	switch service {
	case Catalog, Users:
		return 500 * time.Millisecond
	case Storefront:
		if u, _, _ := strings.Cut(path, "?"); u == "/" || strings.HasPrefix(u, "/products/") {
			return time.Second
		}
	}
	return 0
}

func (c Config) peerConfig(service string, traces trace.TracerProvider, log *slog.Logger) peerConfig {
	return peerConfig{
		// Each service has a client of its own, and so has each copy of it: they may share a
		// folder of snapshots.
		app: service + "-" + c.Instance, snapshotDir: c.SnapshotDir,
		region: c.Region, zone: c.Zone, registry: c.Registry,
		tokenFile: c.TokenFile, attempt: patienceOf(service).attempt, traces: traces, log: log,
	}
}
