package registry

import (
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P4, P1: an epoch that one node raises is every node's a moment later, although no store's watch
// tells of it; until then and after it heartbeats count, whichever node they are sent to.
func TestEpochIsRaisedOnEveryNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startNodes(t, 3)
		r.register(0, 9)
		o := r.owner()
		for _, n := range []*nodeUnderTest{r.others(o)[0], o} {
			was := n.Snapshot().Version().Epoch
			if err := n.RaiseEpoch(t.Context(), was.Generation); err != nil {
				t.Fatal(err)
			}
			pass(time.Second)
			want := n.Snapshot().Version().Epoch
			if want == was {
				t.Fatalf("the epoch is still %s", was)
			}
			for _, other := range r.others(n) {
				if got := other.Snapshot().Version().Epoch; got != want {
					t.Errorf("%s is in epoch %s, %s in %s", other.name, got, n.name, want)
				}
				if got := other.kept.of(api.EventEpoch); len(got) == 0 || got[len(got)-1].Cause.Kind != api.BecauseNodeRaised {
					t.Errorf("%s tells %+v", other.name, got)
				}
			}
			if refused := r.beatFor(40*time.Second, 0, 9); refused > 0 {
				t.Errorf("%d heartbeats did not count", refused)
			}
			if got := r.instances(); got != 9 {
				t.Errorf("%d instances, want 9", got)
			}
		}
	})
}
