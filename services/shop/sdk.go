package shop

import (
	"context"
	"net/http"
	"time"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/route"
)

// drainDelay is how long a service that leaves goes on serving after the registry said so.
// It is short: whoever has not heard of it by then is refused and calls another instance.
const drainDelay = 250 * time.Millisecond

// withAttempt bounds each try of the calls made with the context; 0 = as the client does.
func withAttempt(ctx context.Context, d time.Duration) context.Context {
	if d == 0 {
		return ctx
	}
	return nearside.WithAttemptTimeout(ctx, d)
}

// dialRegion gives a program its SDK client.
func dialRegion(home peerConfig) (peers, error) {
	token, err := readToken(home.tokenFile)
	if err != nil {
		return nil, err
	}
	client, err := nearside.New(nearside.Config{
		Addresses: home.registry, Region: home.region, Zone: home.zone,
		App: home.app, Token: token, SnapshotDir: home.snapshotDir,
		AttemptTimeout: home.attempt,
		// The reports tell each move of a shopper and time the way home by the first: half a
		// minute in which two regions take turns would be nothing but moves.
		Policy:         route.Policy{FailbackRamp: -1},
		TracerProvider: home.traces, Logger: home.log,
	})
	if err != nil {
		return nil, err
	}
	return sdkPeers{client}, nil
}

// sdkPeers gives an SDK client the form of peers.
type sdkPeers struct{ client *nearside.Client }

func (p sdkPeers) Transport(base http.RoundTripper) http.RoundTripper {
	return p.client.Transport(base)
}

func (p sdkPeers) Close() error { return p.client.Close() }

func (p sdkPeers) Register(ctx context.Context, self instance) (func(context.Context) error, error) {
	r, err := p.client.Register(ctx, nearside.Registration{
		Service: self.service, ID: self.id, Address: self.address, Port: self.port,
		Zone: self.zone, TTL: self.ttl, DrainDelay: drainDelay,
	})
	if err != nil {
		return nil, err
	}
	return r.Close, nil
}
