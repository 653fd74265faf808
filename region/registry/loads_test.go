package registry

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// A load that comes with a heartbeat, to whichever node, costs no write and is known at every
// node as that of the service; it is forgotten with its instance, and after a while.
func TestLoadsOfAllNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startNodes(t, 3)
		beat := func(id string, percent int) {
			t.Helper()
			for i, node := range r.all { // the same at each node, once alone and once in a batch
				hb := api.Heartbeat{Load: api.LoadOf(percent)}
				if i%2 == 0 {
					if _, err := node.Beat(t.Context(), ikey("orders", id), hb); err != nil {
						t.Fatal(err)
					}
				} else if errs := node.Heartbeats(t.Context(), []api.BatchHeartbeat{{Service: "orders", ID: api.InstanceID(id), Load: hb.Load}}); errs[0] != nil {
					t.Fatal(errs[0])
				}
			}
		}
		want := func(percent float64) {
			t.Helper()
			<-time.After(loadsEvery + 2*reportEvery)
			for _, node := range r.all {
				wants := map[api.ServiceKey]float64{ikey("orders", "").ServiceKey(): percent}
				if percent < 0 {
					wants = map[api.ServiceKey]float64{}
				}
				if got := node.Loads(); !maps.Equal(got, wants) {
					t.Errorf("%s: %v, want %v", node.name, got, wants)
				}
			}
		}
		registration := reg()
		registration.TTL = api.Duration(2 * time.Minute)
		for i, capacity := range []int{100, 300} {
			registration.Capacity = capacity
			if _, _, err := r.all[0].Register(t.Context(), ikey("orders", fmt.Sprintf("i%d", i)), registration); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Second)
		beat("i0", 90)
		beat("i1", 10)
		want(30) // by capacity
		if err := r.all[1].Deregister(t.Context(), ikey("orders", "i1"), 0); err != nil {
			t.Fatal(err)
		}
		want(90)
		<-time.After(time.Minute)
		beat("i0", 40)
		want(40)
		revision := r.all[0].Snapshot().Instance(ikey("orders", "i0")).Revision
		beat("i0", 60)
		want(60)
		if now := r.all[0].Snapshot().Instance(ikey("orders", "i0")).Revision; now != revision {
			t.Errorf("a load wrote the record: revision %d, then %d", revision, now)
		}
		for range 4 { // heartbeats without a load
			<-time.After(time.Minute)
			if _, err := r.all[0].Heartbeat(t.Context(), ikey("orders", "i0"), 0); err != nil {
				t.Fatal(err)
			}
		}
		want(-1)
	})
}
