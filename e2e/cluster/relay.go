package cluster

import (
	"context"
	"testing"

	"github.com/nearside/nearside/services/wan"
)

// Relay is a link (services/wan) in front of one address, on loopback, that ends with the
// test. Safe for concurrent use.
type Relay struct {
	*wan.Link
	Addr string // host:port, where it listens
}

// NewRelay starts a relay to target that passes everything on.
func NewRelay(t testing.TB, target string) *Relay {
	t.Helper()
	return newRelay(t, "127.0.0.1:0", target)
}

func newRelay(t testing.TB, listen, target string) *Relay {
	t.Helper()
	l, err := wan.Listen(listen, target, wan.Profile{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the relay to %s: %v", target, err)
		}
	})
	return &Relay{Link: l, Addr: l.Addr()}
}

// Blackhole makes the relay take bytes and pass none on, in both directions: neither side
// is told anything. What is on its way then waits. Cut, of the link, closes all connections.
func (r *Relay) Blackhole() { r.hole(true) }

// Heal passes on what waits, late as it is, and everything after it.
func (r *Relay) Heal() { r.hole(false) }

func (r *Relay) hole(on bool) {
	r.Update(func(p *wan.Profile) { p.Up.Blackhole, p.Down.Blackhole = on, on })
}
