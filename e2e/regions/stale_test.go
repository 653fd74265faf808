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
	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// mover is a program whose SDK client asks all the time, and which remembers the newest version of each
// region that it was shown.
type mover struct {
	stop  context.CancelFunc
	ended sync.WaitGroup

	mu     sync.Mutex
	asked  int
	newest map[api.Region]api.Version
	most   int // endpoints of the newest answer
	broken []string
}

func move(t *testing.T, client *nearside.Client, service string) *mover {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	m := &mover{stop: stop, newest: map[api.Region]api.Version{}}
	t.Cleanup(m.end)
	m.ended.Go(func() {
		each := time.NewTicker(5 * time.Millisecond)
		defer each.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-each.C:
			}
			r, err := client.Resolve(ctx, service)
			if ctx.Err() != nil {
				return
			}
			m.mu.Lock()
			m.asked++
			if err != nil || len(r.Endpoints) == 0 {
				m.blame("P3: %d endpoints, %v", len(r.Endpoints), err)
			}
			for _, v := range r.Views {
				if v.Epoch.IsZero() {
					continue
				}
				was, now := m.newest[v.Region], v.Version()
				if !was.IsZero() && now.Compare(was) == api.Older {
					m.blame("P4: shown %s after %s", now, was)
				}
				m.newest[v.Region] = now
			}
			// The test only ever adds instances.
			if len(r.Endpoints) < m.most {
				m.blame("P4: %d endpoints after %d", len(r.Endpoints), m.most)
			}
			m.most = max(m.most, len(r.Endpoints))
			m.mu.Unlock()
		}
	})
	return m
}

func (m *mover) blame(format string, args ...any) {
	if len(m.broken) < 10 {
		m.broken = append(m.broken, fmt.Sprintf(format, args...))
	}
}

func (m *mover) sees(count int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.most < count {
		return fmt.Errorf("it was shown %d of %d instances", m.most, count)
	}
	return nil
}

func (m *mover) end() {
	m.stop()
	m.ended.Wait()
}

// P3, P4, test 16: a client moves between regions while they are cut off from each other. What us-east
// knows of eu-west is old, ap-south knows more; the client loses us-east, learns from ap-south what is newer,
// and comes back: it is never shown the older of the two again.
func TestStaleNeverFresher(t *testing.T) {
	t.Parallel() // it waits more than it works
	w := newWorld(t, us, eu, ap)
	w.StartAll()
	add := func(n int) {
		t.Helper()
		w.clients[eu].Register("orders", fmt.Sprintf("o-%d", n), api.Registration{Address: "127.0.0.1", Port: 1000 + n, TTL: api.Duration(api.MaxTTL)})
		var l api.InstanceList
		if _, err := w.clients[eu].Do(http.MethodGet, api.PathInstances("orders")+"?consistency=strong", nil, &l); err != nil || len(l.Instances) != n {
			t.Fatalf("P1, P4: a strong read after %d registrations shows %d, %v", n, len(l.Instances), err)
		}
	}
	count := 1
	add(count)
	w.awaitAgreement("at the start")
	client, err := nearside.New(nearside.Config{Addresses: []string{w.Node(us).URL()}, Region: us})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Resolve(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	m := move(t, client, "orders")
	rounds := 0
	soak := cluster.SoakFor(t, 0)
	for begun := time.Now(); rounds < 2 || time.Since(begun) < soak && count < 30; rounds++ {
		for _, way := range [][2]api.Region{{eu, us}, {us, eu}, {ap, us}, {us, ap}} {
			w.links.Clog(way[0], way[1]) // us-east hears of nobody
		}
		count++
		add(count)
		cluster.Within(t, patience, "ap-south knows it", func() error {
			n, err := w.clients[ap].Resolvable("orders")
			if err == nil && n != count {
				err = fmt.Errorf("%d of %d", n, count)
			}
			return err
		})
		w.Node(us).Kill()
		cluster.Within(t, patience, "the client asks ap-south", func() error { return m.sees(count) })
		w.Node(us).Start() // with what its disk says of eu-west
		// It comes home, where less is known; that shows as nothing.
		cluster.Within(t, patience, "the client is home again", func() error {
			r, err := client.Resolve(t.Context(), "orders")
			if err != nil {
				return err
			}
			for _, v := range r.Views {
				if v.Region == us && v.State == api.AgeFresh && v.AgeMS < 1000 {
					return nil
				}
			}
			return fmt.Errorf("%+v", r.Views)
		})
		if n, err := w.clients[us].Resolvable("orders"); err == nil && n >= count {
			t.Fatalf("us-east should not know yet: %d of %d", n, count)
		}
		pass(500 * time.Millisecond)
		for _, way := range [][2]api.Region{{eu, us}, {us, eu}, {ap, us}, {us, ap}} {
			w.links.Unclog(way[0], way[1])
		}
		w.awaitAgreement("after the heal")
	}
	m.end()
	for _, b := range m.broken {
		t.Error(b)
	}
	t.Logf("%d answers over %d moves there and back, none older than one before it", m.asked, rounds)
}

// P1, P4, test 16: inside a region of three nodes one stands still while the others take registrations,
// and is asked the moment it goes on. A strong read of it has them all, or is refused; a read that
// names a revision has that; an SDK that moves among them is never shown less than before.
func TestStaleNeverFresherInsideARegion(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.NewRegion(t, us, 3)
	c.StartAll()
	nodes := c.Nodes(us)
	clients := make([]*cluster.HTTP, len(nodes))
	var addresses []string
	for i, n := range nodes {
		clients[i] = n.Client()
		addresses = append(addresses, n.URL())
	}
	count := 0
	var last uint64
	// add registers one instance at a node, which may have to wait for a leader, and notes its revision.
	add := func(at *cluster.HTTP) {
		t.Helper()
		id := api.InstanceID(fmt.Sprintf("o-%d", count+1))
		var in api.Instance
		cluster.Within(t, patience, "a registration is acknowledged", func() error {
			_, err := at.Do(http.MethodPut, api.PathInstance("orders", id), api.Registration{Address: "127.0.0.1", Port: 1000 + count, TTL: api.Duration(api.MaxTTL)}, &in)
			return err
		})
		count++
		last = max(last, in.Revision)
	}
	add(clients[0])
	client, err := nearside.New(nearside.Config{Addresses: addresses, Region: us})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// Where other stories have the processors a first answer may take longer than a first use waits.
	cluster.Within(t, patience, "the client knows the service", func() error {
		_, err := client.Resolve(t.Context(), "orders")
		return err
	})
	m := move(t, client, "orders")
	strong, refused, named := 0, 0, 0
	soak := cluster.SoakFor(t, 0)
	rounds := 0
	for begun := time.Now(); rounds < 3 || time.Since(begun) < soak && count < 200; rounds++ {
		still := rounds % len(nodes)
		nodes[still].Pause()
		pass(time.Second)
		for range 3 {
			add(clients[(still+1)%len(nodes)])
		}
		nodes[still].Resume()
		for begun := time.Now(); time.Since(begun) < time.Second; {
			var l api.InstanceList
			_, err := clients[still].Do(http.MethodGet, api.PathInstances("orders")+"?consistency=strong", nil, &l)
			var e *api.Error
			switch {
			case err == nil && len(l.Instances) != count:
				t.Fatalf("P4: a strong read at %s shows %d of %d instances", nodes[still].Name, len(l.Instances), count)
			case err == nil:
				strong++
			case errors.As(err, &e) && e.Code.Retryable():
				refused++
			default:
				t.Fatalf("a strong read at %s: %v", nodes[still].Name, err)
			}
			_, err = clients[still].Do(http.MethodGet, api.PathInstances("orders")+fmt.Sprintf("?min_revision=%d", last), nil, &l)
			switch {
			case err == nil && len(l.Instances) != count:
				t.Fatalf("P4: a read at %s that names revision %d shows %d of %d instances", nodes[still].Name, last, len(l.Instances), count)
			case err == nil:
				named++
			case errors.As(err, &e) && e.Code.Retryable():
				refused++
			default:
				t.Fatalf("a read at %s that names a revision: %v", nodes[still].Name, err)
			}
			pass(10 * time.Millisecond)
		}
	}
	cluster.Within(t, patience, "the client sees all", func() error { return m.sees(count) })
	m.end()
	for _, b := range m.broken {
		t.Error(b)
	}
	t.Logf("%d rounds: %d strong reads and %d with a revision had everything, %d were refused; %d answers of the SDK, none older than one before it", rounds, strong, named, refused, m.asked)
}
