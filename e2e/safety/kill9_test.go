package safety

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// ledger is every registration that was acknowledged.
type ledger struct {
	mu    sync.Mutex
	next  int
	acked map[api.InstanceID]struct{}
	count atomic.Int64
}

func (l *ledger) nextID() api.InstanceID {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	return api.InstanceID(fmt.Sprintf("i-%06d", l.next))
}

func (l *ledger) note(id api.InstanceID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[id] = struct{}{}
	l.count.Store(int64(len(l.acked)))
}

// write registers one instance after the other until ctx ends.
func (l *ledger) write(ctx context.Context, h *cluster.HTTP) {
	for ctx.Err() == nil {
		id := l.nextID()
		status, err := h.Do(http.MethodPut, api.PathInstance("ledger", id), api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour)}, nil)
		if err == nil && status < 300 {
			l.note(id)
			continue
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// read counts the instances again and again, and returns what was wrong: a node that answers,
// be it while it starts, shows everything that was acknowledged before it was asked.
func (l *ledger) read(ctx context.Context, h *cluster.HTTP) (reads int, wrong []string) {
	for ctx.Err() == nil {
		least := l.count.Load()
		var list api.ServiceList
		_, err := h.Do(http.MethodGet, api.PathServices, nil, &list)
		if err != nil || least == 0 {
			pause(ctx, time.Millisecond)
			continue
		}
		reads++
		found := 0
		for _, s := range list.Services {
			found += s.Instances
		}
		if int64(found) < least {
			wrong = append(wrong, fmt.Sprintf("P1, P7: a read shows %d instances, %d were acknowledged before it", found, least))
		}
		pause(ctx, time.Millisecond)
	}
	return reads, wrong
}

// known returns the ids that a strong list finds.
func known(t *testing.T, h *cluster.HTTP) map[api.InstanceID]bool {
	t.Helper()
	out := map[api.InstanceID]bool{}
	for cursor := ""; ; {
		var l api.InstanceList
		cluster.Within(t, 15*time.Second, "a strong list", func() error {
			l = api.InstanceList{}
			_, err := h.Do(http.MethodGet, api.PathInstances("ledger")+"?consistency=strong&limit=1000&cursor="+cursor, nil, &l)
			return err
		})
		for _, i := range l.Instances {
			out[i.ID] = true
		}
		if cursor = l.Cursor; cursor == "" {
			return out
		}
	}
}

// P1, P4, P7, P11, test 6 of the failure analysis: kill -9 at random points while registrations come in.
// Every one that was acknowledged is there after each restart, without a human step, in the
// same epoch, and no read in between shows less.
func TestKill9Loop(t *testing.T) {
	seed := cluster.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 6))
	length := lasting(t, time.Second)
	rounds := 10
	if os.Getenv("NEARSIDE_ATTEMPT") != "" {
		rounds = 1
	}
	c := cluster.New(t, home)
	n := c.Node(home)
	n.Start()
	h := n.Client()
	l := &ledger{acked: map[api.InstanceID]struct{}{}}
	epoch := epochOf(t, h)
	readers, stopReading := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	reads, wrong := 0, []string(nil)
	reading.Go(func() { reads, wrong = l.read(readers, n.Client()) })
	defer reading.Wait()
	defer stopReading()
	var restarts []time.Duration
	lost, began := 0, time.Now()
	for round := 0; lost == 0 && (round < rounds || time.Since(began) < length); round++ {
		ctx, stop := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		for range clients {
			writers.Go(func() { l.write(ctx, h) })
		}
		pause(ctx, time.Duration(20+rng.IntN(500))*time.Millisecond)
		n.Kill()
		stop()
		writers.Wait()
		begun := time.Now()
		n.Start()
		restarts = append(restarts, time.Since(begun))
		there := known(t, h)
		for id := range l.acked {
			if !there[id] {
				lost++
				t.Errorf("P1: round %d: %s was acknowledged and is gone", round, id)
			}
		}
		if now := epochOf(t, h); now != epoch {
			t.Fatalf("P4: round %d: the epoch is %s and was %s, though nothing was lost", round, now, epoch)
		}
	}
	stopReading()
	reading.Wait()
	for _, line := range wrong[:min(10, len(wrong))] {
		t.Error(line)
	}
	slices.Sort(restarts)
	at := func(share float64) time.Duration {
		return restarts[min(len(restarts)-1, int(share*float64(len(restarts))))].Round(time.Millisecond)
	}
	t.Logf("kills %d, registrations acknowledged %d, lost %d; start to ready p50 %s, p99 %s, worst %s; reads meanwhile %d, wrong %d",
		len(restarts), len(l.acked), lost, at(0.5), at(0.99), restarts[len(restarts)-1].Round(time.Millisecond), reads, len(wrong))
	if len(l.acked) == 0 {
		t.Error("nothing was acknowledged: nothing was proved")
	}
}

func epochOf(t *testing.T, h *cluster.HTTP) api.Epoch {
	t.Helper()
	resp, err := http.Get(h.Base + api.PathServices)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	e, err := api.ParseEpoch(resp.Header.Get(api.HeaderEpoch))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// P1, P11, row 2 of the catalogue: the node dies after the commit and before the answer. The
// caller sends the same again to the node that comes back: it is the same registration,
// written once. A goodbye that is sent again finds nothing left to do.
func TestKilledBetweenCommitAndAnswer(t *testing.T) {
	t.Setenv("NEARSIDE_BROWN", "die-after-commit")
	mortal := cluster.NewOf(t, cluster.Brown(t), home)
	sound := cluster.New(t, home)
	sound.Node(home).DataDir = mortal.Node(home).DataDir
	path := api.PathInstance("orders", "o-1")
	reg := api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour), Incarnation: 7, Metadata: map[string]string{"v": "1"}}
	anew := reg
	anew.Incarnation = 8
	steps := []struct {
		name   string
		method string
		body   any
		again  int // status of the repeat
		there  uint64
	}{
		{"a registration", http.MethodPut, reg, http.StatusOK, 7},
		{"a new incarnation", http.MethodPut, anew, http.StatusOK, 8},
		{"a goodbye", http.MethodDelete, nil, http.StatusNotFound, 0},
	}
	t.Setenv("NEARSIDE_BROWN_AT", "1")
	for _, s := range steps {
		n := mortal.Node(home)
		n.Start()
		if status, err := n.Client().Do(s.method, path, s.body, nil); err == nil || status != 0 {
			t.Fatalf("%s was answered with %d, %v: the node should have died before", s.name, status, err)
		}
		n.Kill() // it is gone already; this reaps it
		n = sound.Node(home)
		n.Start()
		h := n.Client()
		before, status := strongRead(h, path)
		if s.there != 0 && (status != http.StatusOK || before.Incarnation != s.there) || s.there == 0 && status != http.StatusNotFound {
			t.Errorf("P1: %s that was committed reads as %d, %+v", s.name, status, before)
		}
		again, err := h.Do(s.method, path, s.body, nil)
		if again != s.again {
			t.Errorf("P1: %s again: %d, %v; want %d", s.name, again, err, s.again)
		}
		after, _ := strongRead(h, path)
		if after.Revision != before.Revision || !after.RegisteredAt.Equal(before.RegisteredAt) {
			t.Errorf("P1: %s again has written: %+v, was %+v", s.name, after, before)
		}
		t.Logf("%s: committed, not answered, repeated: status %d, revision %d before and %d after", s.name, again, before.Revision, after.Revision)
		n.Kill()
	}
}

func strongRead(h *cluster.HTTP, path string) (in api.Instance, status int) {
	status, _ = h.Do(http.MethodGet, path+"?consistency=strong", nil, &in)
	return in, status
}
