package registry

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// An answer that was made before is given again only while a new decision would say the
// same: whatever happens to the service, its heartbeats or other regions.
func TestSharedAnswersAreWhatADecisionSays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 1))
		far := newReplicas("us-east")
		b := start(t, func(c *Config) { c.Replicas = far })
		b.register("orders", "i0")
		reused := 0
		last := map[string]*Answer{}
		for i := range 600 {
			id := fmt.Sprintf("i%d", rnd.IntN(4))
			switch rnd.IntN(8) {
			case 0:
				in := reg()
				in.Port = 1 + rnd.IntN(3)
				_, _, _ = b.Register(t.Context(), ikey("orders", id), in)
			case 1:
				if id != "i0" { // so that one is always known
					_ = b.Deregister(t.Context(), ikey("orders", id), 0)
				}
			case 2:
				_, _ = b.SetStatus(t.Context(), ikey("orders", id), api.StatusChange{Status: api.Statuses[rnd.IntN(5)]})
			case 3:
				pass(time.Duration(rnd.IntN(3000)) * time.Millisecond)
				_, _ = b.Beat(t.Context(), ikey("orders", "i0"), api.Heartbeat{Load: api.LoadOf(rnd.IntN(250))})
			case 4:
				b.register("users", id)
			case 5:
				far.set("us-east", "orders", uint64(100+i), []api.InstanceID{"f1", "f2", "f3"}[:rnd.IntN(4)]...)
			}
			q := ResolveQuery{Service: "orders", Zone: api.Zone([]string{"", "a", "b"}[rnd.IntN(3)]), Limit: rnd.IntN(3)}
			ex, stamp1, err1 := b.Explain(t.Context(), q)
			ex.Decision.ID = "" // an explanation alone has one
			res, stamp2, err2 := b.Resolve(t.Context(), q)
			if (err1 == nil) != (err2 == nil) || !reflect.DeepEqual(ex.Resolution, res) || stamp1 != stamp2 {
				t.Fatalf("resolve says\n%+v, %v\na new decision\n%+v, %v", res, err2, ex.Resolution, err1)
			}
			if err2 != nil {
				continue
			}
			a, _, _, err := b.ResolveShared(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			k := fmt.Sprint(q)
			if last[k] == a {
				reused++
			}
			last[k] = a
		}
		if reused == 0 {
			t.Error("no answer was ever given twice")
		}
	})
}

// P8: what is kept of answers is bounded, in number and in bytes.
func TestAnswersKeptAreBounded(t *testing.T) {
	var c answerCache
	kept := func() (n int) {
		for i := range c.shards {
			n += len(c.shards[i].now) + len(c.shards[i].old)
		}
		return n
	}
	view := &scene{}
	for i := range 50_000 {
		c.put(answerKey{key: api.ServiceKey{Service: api.ServiceName(fmt.Sprintf("s%d", i))}}, &view.view, nil, nil, &Answer{})
	}
	if n := kept(); n > 2*answerShards*answersPerShard || n < answerShards*answersPerShard/2 {
		t.Errorf("%d answers are kept", n)
	}
	before := kept()
	big := &Answer{Resolution: api.Resolution{Endpoints: []api.Endpoint{{Metadata: map[string]string{"k": string(make([]byte, maxShared))}}}}}
	c.put(answerKey{key: api.ServiceKey{Service: "big"}}, &view.view, nil, nil, big)
	if kept() != before {
		t.Error("an answer of any size is kept")
	}
}

// P8: what an answer was made from, which may be all of a large service, is not kept with it.
func TestAnswersKeepNoOldServices(t *testing.T) {
	var c answerCache
	k := answerKey{key: api.ServiceKey{Namespace: api.DefaultNamespace, Service: "orders"}, limit: 1}
	view := &route.View{Regions: []route.RegionView{{Endpoints: make([]api.Endpoint, 20_000), Total: 20_000}}}
	c.put(k, view, nil, nil, &Answer{})
	if c.get(k, view, nil, nil) == nil {
		t.Fatal("the answer is not given again")
	}
	other := &route.View{Regions: []route.RegionView{{Endpoints: make([]api.Endpoint, 20_000), Total: 20_000}}}
	if c.get(k, other, nil, nil) != nil {
		t.Error("the answer is given for other endpoints")
	}
	old := weak.Make(&view.Regions[0].Endpoints[0])
	runtime.KeepAlive(view)
	view = nil
	runtime.GC()
	if old.Value() != nil {
		t.Error("the endpoints of the service as it was are kept")
	}
	if c.get(k, other, nil, nil) != nil {
		t.Error("the answer of endpoints that are gone is given")
	}
}
