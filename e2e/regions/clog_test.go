package regions

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P4, P6, P7, P10, test 11: swizzle-clog. The ways between three regions (each direction
// by itself, so that most of the time a region hears another one which does not hear it) are
// clogged one by one in a random order, while all regions change; then they are opened again in another
// random order. Nobody ever goes back or loses a service, and soon afterwards the digests of all pairs are
// equal. The first round holds longer than a reader bears silence; those after it are short.
func TestSwizzleClog(t *testing.T) {
	t.Parallel() // it waits more than it works
	const rounds, converged = 4, 20 * time.Second
	seed := cluster.Seed(t)
	w := newWorld(t, us, eu, ap)
	w.StartAll()
	for _, r := range w.regions {
		fill(t, w.clients[r], "orders", 12, nil)
		for i := range 20 {
			fill(t, w.clients[r], fmt.Sprintf("service-%d", i), 4, nil)
		}
	}
	w.awaitAgreement("at the start")
	v := w.watchOver("orders")

	var took []time.Duration
	soak := cluster.SoakFor(t, 0)
	begun := time.Now()
	changes := 0
	for round := uint64(0); round < rounds || time.Since(begun) < soak; round++ {
		rng := rand.New(rand.NewPCG(seed, round))
		change := func() {
			r := w.regions[rng.IntN(len(w.regions))]
			service, i := fmt.Sprintf("service-%d", rng.IntN(20)), rng.IntN(4)
			path := api.PathInstance(api.ServiceName(service), api.InstanceID(fmt.Sprintf("%s-%d", service, i)))
			method, body := http.MethodPut, any(api.Registration{Address: "127.0.0.1", Port: 1 + rng.IntN(65000), TTL: api.Duration(api.MaxTTL)})
			if rng.IntN(4) == 0 {
				method, body = http.MethodDelete, nil
			}
			eventually(t, "P10: a change at "+string(r)+" while links are clogged", func() error {
				status, err := w.clients[r].Do(method, path, body, nil)
				if status == http.StatusNotFound {
					err = nil // removed before
				}
				return err
			})
			changes++
		}
		ways := w.links.Pairs()
		for _, i := range rng.Perm(len(ways)) {
			w.links.Clog(ways[i][0], ways[i][1])
			for range rng.IntN(10) {
				change()
			}
			pass(time.Duration(rng.IntN(200)) * time.Millisecond)
		}
		held := 1
		if round%rounds == 0 {
			held = 5 // longer than a reader bears silence, most of the time
		}
		for range held {
			change()
			pass(time.Duration(300+rng.IntN(600)) * time.Millisecond)
		}
		for n, i := range rng.Perm(len(ways)) {
			if n > 0 {
				pass(time.Duration(rng.IntN(200)) * time.Millisecond)
			}
			change()
			w.links.Unclog(ways[i][0], ways[i][1])
		}
		took = append(took, w.awaitAgreement(fmt.Sprintf("after round %d (seed %d)", round, seed)))
	}
	v.verdict()
	if worst := cluster.Percentile(took, 1); worst > converged {
		t.Errorf("P6: %s passed from the last link opened to equal digests of all pairs, want %s at most", worst, converged)
	}
	t.Logf("%d rounds, %d changes; from the last link opened to equal digests of all pairs: p50 %s, p99 %s", len(took), changes,
		cluster.Percentile(took, 0.5).Round(time.Millisecond), cluster.Percentile(took, 0.99).Round(time.Millisecond))
}
