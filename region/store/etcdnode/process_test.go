package etcdnode_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
)

func config(dir string) etcdnode.Config {
	return etcdnode.Config{Region: "eu-west", Node: "n1", DataDir: dir}
}

func openStore(ctx context.Context, n *etcdnode.Node) (*etcdstore.Store, error) {
	return etcdstore.Open(ctx, etcdstore.Config{Endpoints: []string{n.Endpoint()}, Region: "eu-west", RequestTimeout: time.Second})
}

// childNode is a plain etcd.
func childNode(dir string) error {
	n, err := etcdnode.Start(context.Background(), config(dir))
	if err != nil {
		return err
	}
	fmt.Println("endpoint", n.Endpoint())
	return <-n.Err()
}

// childWriter commits as fast as it can and says each revision once it is acknowledged.
func childWriter(dir string) error {
	ctx := context.Background()
	n, err := etcdnode.Start(ctx, config(dir))
	if err != nil {
		return err
	}
	s, err := openStore(ctx, n)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d/%d", w, i)
				rev, err := s.Commit(ctx, []store.Op{{Key: key, Value: []byte(key)}})
				if err != nil {
					errs <- err
					return
				}
				// One write each, so that a kill leaves whole lines.
				_, _ = os.Stdout.WriteString(fmt.Sprintf("acked %s %d\n", key, rev))
			}
		})
	}
	return <-errs
}

// childStarve lets its node start and then refuses it any further disk, as a full one would.
func childStarve(dir string) error {
	ctx := context.Background()
	cfg := config(dir)
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := etcdnode.Start(ctx, cfg)
	if err != nil {
		return err
	}
	s, err := openStore(ctx, n)
	if err != nil {
		return err
	}
	if _, err := s.Commit(ctx, []store.Op{{Key: "before", Value: []byte("1")}}); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1024, Max: 1024}); err != nil {
		return err
	}
	begun := time.Now()
	_, err = s.Commit(ctx, []store.Op{{Key: "after", Value: make([]byte, 4096)}})
	fmt.Println("commit", errors.Is(err, store.ErrUnavailable), time.Since(begun) < 3*time.Second)
	err = <-n.Err()
	fmt.Println("fatal", errors.Is(err, etcdnode.ErrFatal), err)
	_ = s.Close()
	begun = time.Now()
	_ = n.Close()
	fmt.Println("closed", time.Since(begun) < 5*time.Second)
	select {} // still alive: the parent ends it
}

// The measured baseline of a registry that lets etcd's leases decide who lives: 200
// registrations, each kept alive by another process on a lease of 5 s, do not outlive an
// 8 s pause of the etcd process. Ours must: that test is the registry's.
func TestBaselinePlainLeasesDoNotOutliveAPause(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 9 s")
	}
	const (
		count = 200
		ttl   = 5 // seconds
		pause = 8 * time.Second
	)
	c := startChild(t, "node", t.TempDir())
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{c.line("endpoint")}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()

	var keepers sync.WaitGroup
	defer keepers.Wait()
	keep, stop := context.WithCancel(ctx)
	defer stop()
	var away atomic.Bool
	for i := range count {
		lease, err := client.Grant(ctx, ttl)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Put(ctx, fmt.Sprintf("instance/%d", i), "x", clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
		// A keeper that never gives up: etcd's own would close its channel. While etcd does not
		// answer, and for a second after, it waits: whether a renewal that is already in
		// etcd's socket beats the expiry is a race that a busy machine decides.
		keepers.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-keep.Done():
					return
				}
				if away.Load() {
					continue
				}
				kctx, done := context.WithTimeout(keep, time.Second)
				_, _ = client.KeepAliveOnce(kctx, lease.ID)
				done()
			}
		})
	}
	left := func() int64 {
		t.Helper()
		resp, err := client.Get(ctx, "instance/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		return resp.Count
	}
	if n := left(); n != count {
		t.Fatalf("%d of %d registered", n, count)
	}
	gone := client.Watch(ctx, "instance/", clientv3.WithPrefix(), clientv3.WithFilterPut())

	away.Store(true)
	<-time.After(time.Second + 200*time.Millisecond) // no renewal is under way any more
	c.signal(syscall.SIGSTOP)
	<-time.After(pause) // the fault itself lasts that long
	c.signal(syscall.SIGCONT)
	resumed := time.Now()
	back := time.AfterFunc(time.Second, func() { away.Store(false) })
	defer back.Stop()
	deleted := 0
	limit := time.After(5 * time.Second)
collect:
	for deleted < count {
		select {
		case resp := <-gone:
			deleted += len(resp.Events)
		case <-limit:
			break collect
		}
	}
	took := time.Since(resumed)
	n := left()
	t.Logf("BASELINE plain etcd leases, TTL %d s, %s pause of etcd: %d of %d lost, %s after it went on", ttl, pause, count-n, count, took.Round(10*time.Millisecond))
	if n != 0 {
		t.Errorf("%d of %d are left: etcd has changed, and so has the reason for deadlines of our own", n, count)
	}
}

// P11: kill -9 at any moment loses nothing that was acknowledged.
func TestKilledNodeKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acked := make(map[string]uint64)
	take := func(line string) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "acked" {
			t.Fatalf("the child said %q", line)
		}
		rev, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil {
			t.Fatalf("the child said %q", line)
		}
		acked[f[1]] = rev
	}
	for round := range 3 {
		c := startChild(t, "writer", dir)
		for range 300 + 100*round {
			take("acked " + c.line("acked"))
		}
		for _, l := range c.kill() {
			take(l)
		}
		n, err := etcdnode.Start(t.Context(), config(dir))
		if err != nil {
			t.Fatalf("start after kill -9: %v", err)
		}
		s, err := openStore(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		img, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		have := make(map[string]uint64, len(img.Records))
		for _, r := range img.Records {
			have[r.Key] = r.Revision
		}
		lost := 0
		for key, rev := range acked {
			if have[key] < rev { // a later round may have written it again
				lost++
			}
		}
		t.Logf("kill %d: %d acknowledged, %d lost", round+1, len(acked), lost)
		if lost > 0 {
			t.Errorf("%d acknowledged commits are gone", lost)
		}
		if err := errors.Join(s.Close(), n.Close()); err != nil {
			t.Error(err)
		}
	}
}

// P10: an etcd that cannot write does not take the process with it: it is told of, calls
// fail in time, and the next start has everything that was acknowledged.
func TestFatalEtcdIsReportedAndEndsNothingElse(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, "starve", dir)
	if got := c.line("commit"); got != "true true" {
		t.Errorf("commit without disk: unavailable, in time: %s", got)
	}
	got := c.line("fatal")
	t.Log(got)
	if !strings.HasPrefix(got, "true ") || !strings.Contains(got, dir) {
		t.Errorf("told of the fatal end: %s", got)
	}
	if got := c.line("closed"); got != "true" {
		t.Errorf("close took too long: %s", got)
	}
	c.kill()

	n, err := etcdnode.Start(t.Context(), config(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	s, err := openStore(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if img, err := s.Load(t.Context()); err != nil || len(img.Records) == 0 || img.Records[len(img.Records)-1].Key != "before" {
		t.Errorf("after the next start: %v, %v", img.Records, err)
	}
}

// A stopped process still owns its directory; a killed one does not.
func TestSecondProcessIsRefusedWhileTheFirstLives(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, "node", dir)
	c.line("endpoint")
	c.signal(syscall.SIGSTOP)
	begun := time.Now()
	_, err := etcdnode.Start(t.Context(), config(dir))
	if !errors.Is(err, etcdnode.ErrLocked) {
		t.Fatalf("a second process: %v", err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %s to say so", took)
	}
	for _, want := range []string{dir, strconv.Itoa(c.cmd.Process.Pid), "--data-dir"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	c.kill()
	n, err := etcdnode.Start(t.Context(), config(dir))
	if err != nil {
		t.Fatalf("after kill -9: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
