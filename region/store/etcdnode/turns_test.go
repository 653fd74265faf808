package etcdnode

import (
	"testing"
	"time"
)

// Failure 9: never two members write their databases anew at once, each gets its turn in every
// round, and a leader is never before the others.
func TestMembersTakeTurns(t *testing.T) {
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, n := range []int{1, 2, 3, 5} {
		began := make([]int, n)
		for s := range int(time.Duration(n) * slotLength / time.Second) {
			now := start.Add(time.Duration(s) * time.Second)
			at := 0
			for i := range n {
				if turn(now, slotLength, i, n) {
					began[i]++
					at++
				}
			}
			if at > 1 {
				t.Fatalf("%d of %d members begin at %s", at, n, now)
			}
		}
		for i, b := range began {
			if b == 0 {
				t.Errorf("member %d of %d has no turn", i, n)
			}
		}
	}
	if leadsLast(start, start.Add(2*slotLength), slotLength, 3) || !leadsLast(start, start.Add(3*slotLength), slotLength, 3) {
		t.Error("a leader of three waits one round and no more")
	}
}
