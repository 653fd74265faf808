package registry

import (
	"fmt"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// I7: an operator who removes a service says so to other regions; what goes by itself, or one by
// one, is not called planned, and what was planned for one service covers no other.
func TestRemoveServiceIsPlanned(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		const n = 150 // more than one commit
		for i := range n {
			b.register("orders", fmt.Sprintf("o-%03d", i))
		}
		b.register("users", "a")
		b.register("users", "b")
		v := b.Snapshot().Version()
		out, err := b.RemoveService(t.Context(), "", "orders")
		if err != nil || out.Removed != n || out.Revision != b.Snapshot().Version().Revision {
			t.Fatalf("%+v %v", out, err)
		}
		if err := b.Deregister(t.Context(), ikey("users", "a"), 0); err != nil {
			t.Fatal(err)
		}
		planned := b.PlannedSince(v)
		if _, ok := planned[ikey("orders", "").ServiceKey()]; !ok || len(planned) != 1 {
			t.Fatalf("%v", planned)
		}
		if planned := b.PlannedSince(b.Snapshot().Version()); len(planned) != 0 {
			t.Fatalf("%v", planned)
		}
		// One instance that leaves otherwise, and nothing of the service is known to be meant.
		b.register("orders", "x")
		if err := b.Deregister(t.Context(), ikey("orders", "x"), 0); err != nil {
			t.Fatal(err)
		}
		if planned := b.PlannedSince(v); len(planned) != 0 {
			t.Fatalf("%v", planned)
		}
		_, err = b.RemoveService(t.Context(), "", "orders")
		b.wantCode(err, api.CodeServiceNotFound)
		_, err = b.RemoveService(t.Context(), "", "NO")
		b.wantCode(err, api.CodeInvalidField)
		if got := b.listed("users"); got != "b" {
			t.Fatalf("%q is left of users", got)
		}
	})
}
