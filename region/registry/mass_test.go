package registry

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/sdk/api"
)

// slowStore is a store whose commits take a while, as on a slow disk, and which counts the
// instances that each deletes.
type slowStore struct {
	store.Store
	wait atomic.Int64 // of a commit, in ns

	mu      sync.Mutex
	deletes []int // per commit that deletes
	at      []time.Time
}

// instances is what the keys of their records begin with.
var instances, _, _ = strings.Cut(catalog.InstanceRecordKey(api.InstanceKey{Namespace: "ns"}), "ns")

func (s *slowStore) Commit(ctx context.Context, ops []store.Op) (uint64, error) {
	n := 0
	for _, op := range ops {
		if op.Delete && strings.HasPrefix(op.Key, instances) {
			n++
		}
	}
	if n > 0 {
		s.mu.Lock()
		s.deletes = append(s.deletes, n)
		s.at = append(s.at, time.Now())
		s.mu.Unlock()
	}
	if w := time.Duration(s.wait.Load()); w > 0 {
		t := time.NewTimer(w)
		<-t.C
	}
	return s.Store.Commit(ctx, ops)
}

// P1, P8, test 18 and catalogue row 29: the heartbeats of a whole region stop for good, with
// the brake off (no setting of the server takes it off, so this is the registry on a real
// etcd). Answers leave everyone out soon after the deadline, although the deletes take many
// times longer; deletes go one bounded commit at a time, and registrations pass between them.
// 8,000 instances, as the deletes take eight seconds at their pace; NEARSIDE_SOAK makes it the 100,000 of the name.
func TestMassExpiry100k(t *testing.T) {
	t.Log("no seed: this test chooses nothing at random")
	count := 8_000
	if soakFor(t, 0) > 0 {
		count = 100_000
	}
	const perService, ttl = 100, 8 * time.Second
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	node, err := etcdnode.Start(ctx, etcdnode.Config{DataDir: t.TempDir(), Region: "eu-west", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = node.Close() }()
	st, err := etcdstore.Open(ctx, etcdstore.Config{Endpoints: []string{node.Endpoint()}, Region: "eu-west"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	slow := &slowStore{Store: st}
	r, err := New(Config{Region: "eu-west", Node: "n1", Store: slow})
	if err != nil {
		t.Fatal(err)
	}
	r.brake.Share = 1000 // the brake is off, also when the deadlines are seen over several ticks
	r.ledger = liveness.New(r.brake)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	<-r.Loaded()

	service := func(i int) api.ServiceName { return api.ServiceName("s" + strconv.Itoa(i/perService)) }
	var next atomic.Int64
	var all sync.WaitGroup
	begun := time.Now()
	for range 256 {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= count {
					return
				}
				key := api.InstanceKey{Namespace: "default", Service: service(i), ID: api.InstanceID("i" + strconv.Itoa(i))}
				if _, _, err := r.Register(ctx, key, api.Registration{Address: "10.0.0.9", Port: 8080, TTL: api.Duration(ttl)}); err != nil {
					t.Errorf("register %s: %v", key, err)
					return
				}
			}
		})
	}
	// Registering takes longer than the TTL where the machine is busy: who is in already beats.
	registering, beating := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(beating)
		again := time.NewTicker(ttl / 4)
		defer again.Stop()
		for {
			select {
			case <-again.C:
			case <-registering:
				return
			}
			for i := range int(next.Load()) { // the last few are still on their way
				_, _ = r.Heartbeat(ctx, api.InstanceKey{Namespace: "default", Service: service(i), ID: api.InstanceID("i" + strconv.Itoa(i))}, 0)
			}
		}
	}()
	all.Wait()
	registered := time.Since(begun)
	close(registering)
	<-beating
	// One last heartbeat of all, so that all deadlines are the same.
	for i := range count {
		if _, err := r.Heartbeat(ctx, api.InstanceKey{Namespace: "default", Service: service(i), ID: api.InstanceID("i" + strconv.Itoa(i))}, 0); err != nil {
			t.Fatalf("the last heartbeat of i%d: %v", i, err)
		}
	}
	deadline := time.Now().Add(ttl + api.DeadlineGrace)
	gaps := r.checks.gaps.Load()
	slow.wait.Store(int64(20 * time.Millisecond)) // a slow disk

	listed := func() (n int) {
		for i := 0; i < count; i += perService {
			snap, overlay := r.Snapshot(), r.overlay.Load()
			key := api.ServiceKey{Namespace: "default", Service: service(i)}
			n += len(seen(key, snap, snap.Endpoints(key), overlay))
		}
		return n
	}
	services := count / perService
	untilNow := func(t *testing.T, what string, done func() bool) time.Duration {
		t.Helper()
		ask := time.NewTicker(20 * time.Millisecond)
		defer ask.Stop()
		for !done() {
			if time.Since(deadline) > 4*time.Minute {
				t.Fatalf("not in four minutes: %s", what)
			}
			<-ask.C
		}
		return time.Since(deadline)
	}
	if n := listed(); n != count {
		t.Fatalf("%d of %d are listed before the deadline", n, count)
	}
	// The last one of each service stays: a service is never emptied in one window (P7).
	readers := untilNow(t, "answers leave out who is silent", func() bool { return listed() <= services })
	granted := r.checks.gaps.Load()
	_, stored := r.Snapshot().Len()
	var writes []time.Duration
	for i := 0; i < 20; i++ { // newcomers, while the deletes go on
		begun := time.Now()
		if _, _, err := r.Register(ctx, ikey("new", fmt.Sprintf("n%d", i)), reg()); err != nil {
			t.Errorf("P1: a registration during the deletes: %v", err)
		}
		writes = append(writes, time.Since(begun))
	}
	stillStored := r.Snapshot().Counts().Total
	storeEmpty := untilNow(t, "the store has deleted them", func() bool {
		_, instances := r.Snapshot().Len()
		return instances <= services+20
	})
	slow.mu.Lock()
	most, commits := slices.Max(slow.deletes), len(slow.deletes)
	busiest := 0
	for i := range slow.at {
		n := 0
		for j := i; j < len(slow.at) && slow.at[j].Sub(slow.at[i]) < time.Second; j++ {
			n += slow.deletes[j]
		}
		busiest = max(busiest, n)
	}
	slow.mu.Unlock()
	slices.Sort(writes)
	t.Logf("%d instances registered in %s; after the common deadline answers had left them out in %s, with %d still stored; the store in %s; "+
		"%d commits of at most %d deletes, at most %d in a second; 20 registrations meanwhile (%d stored then), slowest %s",
		count, registered.Round(time.Millisecond), readers.Round(time.Millisecond), stored, storeEmpty.Round(time.Millisecond),
		commits, most, busiest, stillStored, writes[len(writes)-1].Round(time.Millisecond))
	// One second is the aim; a loaded machine is given more. Where it did not let the node run for a
	// while, everybody rightly got another TTL (P2).
	limit := 5 * time.Second
	if n := granted - gaps; n > 0 {
		limit += time.Duration(n) * (ttl + api.DeadlineGrace)
		t.Logf("the node stood still or was starved %d times meanwhile", n)
	}
	if readers > limit {
		t.Errorf("answers left the silent out only after %s, of %s", readers, limit)
	}
	if stored < count/2 {
		t.Errorf("only %d of %d were still stored: the test shows nothing of filtering", stored, count)
	}
	if most > evictBatch+store.MaxOps/2 {
		t.Errorf("P8: a commit had %d deletes", most)
	}
	// A commit that had to wait is followed by the next at once.
	if most := 1_000 + 2*evictBatch; busiest > most {
		t.Errorf("P8: %d deletes in one second, at most %d may be", busiest, most)
	}
	if slowest := writes[len(writes)-1]; slowest > writeDeadline {
		t.Errorf("P1: a registration during the deletes took %s", slowest)
	}
}
