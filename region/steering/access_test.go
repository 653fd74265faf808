package steering

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// reader may read and nothing else; it notes what was asked for.
type reader struct {
	mu    sync.Mutex
	asked []string
}

func (r *reader) Authorize(_ context.Context, a registry.Access) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", a.Verb, a.Namespace, a.Service, a.Region)))
	if a.Verb != registry.VerbRead {
		return &api.Error{Code: api.CodeForbidden, Detail: "read only"}
	}
	return nil
}

// P12: setting a policy and draining a region are rights of their own, asked for with what they are
// about before anything else is looked at; looking and trying need the right to read.
func TestRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := memstore.New("eu-west")
		if err != nil {
			t.Fatal(err)
		}
		may := &reader{}
		b := newBed(t, m, newPeers("us-east"), func(c *registry.Config) { c.Authorizer = may })
		ctx := t.Context()
		for _, c := range []struct {
			access string
			code   api.Code
			do     func() error
		}{
			{"policy default orders", api.CodeForbidden, func() error { _, err := b.put("orders", api.Policy{}); return err }},
			{"policy default *", api.CodeForbidden, func() error { _, err := b.put("*", api.Policy{MinHealthy: num(400)}); return err }},
			{"policy default UP", api.CodeForbidden, func() error { _, err := b.DeletePolicy(ctx, PolicyDelete{Service: "UP"}); return err }},
			{"drain   us-east", api.CodeForbidden, func() error { _, _, err := b.PutDrain(ctx, "us-east", api.DrainRequest{Percent: 400}); return err }},
			{"drain   mars", api.CodeForbidden, func() error { _, _, err := b.UndoDrain(ctx, "mars", 0); return err }},
			{"read   us-east", "", func() error { _, _, err := b.GetDrain(ctx, "us-east", registry.ReadOptions{}); return err }},
			{"read shop orders", api.CodePolicyNotFound, func() error {
				_, _, err := b.GetPolicy(ctx, PolicyQuery{Namespace: "shop", Service: "orders"})
				return err
			}},
			{"read shop", "", func() error { _, _, err := b.ListPolicies(ctx, PoliciesQuery{Namespace: "shop"}); return err }},
			{"read default orders", "", func() error { _, _, err := b.TestPolicy(ctx, PolicyTrial{Service: "orders"}); return err }},
		} {
			may.asked = nil
			b.wantCode(c.do(), c.code)
			if !slices.Contains(may.asked, c.access) {
				t.Errorf("asked for %q, not for %q", may.asked, c.access)
			}
		}
	})
}

// Two nodes of a region go by the same decisions, and a refusal by one is as true as by the other.
func TestTwoNodes(t *testing.T) {
	with(t, func(t *testing.T, a *bed) {
		b := newBed(t, a.store, a.peers)
		one, err := a.put("orders", api.Policy{KeepWarm: num(1)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.put("orders", api.Policy{KeepWarm: num(2)}, one.Revision); err != nil {
			t.Fatal(err)
		}
		_, err = a.put("orders", api.Policy{KeepWarm: num(3)}, one.Revision)
		a.wantCode(err, api.CodeConflict)
		a.drain("eu-west", api.DrainRequest{Percent: 30})
		synctest.Wait()
		if b.Own() != 30 || *b.Policy(api.ServiceKey{Namespace: "default", Service: "orders"}).KeepWarm != 2 {
			t.Errorf("the other node: %g", b.Own())
		}
		if _, _, err := b.UndoDrain(t.Context(), "eu-west", 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if a.Own() != 0 {
			t.Errorf("%g", a.Own())
		}
		// Each node's log tells of both, with who asked where.
		for name, n := range map[string]*bed{"a": a, "b": b} {
			if got := n.log.of(api.EventRegionDrain); len(got) != 2 {
				t.Errorf("%s: %q", name, got)
			}
		}
	})
}
