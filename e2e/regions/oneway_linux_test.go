package regions

import (
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P4, P6, P10 and catalogue row 49: packets from eu-west to us-east are lost, those of the other
// direction arrive. Neither takes the other for well: us-east says that its link is down, and eu-west
// that us-east does not answer and does not tell where it stands. Both go on with ap-south and with what they have,
// and agree afterwards.
func TestOneWayBetweenRegions(t *testing.T) {
	t.Parallel() // it waits more than it works
	net := cluster.NewNet(t)
	w := &world{Cluster: net.Regions(us, eu, ap), t: t, regions: []api.Region{us, eu, ap}, clients: map[api.Region]*cluster.HTTP{}}
	for _, r := range w.regions {
		w.clients[r] = w.Node(r).Client()
	}
	w.StartAll()
	for _, r := range w.regions {
		fill(t, w.clients[r], "orders", 6, nil)
	}
	w.awaitAgreement("at the start")
	v := w.watchOver("orders")
	soak := cluster.SoakFor(t, 0)
	begun := time.Now()
	for round := 0; round < 1 || time.Since(begun) < soak; round++ {
		net.Cut(w.Node(eu), w.Node(us))
		cut := time.Now()
		fill(t, w.clients[eu], fmt.Sprintf("during-%d", round), 3, nil)
		fill(t, w.clients[us], fmt.Sprintf("during-%d", round), 3, nil)
		var usKnows, euKnows time.Duration
		cluster.Within(t, patience, "both know that something is wrong", func() error {
			atUS, err := w.federation(us)
			if err != nil {
				return err
			}
			atEU, err := w.federation(eu)
			if err != nil {
				return err
			}
			fromEU, err := link(atUS, eu)
			if err != nil {
				return err
			}
			fromUS, err := link(atEU, us)
			if err != nil {
				return err
			}
			if fromEU.State == "unreachable" && usKnows == 0 {
				usKnows = time.Since(cut)
			}
			// It hears us-east's packets, but what it asks for does not arrive there.
			if fromUS.State == "unreachable" && euKnows == 0 {
				euKnows = time.Since(cut)
			}
			if usKnows == 0 || euKnows == 0 {
				return fmt.Errorf("us-east says of eu-west: %s; eu-west of us-east: %s", fromEU.State, fromUS.State)
			}
			return nil
		})
		for _, r := range []api.Region{us, eu} {
			info, err := w.federation(r)
			if err != nil {
				t.Fatal(err)
			}
			if l, err := link(info, ap); err != nil || l.State != "connected" || l.Replica.State != api.AgeFresh {
				t.Errorf("P10: the link of %s to ap-south, which nothing happened to: %+v, %v", r, l, err)
			}
		}
		if _, err := w.clients[us].Resolvable("orders"); err != nil {
			t.Error(err)
		}
		net.Heal(w.Node(eu), w.Node(us))
		healed := time.Now()
		w.awaitAgreement("after the heal")
		t.Logf("packets from eu-west to us-east were lost for %s: us-east knew after %s, eu-west after %s; all agreed %s after the heal",
			healed.Sub(cut).Round(time.Millisecond), usKnows.Round(time.Millisecond), euKnows.Round(time.Millisecond), time.Since(healed).Round(time.Millisecond))
	}
	v.verdict()
}
