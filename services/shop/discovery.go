package shop

import (
	"context"
	"log/slog"
	"net/http"
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
	// attempt bounds one try at one instance. The tries of a service further back must fit
	// into one try of the service before it: else the caller gives up on a healthy service
	// just when that one finds another way.
	attempt time.Duration
	traces  trace.TracerProvider // nil = none
	log     *slog.Logger
}

// attemptTimeouts of the shop, from the back to the front. Payments answers orders within
// 600 ms or is asked elsewhere: at most 3 times, 1.8 s, less than the 2 s that storefront
// gives orders, of which one failure fits into the 3 s that a shopper gives storefront.
func attemptTimeout(service string) time.Duration {
	switch service {
	case Orders:
		return 600 * time.Millisecond
	case Storefront:
		return 2 * time.Second
	case shopper:
		return 3 * time.Second
	}
	return time.Second
}

func (c Config) peerConfig(service string, traces trace.TracerProvider, log *slog.Logger) peerConfig {
	return peerConfig{
		// Each service has a client of its own, and so has each copy of it: they may share a
		// folder of snapshots.
		app: service + "-" + c.Instance, snapshotDir: c.SnapshotDir,
		region: c.Region, zone: c.Zone, registry: c.Registry,
		attempt: attemptTimeout(service), traces: traces, log: log,
	}
}
