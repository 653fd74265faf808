package regions

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// witness looks all the time at what some regions say of the others, and remembers when one of
// them went back in time (P4), or lost all instances of a service that nobody deregistered (P7).
type witness struct {
	t     *testing.T
	stop  context.CancelFunc
	ended sync.WaitGroup

	mu       sync.Mutex
	broken   []string
	looks    int
	slowest  time.Duration
	away     map[api.Region]bool      // not asked: it is down
	until    map[api.Region]time.Time // when its services may go
	newest   map[[2]api.Region]api.Version
	restarts map[api.Region]int
}

// watchOver starts a witness. always are services that every region has in every other one's eyes, once
// seen: "" for none.
func (w *world) watchOver(always string) *witness {
	w.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	v := &witness{t: w.t, stop: stop, away: map[api.Region]bool{}, until: map[api.Region]time.Time{}, newest: map[[2]api.Region]api.Version{}, restarts: map[api.Region]int{}}
	for _, r := range w.regions {
		v.ended.Go(func() { v.follow(ctx, r, w.Node(r).Client(), always) })
	}
	w.t.Cleanup(v.end)
	return v
}

func (v *witness) follow(ctx context.Context, reader api.Region, h *cluster.HTTP, always string) {
	each := time.NewTicker(50 * time.Millisecond)
	defer each.Stop()
	seen, lived := map[api.Region]bool{}, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-each.C:
		}
		v.mu.Lock()
		away, life := v.away[reader], v.restarts[reader]
		v.mu.Unlock()
		if away {
			continue
		}
		if life != lived { // it may have come back with nothing
			lived = life
			clear(seen)
		}
		var l api.RegionList
		began := time.Now()
		_, err := h.Do(http.MethodGet, api.PathRegions, nil, &l)
		took := time.Since(began)
		v.mu.Lock()
		if v.away[reader] || v.restarts[reader] != life {
			v.mu.Unlock() // it went meanwhile
			continue
		}
		v.looks++
		v.slowest = max(v.slowest, took)
		if err != nil {
			v.blame("P10: %s does not say what it knows: %v", reader, err)
		}
		for _, r := range l.Regions {
			key := [2]api.Region{reader, r.Region}
			was, now := v.newest[key], r.Version()
			if r.Epoch.IsZero() {
				if !was.IsZero() {
					v.blame("P4: %s forgot %s, of which it had %s", reader, r.Region, was)
				}
				continue
			}
			if !was.IsZero() && now.Compare(was) == api.Older {
				v.blame("P4: what %s knows of %s went back from %s to %s", reader, r.Region, was, now)
			}
			v.newest[key] = now
		}
		v.mu.Unlock()
		if always == "" {
			continue
		}
		for _, r := range l.Regions {
			if r.Self {
				continue
			}
			var list api.InstanceList
			if _, err := h.Do(http.MethodGet, api.PathInstances(api.ServiceName(always))+"?region="+string(r.Region), nil, &list); err == nil && len(list.Instances) > 0 {
				seen[r.Region] = true
			} else if seen[r.Region] {
				v.mu.Lock()
				over := v.until[r.Region]
				if !v.away[reader] && v.restarts[reader] == life && (over.IsZero() || began.Before(over)) {
					v.blame("P7: in the eyes of %s, %s has no %s any more (%v)", reader, r.Region, always, err)
				}
				v.mu.Unlock()
			}
		}
	}
}

// blame notes a broken promise. v.mu is held.
func (v *witness) blame(format string, args ...any) {
	if len(v.broken) < 20 {
		v.broken = append(v.broken, fmt.Sprintf(format, args...))
	}
}

// down tells that a region is about to be killed, and up that it is back. What it knows then
// comes from its disk, which may be up to 2 s behind what it showed: it begins anew.
func (v *witness) down(r api.Region) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.away[r] = true
}

func (v *witness) up(r api.Region) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.away, r)
	v.restarts[r]++
	for key := range v.newest {
		if key[0] == r {
			delete(v.newest, key)
		}
	}
}

// emptied tells that a region comes back without what it had: the others keep its services for
// a while, which begins now, and no longer.
func (v *witness) emptied(r api.Region) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.until[r] = time.Now().Add(replica.HoldFor)
}

func (v *witness) end() {
	v.stop()
	v.ended.Wait()
}

// verdict ends the witness and fails the test if a promise was broken.
func (v *witness) verdict() {
	v.t.Helper()
	v.end()
	for _, b := range v.broken {
		v.t.Error(b)
	}
	if v.looks == 0 {
		v.t.Error("nobody looked")
	}
	v.t.Logf("%d looks at what regions know of each other, the slowest took %s", v.looks, v.slowest.Round(time.Millisecond))
}
