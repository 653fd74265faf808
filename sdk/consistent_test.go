package nearside

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

const manyKeys = 2000

// owners returns who has each of many keys while nothing runs.
func owners(p Picker, t Candidates) []api.InstanceID {
	out := make([]api.InstanceID, manyKeys)
	for i := range out {
		ctx := WithKey(context.Background(), fmt.Sprint("key-", i))
		out[i] = t.List[p.Pick(PickInfo{Context: ctx})].Endpoint.ID
	}
	return out
}

// Keys are shared by weight, and each has one owner.
func TestKeysFollowWeights(t *testing.T) {
	seeds(t, 20, func(t *testing.T, r *rand.Rand) {
		tier := tierOf(someWeights(r)...)
		p, sum := (ConsistentHash{}).Prepare(tier), 0.0
		for _, c := range tier.List {
			sum += c.Weight
		}
		key := func(i int) string { return fmt.Sprint("key-", i) }
		for i, got := range shares(p, len(tier.List), manyKeys, key) {
			want := tier.List[i].Weight / sum
			points := float64(p.(*consistent).members[i].points)
			// Four sigma of the keys and of where the points lie, and the rounding of points.
			if math.Abs(got-want) > 4*math.Sqrt(want/manyKeys)+4*want/math.Sqrt(points)+want/(2*points) {
				t.Errorf("candidate %d of weight %v and %v points has %.4f of the keys, want %.4f", i, tier.List[i].Weight, points, got, want)
			}
		}
		if again := (ConsistentHash{}).Prepare(tier); !slices.Equal(owners(p, tier), owners(again, tier)) {
			t.Error("two rings of the same instances differ")
		}
	})
}

// An instance that comes takes keys from others, and they move to nobody else; one that goes
// leaves its keys to others, and no other key moves. However often, and whether the ring is
// made anew or from the one before.
func TestOnlyKeysOfTheInstanceMove(t *testing.T) {
	seeds(t, 10, func(t *testing.T, r *rand.Rand) {
		tier := tierOf(alike(2 + r.IntN(20))...)
		next := len(tier.List)
		p := (ConsistentHash{}).Prepare(tier)
		before := owners(p, tier)
		for range 8 {
			var moved api.InstanceID
			came := r.IntN(2) == 0 || len(tier.List) < 3
			list := slices.Clone(tier.List)
			if came {
				c := candidateOf(next, api.DefaultWeight)
				next++
				moved = c.Endpoint.ID
				list = append(list, c)
			} else {
				i := r.IntN(len(list))
				moved = list[i].Endpoint.ID
				list = slices.Delete(list, i, i+1)
			}
			r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			tier.List = list
			fresh := (ConsistentHash{}).Prepare(tier)
			p = ConsistentHash{}.prepare(tier, nil, p)
			after := owners(p, tier)
			if !slices.Equal(after, owners(fresh, tier)) {
				t.Fatal("the ring made from the one before is another one")
			}
			n := 0
			for i := range after {
				if after[i] == before[i] {
					continue
				}
				n++
				if came && after[i] != moved || !came && before[i] != moved {
					t.Fatalf("%s moved (came: %v), and key %d went from %s to %s", moved, came, i, before[i], after[i])
				}
			}
			if most := 2 * manyKeys / min(len(list), len(list)+1); n == 0 || n > most {
				t.Errorf("%d of %d keys moved among %d instances", n, manyKeys, len(list))
			}
			before = after
		}
	})
}

// While any number of calls run, no instance has more than 1.25 times its share of them, by
// weight and rounded up; and the keys of one that is full go on to one and the same other.
func TestLoadIsBounded(t *testing.T) {
	seeds(t, 30, func(t *testing.T, r *rand.Rand) {
		tier := tierOf(someWeights(r)...)
		bound := []float64{1.05, 1.25, 2}[r.IntN(3)]
		p, sum := ConsistentHash{Load: bound}.Prepare(tier), 0.0
		for _, c := range tier.List {
			sum += c.Weight
		}
		var running []*instance
		keys := 1 + r.IntN(50) // few: they are hot
		for range 2000 {
			if len(running) > 0 && r.IntN(5) < 2 {
				k := r.IntN(len(running))
				running[k].inflight.Add(-1)
				running = slices.Delete(running, k, k+1)
				continue
			}
			ctx := WithKey(context.Background(), fmt.Sprint(r.IntN(keys)))
			at := p.Pick(PickInfo{Context: ctx})
			if again := p.Pick(PickInfo{Context: ctx}); again != at {
				t.Fatalf("one key, nothing changed, and two places: %d and %d", at, again)
			}
			c := tier.List[at]
			c.in.inflight.Add(1)
			running = append(running, c.in)
			if most := math.Ceil(bound * float64(len(running)) * c.Weight / sum); float64(c.Running()) > most {
				t.Fatalf("%d of %d calls run at an instance with %.3f of the weight: more than %v", c.Running(), len(running), c.Weight/sum, most)
			}
		}
	})
}

// Calls of one key go to one instance, by Pick and by Transport; through answers that change
// nothing; past a broken one, to the same next one, and back. Calls without a key go round.
func TestCallsStayWithTheirKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		for i := range 8 {
			w.run("us", "orders", fmt.Sprint("o", i))
		}
		c := w.client("us", func(cfg *Config) { cfg.Balancer = ConsistentHash{} })
		web := w.web(c)
		who := func(key string) string {
			req, _ := http.NewRequestWithContext(WithKey(t.Context(), key), http.MethodGet, "http://orders/", nil)
			resp, err := web.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			p, err := c.Pick(WithKey(t.Context(), key), "orders")
			if err != nil {
				t.Fatal(err)
			}
			p.Done(nil)
			if id := resp.Header.Get(HeaderServedInstance); id != string(p.Endpoint.ID) {
				t.Fatalf("key %s: the transport went to %s, Pick to %s", key, id, p.Endpoint.ID)
			}
			return string(p.Endpoint.ID)
		}
		all := func() map[string]string {
			m := map[string]string{}
			for i := range 60 {
				m[fmt.Sprint(i)] = who(fmt.Sprint(i))
			}
			return m
		}
		before := all()
		w.regions["us"].put("orders", "o0", w.addr("us", "orders", "o0"), func(i *api.Instance) { i.Metadata = map[string]string{"a": "b"} })
		w.regions["us"].put("orders", "new", "new:80", func(i *api.Instance) { i.Status = api.StatusStarting })
		synctest.Wait()
		if now := all(); !maps.Equal(now, before) {
			t.Errorf("nothing changed, and keys moved: %v, %v", before, now)
		}
		dead := before["0"]
		w.net.kill(w.addr("us", "orders", dead))
		for i := range 60 { // the first calls meet the dead one and go on along the ring
			who(fmt.Sprint(i))
		}
		synctest.Wait()
		next := all()
		for key, id := range before {
			if id != dead && next[key] != id || next[key] == dead {
				t.Errorf("%s died, and key %s went from %s to %s", dead, key, id, next[key])
			}
		}
		seen := map[api.InstanceID]int{}
		for range 70 {
			p, err := c.Pick(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			p.Done(nil)
			seen[p.Endpoint.ID]++
		}
		if len(seen) != 7 || seen["o1"]+seen["o2"] < 10 {
			t.Errorf("calls without a key do not go round: %v", seen)
		}
	})
}

// A failed call is repeated where the key's calls go when its instance is gone, so that they
// find what is warm there.
func TestKeysAreRepeatedAlongTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		ill := map[string]*program{}
		for i := range 8 {
			id := fmt.Sprint("o", i)
			ill[id] = w.run("us", "orders", id)
		}
		c := w.client("us", func(cfg *Config) { cfg.Balancer = ConsistentHash{} })
		web := w.web(c)
		call := func(key string) string {
			req, _ := http.NewRequestWithContext(WithKey(t.Context(), key), http.MethodGet, "http://orders/", nil)
			resp, err := web.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			return resp.Header.Get(HeaderServedInstance)
		}
		for i := range 20 {
			key := fmt.Sprint(i)
			first := call(key)
			ill[first].set(func(p *program) { p.status = http.StatusServiceUnavailable })
			second := call(key)
			ill[first].set(func(p *program) { p.status = 0 })
			call(key)
			s, err := c.service("orders")
			if err != nil {
				t.Fatal(err)
			}
			var list []Candidate // as if the first were not there
			for _, x := range s.answer.Load().serving[0].list {
				if string(x.Endpoint.ID) != first {
					list = append(list, x)
				}
			}
			at := (ConsistentHash{}).Prepare(Candidates{List: list}).Pick(PickInfo{Context: WithKey(t.Context(), key)})
			if want := string(list[at].Endpoint.ID); second != want {
				t.Errorf("key %s of %s was repeated at %s, want %s", key, first, second, want)
			}
		}
	})
}

// While several regions share the traffic a key stays with one, the shares hold over the
// keys, and a share that moves takes only so many keys along.
func TestKeysStayWithTheirTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu", "ap")
		w.three()
		c := w.client("us", func(cfg *Config) {
			cfg.Balancer, cfg.Policy = ConsistentHash{}, route.Policy{FailbackRamp: -1}
		})
		const n = 2000
		all := func() (where []api.Region, us float64) {
			for i := range n {
				var r api.Region
				for range 2 {
					p, err := c.Pick(WithKey(t.Context(), fmt.Sprint(i)), "orders")
					if err != nil {
						t.Fatal(err)
					}
					p.Done(nil)
					if r != "" && r != p.Endpoint.Region {
						t.Fatalf("key %d is in %s and in %s", i, r, p.Endpoint.Region)
					}
					r = p.Endpoint.Region
				}
				where = append(where, r)
				if r == "us" {
					us += 1.0 / n
				}
			}
			return where, us
		}
		if _, us := all(); us < 0.999 {
			t.Errorf("%.3f of the keys at home", us)
		}
		w.regions["us"].drain("us", 30)
		synctest.Wait()
		before, us := all()
		if math.Abs(us-0.7) > 0.04 {
			t.Errorf("%.3f of the keys at home, want 0.7", us)
		}
		w.regions["us"].drain("us", 40)
		synctest.Wait()
		after, us := all()
		moved := 0
		for i := range after {
			if after[i] != before[i] {
				moved++
			}
		}
		if share := float64(moved) / n; share > 0.12 || math.Abs(us-0.6) > 0.04 {
			t.Errorf("%.3f of the keys moved, %.3f are at home; want 0.1 and 0.6", share, us)
		}
	})
}
