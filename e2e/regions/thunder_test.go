package regions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// gauge counts the requests of many clients to a registry, by slices of 100 ms, and what
// they were told.
type gauge struct {
	http.RoundTripper

	mu      sync.Mutex
	slices  map[int64]int
	shed    int // told to come later
	unkind  int // of these, without saying when
	refused int // no connection, or no answer
}

func slice(t time.Time) int64 { return t.UnixMilli() / 100 }

func (g *gauge) RoundTrip(r *http.Request) (*http.Response, error) {
	now := slice(time.Now())
	g.mu.Lock()
	g.slices[now]++
	g.mu.Unlock()
	resp, err := g.RoundTripper.RoundTrip(r)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err != nil:
		g.refused++
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusServiceUnavailable:
		g.shed++
		if resp.Header.Get("Retry-After") == "" {
			g.unkind++
		}
	}
	return resp, err
}

// between returns the requests from one time to another: all, of the busiest 100 ms, and of the
// busiest second.
func (g *gauge) between(from, to time.Time) (all, busiest, second int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := slice(from); s < slice(to); s++ {
		all += g.slices[s]
		busiest = max(busiest, g.slices[s])
		sum := 0
		for k := s; k < s+10; k++ {
			sum += g.slices[k]
		}
		second = max(second, sum)
	}
	return all, busiest, second
}

// spread returns how long it took from a tenth of the requests between two times to nine tenths.
func (g *gauge) spread(from, to time.Time) time.Duration {
	all, _, _ := g.between(from, to)
	g.mu.Lock()
	defer g.mu.Unlock()
	var first, last int64
	sum := 0
	for s := slice(from); s < slice(to); s++ {
		sum += g.slices[s]
		if first == 0 && sum*10 >= all {
			first = s
		}
		if last == 0 && sum*10 >= 9*all {
			last = s
		}
	}
	return time.Duration(last-first) * 100 * time.Millisecond
}

// P1, P3, P8, P11, test 19 and catalogue row 43: a thousand real SDK clients, a tenth of which are registered
// too, lose their registry, which is killed, for a while. It comes back with room for the watches of six in ten, and
// does without anybody's help: they come one after the other, those without room are told so and when to
// come again, and poll; nobody's registration is lost; resolves never fail.
func TestThunderReconnect(t *testing.T) {
	t.Parallel() // it waits more than it works
	const programs, registered, room = 1000, 100, 600
	c := cluster.New(t, us)
	n := c.Node(us)
	n.Extra = []string{"--test-max-watches", fmt.Sprint(room)}
	n.Start()
	h := n.Client()
	fill(t, h, "orders", 5, nil)
	tr := &http.Transport{MaxIdleConnsPerHost: programs}
	t.Cleanup(tr.CloseIdleConnections)
	g := &gauge{RoundTripper: tr, slices: map[int64]int{}}
	clients := make([]*nearside.Client, programs)
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	for i := range clients {
		client, err := nearside.New(nearside.Config{Addresses: []string{n.URL()}, Region: us, HTTPClient: &http.Client{Transport: g}})
		if err != nil {
			t.Fatal(err)
		}
		clients[i] = client
		wg.Go(func() {
			// The first use of a service waits 2 s at most: a thousand at once may take longer. After
			// that the answer comes at once, and who asks on without a pause leaves no processor for
			// what is waited for.
			_, err := client.Resolve(ctx, "orders")
			for errors.Is(err, nearside.ErrUnreachable) && ctx.Err() == nil {
				pass(100 * time.Millisecond)
				_, err = client.Resolve(ctx, "orders")
			}
			if err != nil {
				t.Errorf("P3: before anything happened: %v", err)
			}
			if i < registered {
				_, err := client.Register(ctx, nearside.Registration{
					Service: "web", ID: fmt.Sprintf("web-%d", i), Address: "127.0.0.1", Port: 1000 + i, TTL: 15 * time.Second,
				})
				if err != nil {
					t.Errorf("P1: before anything happened: %v", err)
				}
			}
		})
	}
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for _, client := range clients {
			wg.Go(func() { _ = client.Close() })
		}
		wg.Wait()
	})
	wg.Wait()
	asked, _, _ := g.between(began, time.Now())
	t.Logf("all have begun %s after the first, with %d requests", time.Since(began).Round(time.Millisecond), asked)
	// heard returns how many have heard of home since a time; all must resolve.
	heard := func(since time.Time) (count int) {
		t.Helper()
		for i, client := range clients {
			r, err := client.Resolve(t.Context(), "orders")
			if err != nil || len(r.Endpoints) != 5 {
				t.Fatalf("P3: client %d resolves %d endpoints, %v", i, len(r.Endpoints), err)
			}
			for _, v := range r.Views {
				if v.Region == us && time.Duration(v.AgeMS)*time.Millisecond < time.Since(since) {
					count++
				}
			}
		}
		return count
	}
	pass(2 * time.Second) // those that got no watch have begun to poll
	quiet := time.Now()
	hold := cluster.SoakFor(t, 2*time.Second)
	pass(min(hold, 30*time.Second))
	killed := time.Now()
	steady, _, _ := g.between(quiet, killed)
	perSecond := float64(steady) / killed.Sub(quiet).Seconds()
	n.Kill()
	for time.Since(killed) < min(hold+2*time.Second, 30*time.Second) {
		heard(killed)
		pass(100 * time.Millisecond)
	}
	n.Launch()
	n.AwaitReady()
	back := time.Now()
	var most time.Duration
	cluster.Within(t, patience, "P11: every client has heard of its registry again", func() error {
		count := heard(back)
		if most == 0 && count >= programs*99/100 {
			most = time.Since(back)
		}
		if count < programs {
			return fmt.Errorf("%d of %d", count, programs)
		}
		return nil
	})
	all := time.Since(back)
	cluster.Within(t, patience, "P1: every registration is there", func() error {
		l, err := h.Instances("web")
		if err == nil && len(l.Instances) != registered {
			err = fmt.Errorf("%d of %d", len(l.Instances), registered)
		}
		return err
	})
	requests, busiest, peak := g.between(back, time.Now())
	spread := g.spread(back, time.Now())
	t.Logf("%d real clients: 99 %% had their registry %s after it was ready, all %s; requests: steady %.0f/s, peak %d/s (x %.1f), %d in the busiest 100 ms of %d, eight tenths of them within %s; shed %d with 429 or 503, %d of them without Retry-After; %d without an answer in the outage",
		programs, most.Round(time.Millisecond), all.Round(time.Millisecond), perSecond, peak, float64(peak)/max(perSecond, 1), busiest, requests, spread, g.shed, g.unkind, g.refused)
	if g.shed == 0 || g.unkind > 0 {
		t.Errorf("P8: of %d clients, %d had room; %d were told to come later, %d of them not when", programs, room, g.shed, g.unkind)
	}
	if spread < 500*time.Millisecond {
		t.Errorf("P8: eight tenths of the requests came within %s: they come together", spread)
	}
	if peak > 4*programs {
		t.Errorf("P8: %d requests within a second", peak)
	}
}

// P6, P8, P10 and catalogue row 58: forty regions without anything want everything from one peer at the same
// time. All of them get it, those that are too many later; the peer's local answers do not wait for them.
func TestAllRegionsResyncOnePeer(t *testing.T) {
	t.Parallel() // it waits more than it works
	cluster.Seedless(t)
	const readers, services = 40, 1000
	c := cluster.New(t, eu)
	c.StartAll()
	h := c.Node(eu).Client()
	for i := range services / 100 {
		var b api.Batch
		for k := range 200 {
			s := fmt.Sprintf("service-%d", i*100+k/2)
			b.Instances = append(b.Instances, api.BatchRegistration{
				Service: api.ServiceName(s), ID: api.InstanceID(fmt.Sprintf("%s-%d", s, k)),
				Registration: api.Registration{Address: "127.0.0.1", Port: 10000 + k, TTL: api.Duration(api.MaxTTL)},
			})
		}
		eventually(t, "services are registered", func() error {
			_, err := h.Do(http.MethodPost, api.PathBatchRegister, b, nil)
			return err
		})
	}
	resolve := func() time.Duration {
		t.Helper()
		began := time.Now()
		if _, err := h.Resolvable("service-7"); err != nil {
			t.Fatalf("P10: %v", err)
		}
		return time.Since(began)
	}
	var quiet, meanwhile []time.Duration
	for range 300 {
		quiet = append(quiet, resolve())
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	base := "http://" + c.Node(eu).Federation
	client := peer.NewClient(nil, nil)
	defer client.CloseIdle()
	var wg sync.WaitGroup
	began := time.Now()
	type got struct {
		took    time.Duration
		waited  int
		failed  int // streams that broke off before all was there
		streams int
		bytes   int
		rows    int
		err     error
	}
	results := make([]got, readers)
	for i := range readers {
		wg.Go(func() {
			r := &results[i]
			reader := api.Region(fmt.Sprintf("reader-%d", i))
			rep := replica.New(reader, eu, time.Now())
			for r.err == nil {
				r.streams++
				done, wait, err := follow(ctx, client, base, reader, rep, &r.bytes)
				if done {
					break
				}
				if wait > 0 {
					r.waited++
				} else if ctx.Err() != nil || err == nil {
					r.err = errors.Join(err, ctx.Err(), errors.New("not synced"))
					break
				} else {
					r.failed++
				}
				t := time.NewTimer(max(wait, 50*time.Millisecond))
				select {
				case <-t.C:
				case <-ctx.Done():
				}
				t.Stop()
			}
			r.took, r.rows = time.Since(began), rep.View().Rows
		})
	}
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }()
	for open := true; open; {
		meanwhile = append(meanwhile, resolve())
		select {
		case <-all:
			open = false
		case <-time.After(2 * time.Millisecond):
		}
	}
	var took []time.Duration
	waited, failed, streams, bytes := 0, 0, 0, 0
	for i, r := range results {
		if r.err != nil || r.rows != services {
			t.Errorf("P6: reader %d has %d of %d rows: %v", i, r.rows, services, r.err)
		}
		took = append(took, r.took)
		waited, failed, streams, bytes = waited+r.waited, failed+r.failed, streams+r.streams, bytes+r.bytes
	}
	asQuick(t, "while forty regions resynchronise", quiet, meanwhile)
	// On a machine that is starved a stream may break off for silence; most must not.
	if streams < readers || waited+failed != streams-readers || failed > readers {
		t.Errorf("P8: %d streams of %d readers, %d were told to come later, %d broke off", streams, readers, waited, failed)
	}
	t.Logf("%d readers x %d services, %.1f MiB: p50 %s, last %s; %d were told to come later, %d streams; local resolve p99 %s before, %s meanwhile (%d, none failed)",
		readers, services, float64(bytes)/(1<<20), cluster.Percentile(took, 0.5).Round(time.Millisecond), cluster.Percentile(took, 1).Round(time.Millisecond), waited, streams,
		cluster.Percentile(quiet, 0.99).Round(10*time.Microsecond), cluster.Percentile(meanwhile, 0.99).Round(10*time.Microsecond), len(meanwhile))
}

// follow opens one stream and takes frames until the replica has what its origin has; wait is how
// long it was asked to stay away.
func follow(ctx context.Context, client *peer.Client, base string, reader api.Region, rep *replica.Replica, bytes *int) (done bool, wait time.Duration, err error) {
	rep.Disconnect()
	ask := rep.Ask()
	stream, err := client.Open(ctx, base, peer.Query{
		Reader: reader, Node: "n", Origin: eu, Have: ask.Have, Digest: ask.Digest, Term: ask.Term, Sums: ask.Sums, Full: ask.Full,
		Holding: ask.Holding, At: ask.At, Can: ask.Can,
	}, func(n int) { *bytes += n })
	if err != nil {
		var e *api.Error
		if errors.As(err, &e) && e.Code.Retryable() {
			wait = 200 * time.Millisecond
		}
		return false, wait, err
	}
	defer stream.Close()
	rep.Connect(time.Now())
	for {
		f, err := stream.Next()
		if err != nil {
			return false, 0, err
		}
		eff := rep.Step(f, time.Now())
		switch {
		case eff.Confirmed:
			return true, 0, nil
		case eff.Goodbye:
			return false, max(eff.RetryAfter, time.Millisecond), nil
		case eff.Err != nil:
			return false, 0, eff.Err
		}
	}
}
