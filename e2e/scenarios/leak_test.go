package scenarios

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P8, test 26: rounds of watches that come and go, registrations, deregistrations, keys and
// connections that are cut. After each round goroutines and file descriptors are back at what
// they were, and memory stops growing; so are those of the child that keeps the records. With NEARSIDE_SOAK, and a kill of the other region now
// and then, for as long as that says.
func TestSoakLeak(t *testing.T) {
	r := rand.New(rand.NewPCG(cluster.Seed(t), 26))
	c := cluster.New(t, us, eu)
	c.StartAll()
	n := c.Node(us)
	short := 15 * time.Second
	soak := cluster.SoakFor(t, short)
	var rounds, stores []cluster.Figures
	begun := time.Now()
	for round := 0; round < 4 || time.Since(begun) < soak; round++ {
		churn(t, n, r, round)
		if soak > short && round%10 == 9 {
			c.Node(eu).Kill()
			c.Node(eu).Start()
		}
		rounds = append(rounds, settled(t, n))
		child, err := n.StoreFigures()
		if err != nil {
			t.Fatal(err)
		}
		stores = append(stores, child)
		if round < 8 || round%50 == 0 {
			t.Logf("%4d %6s: %s; its store %d file descriptors, %.1f MiB", round, time.Since(begun).Round(time.Second), rounds[round], child.FDs, mib(child.RSS))
		}
	}
	// The first round warms up: pools, connections to the store, the first garbage collections.
	base, last := rounds[1], rounds[len(rounds)-1]
	t.Logf("%d rounds in %s: from %s to %s", len(rounds), time.Since(begun).Round(time.Second), base, last)
	if last.Goroutines > base.Goroutines+20 {
		t.Errorf("P8: goroutines grew from %d to %d", base.Goroutines, last.Goroutines)
	}
	if last.FDs > base.FDs+10 {
		t.Errorf("P8: file descriptors grew from %d to %d", base.FDs, last.FDs)
	}
	// A node remembers the last 16,384 changes for watches that resume, their frames and the last
	// events: all bounded, and full after some 13 rounds. Until then memory grows by that, so the short form
	// holds it to the sum of those bounds, and only the long one to standing still over its second half.
	const remembers = 52 << 20 // history of instances and of keys, frames
	stands(t, "memory of the node", rounds, soak > short, remembers)
	// etcd keeps what was not compacted yet in memory and, beside its mapped file, its pages on their way.
	stands(t, "memory of its store", stores, soak > short, 128<<20)
	if first, last := stores[1].FDs, stores[len(stores)-1].FDs; last > first+10 {
		t.Errorf("P8: file descriptors of the store grew from %d to %d", first, last)
	}
}

// stands fails the test when memory grew by more than some bytes since the second round or, in the
// long form, by more than a twentieth over its second half. A collector leaves it here or there from one
// look to the next: the least of the last looks stands for the end, the least of the middle for the middle.
func stands(t *testing.T, what string, rounds []cluster.Figures, long bool, most int64) {
	t.Helper()
	least := func(part []cluster.Figures) int64 {
		return slices.MinFunc(part, func(a, b cluster.Figures) int { return cmp.Compare(a.RSS, b.RSS) }).RSS
	}
	looks := max(1, min(20, len(rounds)/8))
	base, middle, end := rounds[1].RSS, least(rounds[len(rounds)/2:][:looks]), least(rounds[len(rounds)-looks:])
	growth := float64(end-middle) / float64(middle)
	t.Logf("%s over the second half of %d rounds: %+.1f %%, from %.1f to %.1f MiB", what, len(rounds), 100*growth, mib(middle), mib(end))
	if long && growth > 0.05 && end > middle+4<<20 || end > base+most {
		t.Errorf("P8: %s grew from %.1f to %.1f MiB, over the second half from %.1f MiB", what, mib(base), mib(end), mib(middle))
	}
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// settled returns the node's figures once they stand still: what is closed takes a moment.
func settled(t *testing.T, n *cluster.Node) cluster.Figures {
	t.Helper()
	var f, before cluster.Figures
	still := 0
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && still < 3; pass(100 * time.Millisecond) {
		var err error
		if f, err = n.Figures(); err != nil {
			t.Fatal(err)
		}
		if f.Goroutines >= before.Goroutines-1 && f.Goroutines <= before.Goroutines+1 && f.FDs == before.FDs {
			still++
		} else {
			still = 0
		}
		before = f
	}
	return f
}

// churn is one round: everything that it opens, registers and writes it ends again.
func churn(t *testing.T, n *cluster.Node, r *rand.Rand, round int) {
	t.Helper()
	const watches, writers, perWriter = 50, 8, 40
	ctx, stop := context.WithCancel(t.Context())
	var streams, all sync.WaitGroup
	transport := &http.Transport{MaxIdleConnsPerHost: writers}
	client := &http.Client{Transport: transport}
	path := func(i int) string {
		return []string{api.PathWatch + "?service=churn", api.PathWatch + "?far=true", api.PathEvents + "?follow=true", api.PathKV + "?prefix=churn/&watch=true"}[i%4]
	}
	for i := range watches {
		streams.Go(func() {
			// Half of them leave in good order at the end, half are cut at some time.
			own := ctx
			if i%2 == 0 {
				var cut context.CancelFunc
				own, cut = context.WithTimeout(ctx, time.Duration(100+17*i)*time.Millisecond)
				defer cut()
			}
			req, err := http.NewRequestWithContext(own, http.MethodGet, n.URL()+path(i), nil)
			if err != nil {
				return
			}
			resp, err := client.Do(req)
			if err != nil {
				return
			}
			defer resp.Body.Close()
			buf := make([]byte, 4096)
			for err == nil {
				_, err = resp.Body.Read(buf)
			}
		})
	}
	leave := time.Duration(50+r.IntN(400)) * time.Millisecond
	for w := range writers {
		all.Go(func() {
			h := n.Client()
			for i := range perWriter {
				id := api.InstanceID(fmt.Sprintf("c-%d-%d-%d", round, w, i))
				h.Register("churn", string(id), api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Minute), Metadata: map[string]string{"round": fmt.Sprint(round)}})
				key := api.PathKVKey(fmt.Sprintf("churn/%d-%d", w, i))
				if _, err := h.Do(http.MethodPut, key, round, nil); err != nil {
					t.Errorf("writing a key: %v", err)
				}
				if _, err := h.Do(http.MethodDelete, key, nil, nil); err != nil {
					t.Errorf("deleting a key: %v", err)
				}
				if _, err := h.Do(http.MethodDelete, api.PathInstance("churn", id), nil, nil); err != nil {
					t.Errorf("deregistering: %v", err)
				}
			}
			h.Close()
		})
	}
	all.Wait()
	pass(leave)
	stop()
	streams.Wait()
	transport.CloseIdleConnections()
}
