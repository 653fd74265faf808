package channels

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/nearside/nearside/e2e/cluster"
	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/grpcresolver"
)

// patience is for whatever has no other bound.
const patience = time.Minute

// open returns a channel of a program at home in us, and what ends both.
func (w *world) open(opts ...grpcresolver.Option) (*grpc.ClientConn, func()) {
	w.t.Helper()
	cfg := nearside.Config{Addresses: []string{w.Node(us).URL()}, Region: us}
	cfg.Policy.FailbackRamp = -1
	client, err := nearside.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := grpc.NewClient("nearside:///"+service,
		append(grpcresolver.DialOptions(client, opts...), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		w.t.Fatal(err)
	}
	end := sync.OnceFunc(func() { _ = conn.Close(); _ = client.Close() })
	w.t.Cleanup(end)
	return conn, end
}

// call says where a call was served.
func call(conn *grpc.ClientConn, limit time.Duration) (api.Region, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var header, trailer metadata.MD
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
	if status.Code(err) == codes.Unavailable && len(header) > 0 {
		return "", fmt.Errorf("%w: %w", errBegun, err)
	}
	if err != nil {
		return "", err
	}
	return api.Region(trailer.Get("served-in")[0]), nil
}

// errBegun is of a call whose answer broke off after its headers: nobody may repeat that.
var errBegun = errors.New("the answer had begun")

// until waits until calls are served in a region.
func until(t *testing.T, conn *grpc.ClientConn, r api.Region) {
	t.Helper()
	cluster.Within(t, patience, "calls are served in "+string(r), func() error {
		got, err := call(conn, time.Second)
		if err == nil && got != r {
			err = fmt.Errorf("served in %s", got)
		}
		return err
	})
}

// load calls all the time.
type load struct {
	stopped atomic.Bool
	ended   sync.WaitGroup

	mu      sync.Mutex
	served  map[api.Region]int
	last    map[api.Region]time.Time
	failed  []error
	begun   int // answers that broke off; none of failed
	slowest time.Duration
}

func start(t *testing.T, conn *grpc.ClientConn, workers int) *load {
	l := &load{served: map[api.Region]int{}, last: map[api.Region]time.Time{}}
	for range workers {
		l.ended.Go(func() {
			for pause := time.NewTicker(4 * time.Millisecond); !l.stopped.Load(); <-pause.C {
				began := time.Now()
				r, err := call(conn, patience)
				l.mu.Lock()
				l.served[r]++
				l.last[r] = time.Now()
				l.slowest = max(l.slowest, time.Since(began))
				switch {
				case errors.Is(err, errBegun):
					l.begun++
				case err != nil:
					l.failed = append(l.failed, err)
				}
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.stopped.Store(true)
	l.ended.Wait()
}

func (l *load) in(r api.Region) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.served[r]
}

// more waits for n more calls that a region served.
func (l *load) more(t *testing.T, r api.Region, n int) {
	t.Helper()
	want := l.in(r) + n
	cluster.Within(t, patience, fmt.Sprintf("%d more calls are served in %s", n, r), func() error {
		if got := l.in(r); got < want {
			return fmt.Errorf("%d to go", want-got)
		}
		return nil
	})
}

// P3: a region dies under load, its registry and its servers in one moment: no gRPC call fails
// that may be repeated. It returns, and calls come home. Then its servers are stopped like a
// hung machine, and a program that starts in that moment is served by the next region: gRPC's
// own priorities need ten seconds for that.
func TestRegionKillOverChannels(t *testing.T) {
	w := newWorld(t)
	w.serve(us, 2)
	w.serve(eu, 2)
	conn, _ := w.open(grpcresolver.WithRetry(method))
	until(t, conn, us)
	cluster.Within(t, patience, "us knows the servers of eu", func() error {
		res, err := w.Node(us).Client().Resolve(service)
		if err == nil && len(res.Endpoints) < 4 {
			err = fmt.Errorf("%d endpoints", len(res.Endpoints))
		}
		return err
	})
	l := start(t, conn, 16)
	l.more(t, us, 300)

	w.signal(us, syscall.SIGKILL)
	w.Node(us).Kill()
	killed := time.Now()
	l.more(t, eu, 300)
	l.mu.Lock()
	last, slowest, failed, begun := l.last[us].Sub(killed), l.slowest, l.failed, l.begun
	l.mu.Unlock()
	t.Logf("region killed under 16 callers: %d calls failed, %d answers broke off, the slowest call took %s, home served last %s after the kill", len(failed), begun, slowest, last)
	if len(failed) > 0 {
		t.Errorf("%d calls failed that may be repeated: %v", len(failed), failed[0])
	}
	if slowest > 3*time.Second {
		t.Errorf("a call took %s", slowest)
	}

	w.Node(us).Start()
	w.serve(us, 2)
	l.more(t, us, 300)
	l.stop()
	if len(l.failed) > 0 {
		t.Errorf("until home was back %d calls failed: %v", len(l.failed), l.failed[0])
	}

	w.signal(us, syscall.SIGSTOP)
	fresh, end := w.open(grpcresolver.WithRetry(method))
	began := time.Now()
	r, err := call(fresh, patience)
	took := time.Since(began)
	w.signal(us, syscall.SIGCONT)
	t.Logf("a fresh channel while home's servers are stopped: served in %s after %s", r, took)
	if err != nil || r != eu {
		t.Errorf("a fresh channel while home's servers are stopped: %s, %v", r, err)
	}
	if took > 5*time.Second {
		t.Errorf("its first call took %s", took)
	}
	until(t, fresh, us)
	end()
}
