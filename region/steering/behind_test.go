package steering

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// gated is a node's way to the region's store; its watch tells nothing while it is shut.
type gated struct {
	*memstore.Store
	mu   sync.Mutex
	shut chan struct{} // nil = open
}

func (g *gated) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gated) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

func (g *gated) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

func (g *gated) Watch(ctx context.Context, from uint64, apply func(store.Batch) error, progress func(uint64)) error {
	return g.Store.Watch(ctx, from,
		func(b store.Batch) error { g.pass(); return apply(b) },
		func(revision uint64) { g.pass(); progress(revision) })
}

// silent nodes reach each other by the store alone.
type silent struct{}

func (silent) Report(context.Context, string, string, string, api.NodeReport) (api.NodeAnswer, error) {
	return api.NodeAnswer{}, errors.New("not reached")
}

// withTwo has two nodes of one region; the second hears nothing of the store while shut.
func withTwo(t *testing.T, test func(t *testing.T, ahead, behind *bed, shut *gated)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m, err := memstore.New("eu-west")
		if err != nil {
			t.Fatal(err)
		}
		p, g := newPeers("us-east", "ap-south"), &gated{Store: m}
		node := func(name, address string, s store.Store) *bed {
			return newBed(t, m, p, func(c *registry.Config) {
				c.Node, c.Store, c.Nodes, c.Addresses = name, s, silent{}, []string{address}
			})
		}
		ahead, behind := node("n1", "http://10.0.0.1:7400", m), node("n2", "http://10.0.0.2:7400", g)
		t.Cleanup(g.open)
		test(t, ahead, behind, g)
	})
}

// An acknowledged policy or drain is what the region has from then on, also when the node that was asked
// is behind and finds in its memory that nothing is to be done: it answered 200 and wrote nothing.
func TestNodeThatIsBehindWritesWhatItAcknowledges(t *testing.T) {
	one, two := api.Policy{LocalOnly: yes()}, api.Policy{MinHealthy: num(20)}
	for what, c := range map[string]struct {
		before, ahead, behind func(b *bed) error
		check                 func(t *testing.T, b *bed)
	}{
		"the policy of before": {
			before: func(b *bed) error { _, err := b.put("orders", one); return err },
			ahead:  func(b *bed) error { _, err := b.put("orders", two); return err },
			behind: func(b *bed) error { _, err := b.put("orders", one); return err },
			check: func(t *testing.T, b *bed) {
				p, _, err := b.GetPolicy(b.t.Context(), PolicyQuery{Service: "orders", ReadOptions: registry.ReadOptions{Strong: true}})
				if err != nil || len(api.Differences(&p.Policy, &one)) != 0 {
					t.Errorf("%+v, %v; want the policy that was acknowledged last", p.Policy, err)
				}
			},
		},
		"the end of a drain": {
			before: func(*bed) error { return nil },
			ahead: func(b *bed) error {
				_, _, err := b.PutDrain(b.t.Context(), "us-east", api.DrainRequest{Percent: 100})
				return err
			},
			behind: func(b *bed) error { _, _, err := b.UndoDrain(b.t.Context(), "us-east", 0); return err },
			check: func(t *testing.T, b *bed) {
				d, _, err := b.GetDrain(b.t.Context(), "us-east", registry.ReadOptions{Strong: true})
				if err != nil || d.Now != 0 {
					t.Errorf("%+v, %v; want the drain undone", d, err)
				}
			},
		},
	} {
		t.Run(what, func(t *testing.T) {
			withTwo(t, func(t *testing.T, ahead, behind *bed, shut *gated) {
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(err)
					}
				}
				must(c.before(ahead))
				<-time.After(time.Second) // in the bubble
				shut.close()
				must(c.ahead(ahead))
				done := make(chan error, 1)
				go func() { done <- c.behind(behind) }()
				<-time.After(100 * time.Millisecond)
				shut.open()
				must(<-done)
				synctest.Wait()
				c.check(t, ahead)
			})
		})
	}
}
