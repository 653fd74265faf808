package registry

import (
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P10: the federation is told from where services are served when that is not here: by every resolve of
// a caller of this region, and for what such callers watch; not when home serves, nor for callers elsewhere.
func TestServingFromAnotherRegionIsNoted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		b.registerMany("orders", 1)
		f.set("us-east", "orders", 7, "u1")
		f.set("us-east", "payments", 8, "p1", "p2")
		f.set("ap-south", "payments", 8, "p3")
		resolve := func(service api.ServiceName, from api.Region) {
			t.Helper()
			if _, _, err := b.Resolve(t.Context(), ResolveQuery{Service: service, FromRegion: from}); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 { // the first answer is made, the others are remembered
			resolve("orders", "")
			resolve("payments", "")
			resolve("payments", "us-east")
		}
		if _, _, err := b.Explain(t.Context(), ResolveQuery{Service: "payments"}); err != nil {
			t.Fatal(err)
		}
		if n := f.uses("ap-south", "payments"); n != 3 {
			t.Errorf("%d uses of the nearest region noted, 3 callers were sent there", n)
		}
		if n := f.uses("us-east", "orders") + f.uses("ap-south", "orders"); n != 0 {
			t.Errorf("%d uses noted of a service that home serves", n)
		}
		before := f.uses("ap-south", "payments")
		w := b.watch(WatchQuery{Far: true, Services: []api.ServiceName{"orders", "payments"}})
		other := b.watch(WatchQuery{Far: true, Services: []api.ServiceName{"payments"}})
		b.watch(WatchQuery{Far: true})
		b.beat(21*time.Second, "orders", 0, 1)
		if n := f.uses("ap-south", "payments") - before; n < 4 || n > 6 {
			t.Errorf("%d uses noted of a service that two watched for 21 s", n)
		}
		if n := f.uses("us-east", "orders") + f.uses("ap-south", "orders"); n != 0 {
			t.Errorf("%d uses noted of a watched service that home serves", n)
		}
		// Home loses the last one.
		if err := b.Deregister(t.Context(), ikey("orders", "i0"), 0); err != nil {
			t.Fatal(err)
		}
		pass(6 * time.Second)
		if f.uses("us-east", "orders") == 0 {
			t.Error("no use noted of a watched service that home has lost")
		}
		w.cancel()
		other.cancel()
		after := f.uses("ap-south", "payments")
		pass(20 * time.Second)
		if n := f.uses("ap-south", "payments") - after; n != 0 {
			t.Errorf("%d uses noted by a watch of everything, which is a mirror", n)
		}
	})
}
