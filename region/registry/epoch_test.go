package registry

import (
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P4: an epoch that one node raises is soon every node's, with a reset to its watchers. The
// others went on in the old epoch for as long as their store answered, so that a client that asked one
// node after the other went back and forth between two histories.
func TestARaisedEpochIsEveryNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startNodes(t, 3)
		r.register(0, 3)
		pass(time.Second)
		was := r.all[0].Snapshot().Version()
		if err := r.all[0].RaiseEpoch(t.Context(), was.Epoch.Generation); err != nil {
			t.Fatal(err)
		}
		now := r.all[0].Snapshot().Version()
		// Who has seen the new epoch and asks another node at once is not sent back.
		if why, err := r.all[1].meet(t.Context(), now); why != "" || err != nil {
			t.Errorf("a client that comes over from the node that raised: %q, %v", why, err)
		}
		pass(100 * time.Millisecond)
		for _, n := range r.all {
			if v := n.Snapshot().Version(); v.Epoch != now.Epoch || v.Compare(was) != api.Newer {
				t.Errorf("node %s is at %s, the region's epoch is %s", n.name, v, now.Epoch)
			}
		}
		if n := r.instances(); n != 3 {
			t.Errorf("%d of 3 instances after it", n)
		}
		r.register(3, 6)
		if n := r.instances(); n != 6 {
			t.Errorf("%d of 6 instances, written in the new epoch", n)
		}
	})
}
