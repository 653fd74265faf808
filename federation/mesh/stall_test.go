package mesh

import (
	"net/http"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// mutes makes a region's node answer readers of another region's rows with what frames says, for as long
// as the returned switch is on; all else is answered as ever.
func (r *region) mutes(of string, on func() bool, frames func(second int) []any) {
	mute := says(frames)
	r.front = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == peer.PathStream && req.URL.Query().Get("origin") == of && on() {
				mute(w, req)
				return
			}
			next.ServeHTTP(w, req)
		})
	}
}

// passes is how a relay begins.
func passes(by, of *region) replica.Frame {
	v := of.source.Version()
	return replica.Frame{
		Kind: replica.Hello, Proto: 2, Region: of.name, Node: "n1", Relay: by.name, Depth: 1, Epoch: v.Epoch, Head: v.Revision, Complete: true, Can: replica.Able,
	}
}

// P6: a relay that answers and tells nothing of use is given up like an origin that does so.
func TestHungRelayIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := prepare(t, n, "us-east", "eu-west", "ap-south", "af-north")
		us, eu, ap := w.region["us-east"], w.region["eu-west"], w.region["ap-south"]
		hung := false
		hangs := func(by *region) {
			by.mutes("eu-west", func() bool { return hung }, func(second int) []any {
				if second == 0 {
					return []any{passes(by, eu)}
				}
				return []any{""}
			})
		}
		hangs(ap)
		w.start("us-east", "eu-west", "ap-south", "af-north")
		eu.source.Set(3, "payments")
		us.has("eu-west", "payments", 3)
		hung = true
		w.cuts[[2]api.Region{"us-east", "af-north"}]() // so that the hung one is chosen
		w.cut("us-east", "eu-west")
		us.until("the hung relay is in use", func() bool { return us.link("eu-west").Via == "ap-south" })
		eu.source.Set(7, "payments")
		w.heals[[2]api.Region{"us-east", "af-north"}]()
		began := time.Now()
		after(stallLimit)
		us.until("another one is", func() bool { return us.link("eu-west").Via == "af-north" })
		if took := time.Since(began); took > stallLimit+10*time.Second {
			t.Errorf("left after %s", took)
		}
		us.has("eu-west", "payments", 7)
	})
}

// P6: a node of our own that answers and tells nothing of use is passed over: this one reads for itself.
func TestHungSiblingIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := newTeam(t, n)
		eu := w.others["eu-west"]
		eu.source.Set(3, "payments")
		for _, node := range w.nodes {
			node.has("eu-west", "payments", 3)
		}
		name := w.settles("eu-west")
		reader := w.node(name)
		reader.stop()
		reader.mutes("eu-west", func() bool { return true }, func(second int) []any {
			if second == 0 {
				f := passes(reader, eu)
				f.Depth = 0
				return []any{f}
			}
			return []any{""}
		})
		reader.start()
		for _, node := range w.nodes {
			if node != reader {
				node.until("the hung one is asked", func() bool { return node.link("eu-west").Via == "us-east" })
			}
		}
		eu.source.Set(7, "payments")
		began := time.Now()
		after(stallLimit)
		for _, node := range w.nodes {
			node.has("eu-west", "payments", 7)
		}
		if took := time.Since(began); took > 2*stallLimit {
			t.Errorf("left after %s", took)
		}
	})
}

// P6: what a relay asks for, to stay away for a time, holds for it alone: the direct way is tried as ever.
func TestBusyRelayDoesNotStopTheDirectWay(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := prepare(t, n, "us-east", "eu-west", "ap-south")
		us, eu, ap := w.region["us-east"], w.region["eu-west"], w.region["ap-south"]
		busy := false
		ap.mutes("eu-west", func() bool { return busy }, func(int) []any {
			return []any{passes(ap, eu), replica.Frame{Kind: replica.Goodbye, Reason: replica.ReasonBusy, RetryMS: 60_000}}
		})
		w.start("us-east", "eu-west", "ap-south")
		eu.source.Set(3, "payments")
		us.has("eu-west", "payments", 3)
		busy = true
		w.cut("us-east", "eu-west")
		us.until("the relay says that it is busy", func() bool { return us.logs.count("the rows are no longer passed on") > 0 })
		w.heal("us-east", "eu-west")
		began := time.Now()
		us.converged(eu)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("read itself again after %s", took)
		}
	})
}
