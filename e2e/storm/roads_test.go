package storm

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/wan"
)

// roads are the ways between regions: what happens to one concerns their federations, and the
// connections that callers make to instances and registries of another region, alike.
type roads struct {
	links  *cluster.Links
	homes  map[string]api.Region // host:port -> where it is
	relays map[lane]*cluster.Relay
}

// lane is the way of callers of a region to one address abroad.
type lane struct {
	reader api.Region
	addr   string
}

func newRoads(t *testing.T, links *cluster.Links, homes map[string]api.Region) *roads {
	w := &roads{links: links, homes: homes, relays: map[lane]*cluster.Relay{}}
	for addr, home := range homes {
		for _, r := range regions {
			if r != home {
				w.relays[lane{r, addr}] = cluster.NewRelay(t, addr)
			}
		}
	}
	return w
}

// set changes what happens to whatever region from sends to region to.
func (w *roads) set(from, to api.Region, change func(*wan.Direction)) {
	w.links.Set(from, to, change)
	for l, relay := range w.relays {
		switch home := w.homes[l.addr]; {
		case l.reader == from && home == to:
			relay.Update(func(p *wan.Profile) { change(&p.Up) })
		case l.reader == to && home == from:
			relay.Update(func(p *wan.Profile) { change(&p.Down) })
		}
	}
}

// both is set in both directions.
func (w *roads) both(a, b api.Region, change func(*wan.Direction)) {
	w.set(a, b, change)
	w.set(b, a, change)
}

// reset ends all connections between two regions.
func (w *roads) reset(a, b api.Region) {
	w.links.Cut(a, b)
	for l, relay := range w.relays {
		if home := w.homes[l.addr]; (l.reader == a && home == b) || (l.reader == b && home == a) {
			relay.Cut()
		}
	}
}

// usual is how long a byte is on its way between two regions in good weather, one way.
func usual(a, b api.Region) time.Duration {
	if a != us && b != us {
		return 5 * time.Millisecond
	}
	return 20 * time.Millisecond
}

const dialTimeout = 500 * time.Millisecond // as the SDK's own

// dialer connects callers of a region. What a relay cannot tell (that nobody listens at its target,
// or that the target is out of reach) is found out before it is used.
func (w *roads) dialer(from api.Region) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		var d net.Dialer
		relay := w.relays[lane{from, strings.Replace(addr, "localhost", "127.0.0.1", 1)}]
		if relay == nil {
			return d.DialContext(ctx, network, addr)
		}
		if p := relay.Profile(); p.Up.Blackhole || p.Down.Blackhole {
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Net: network, Err: ctx.Err()}
		}
		target, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		_ = target.Close()
		return d.DialContext(ctx, network, relay.Addr)
	}
}
