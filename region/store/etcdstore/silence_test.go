package etcdstore_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/region/store/storetest"
)

// relay stands between a store and its node and can swallow everything without closing a
// connection, as a network does that lost its way.
type relay struct {
	l      net.Listener
	target string
	wg     sync.WaitGroup

	mu     sync.Mutex    // guards what follows, and target
	thawed chan struct{} // closed while bytes pass
	conns  []net.Conn
}

func startRelay(t *testing.T, endpoint string) *relay {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "relay.sock"))
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{l: l, target: strings.TrimPrefix(endpoint, "unix://"), thawed: make(chan struct{})}
	close(r.thawed)
	r.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			target := r.target
			r.mu.Unlock()
			out, err := net.Dial("unix", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, in, out)
			r.mu.Unlock()
			r.wg.Go(func() { r.pass(in, out) })
			r.wg.Go(func() { r.pass(out, in) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.thaw()
		r.mu.Lock()
		for _, c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		thawed := r.thawed
		r.mu.Unlock()
		<-thawed
		if _, err := to.Write(buf[:n]); err != nil && !errors.Is(err, io.EOF) {
			return
		}
	}
}

func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.thawed = make(chan struct{})
}

// lead makes the relay one to another node: connections break, new ones go there.
func (r *relay) lead(endpoint string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = strings.TrimPrefix(endpoint, "unix://")
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

func (r *relay) thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.thawed:
	default:
		close(r.thawed)
	}
}

// P5, P10: a store that hangs without a word is told of: calls within their time-out, a
// watch within seconds; and nothing is missed when it speaks again. A watch on a store
// that merely has nothing to tell goes on.
func TestSilentStoreIsNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 14 s")
	}
	n := startNode(t, etcdnode.Config{})
	r := startRelay(t, n.Endpoint())
	direct := n.open(t)
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{
		Endpoints: []string{"unix://" + r.l.Addr().String()}, Region: storetest.Region, RequestTimeout: 500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	head, err := s.Barrier(ctx)
	if err != nil {
		t.Fatal(err)
	}

	ended := make(chan error, 1)
	beats := make(chan uint64, 1000)
	go func() {
		ended <- s.Watch(ctx, head, func(store.Batch) error { return errors.New("told of a batch that never was") },
			func(rev uint64) { beats <- rev })
	}()
	// Quiet for longer than the silence that ends a watch.
	for range 7 {
		select {
		case <-beats:
		case err := <-ended:
			t.Fatalf("a quiet watch ended: %v", err)
		}
	}

	r.freeze()
	begun := time.Now()
	if _, err := s.Commit(ctx, []store.Op{{Key: "a"}}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("commit: %v", err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("commit took %s", took)
	}
	err = <-ended
	t.Logf("a watch noticed after %s: %v", time.Since(begun).Round(time.Millisecond), err)
	if !errors.Is(err, store.ErrUnavailable) || time.Since(begun) > 8*time.Second {
		t.Errorf("the watch ended after %s with %v", time.Since(begun), err)
	}
	rev, err := direct.Commit(ctx, []store.Op{{Key: "b"}})
	if err != nil {
		t.Fatal(err)
	}

	r.thaw()
	begun = time.Now()
	found := errors.New("found")
	for {
		err = s.Watch(ctx, head, func(b store.Batch) error {
			if b.Revision == rev {
				return found
			}
			return nil // the commit whose answer was lost
		}, nil)
		if !errors.Is(err, store.ErrUnavailable) {
			break
		}
	}
	if !errors.Is(err, found) {
		t.Errorf("resumed: %v", err)
	}
	t.Logf("resumed after %s", time.Since(begun).Round(time.Millisecond))
}

// P4: when an older copy of the store takes its place under a running watch, the watch says
// so. A revision below what was seen is no sign of life: the next writes would come under
// revisions that were told already, and be dropped.
func TestHistoryThatWentBackEndsARunningWatch(t *testing.T) {
	now, backup := startNode(t, etcdnode.Config{}), startNode(t, etcdnode.Config{})
	r := startRelay(t, now.Endpoint())
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{
		Endpoints: []string{"unix://" + r.l.Addr().String()}, Region: storetest.Region, RequestTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	backup.open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last uint64
	for range 20 {
		if last, err = s.Commit(ctx, []store.Op{{Key: "a"}}); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(chan uint64, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, last-1, func(b store.Batch) error { seen <- b.Revision; return nil }, nil)
	}()
	if rev := <-seen; rev != last {
		t.Fatalf("told of %d, want %d", rev, last)
	}
	r.lead(backup.Endpoint())
	begun := time.Now()
	if err := <-ended; !errors.Is(err, store.ErrCompacted) {
		t.Errorf("the watch ended with %v", err)
	}
	t.Logf("noticed after %s", time.Since(begun).Round(time.Millisecond))
}
