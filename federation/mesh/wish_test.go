package mesh

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P10: what a region wishes about itself reaches its peers with the next heartbeat, wakes those who
// wait, and outlives both the region and a restart of the peer.
func TestWishReachesPeers(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		var wish atomic.Int64
		eu.drained = func() float64 { return float64(wish.Load()) }
		eu.source.Set(2, "orders")
		us.start()
		eu.start()
		us.converged(eu)
		if d := us.origin("eu-west").Drained; d != 0 {
			t.Fatalf("%g", d)
		}
		changed := us.mesh.Changed()
		wish.Store(35)
		after(1100 * time.Millisecond)
		select {
		case <-changed:
		default:
			t.Error("nobody was woken")
		}
		if d := us.origin("eu-west").Drained; d != 35 {
			t.Errorf("%g after a heartbeat", d)
		}
		// Under churn too, when each second has something to tell anyway.
		wish.Store(60)
		for i := range 12 {
			eu.source.Set(2+i%2, "orders")
			after(100 * time.Millisecond)
		}
		if d := us.origin("eu-west").Drained; d != 60 {
			t.Errorf("%g under churn", d)
		}
		after(3 * time.Second) // to disk
		eu.stop()
		after(time.Minute)
		us.stop()
		us.start()
		defer us.stop()
		if o := us.origin("eu-west"); o.Drained != 60 || o.Source != api.SourceSnapshot {
			t.Errorf("%+v", o)
		}
		eu.drained = nil
		eu.start()
		defer eu.stop()
		us.converged(eu)
		if d := us.origin("eu-west").Drained; d != 0 {
			t.Errorf("%g after the undo", d)
		}
	})
}
