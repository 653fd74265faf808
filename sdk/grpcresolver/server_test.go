package grpcresolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/sdktest"
)

// check is the method that the tests call: it is there without any generated code.
const check = "grpc.health.v1.Health/Check"

// server is a real gRPC server, registered with a region, that says who it is.
type server struct {
	healthpb.UnimplementedHealthServer
	t        *testing.T
	id       string
	region   string
	address  string
	instance *sdktest.Instance
	calls    atomic.Int64
	answer   atomic.Pointer[func(context.Context) error] // what to do; nil = answer

	mu    sync.Mutex
	grpc  *grpc.Server
	ended sync.WaitGroup
}

// serve starts a server and registers it as an instance of the service.
func serve(t *testing.T, r *sdktest.Region, service, id string) *server {
	t.Helper()
	s := &server{t: t, id: id, region: string(r.Name())}
	s.start()
	s.instance = r.Register(registration(service, id, s.address))
	t.Cleanup(s.kill)
	return s
}

func registration(service, id, address string) nearside.Registration {
	host, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return nearside.Registration{Service: service, ID: id, Address: host, Port: n}
}

// start listens, at the address of before if there was one.
func (s *server) start() {
	s.t.Helper()
	address := s.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address = l.Addr().String()
	s.grpc = grpc.NewServer()
	healthpb.RegisterHealthServer(s.grpc, s)
	g := s.grpc
	s.ended.Go(func() { _ = g.Serve(l) })
}

func (s *server) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s.calls.Add(1)
	_ = grpc.SetTrailer(ctx, metadata.Pairs("served-by", s.id, "served-in", s.region))
	if f := s.answer.Load(); f != nil {
		if err := (*f)(ctx); err != nil {
			return nil, err
		}
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// do makes calls do f; nil = answer again.
func (s *server) do(f func(context.Context) error) {
	if f == nil {
		s.answer.Store(nil)
		return
	}
	s.answer.Store(&f)
}

// hang answers nobody any more: calls wait as long as their callers do.
func (s *server) hang() {
	s.do(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
}

// kill breaks every connection and call, like the end of the process.
func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grpc.Stop()
	s.ended.Wait()
}

// stop lets calls end and tells callers to go away.
func (s *server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grpc.GracefulStop()
	s.ended.Wait()
}

// client returns a client at home in the region, closed after the channels of the test.
func client(t *testing.T, r *sdktest.Region, change func(*nearside.Config)) *nearside.Client {
	t.Helper()
	cfg := r.Config()
	cfg.Policy.FailbackRamp = -1
	if change != nil {
		change(&cfg)
	}
	c, err := nearside.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// channel returns a channel to the target that ends with the test.
func channel(t *testing.T, c *nearside.Client, target string, opts ...Option) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, append(DialOptions(c, opts...), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// call calls, and says who served.
func call(ctx context.Context, conn *grpc.ClientConn, opts ...grpc.CallOption) (id, region string, err error) {
	var header, trailer metadata.MD
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, append(opts, grpc.Header(&header), grpc.Trailer(&trailer))...)
	if status.Code(err) == codes.Unavailable && len(header) > 0 {
		err = fmt.Errorf("%w: %w", errBegun, err)
	}
	if v := trailer.Get("served-by"); len(v) > 0 {
		id, region = v[0], trailer.Get("served-in")[0]
	}
	return id, region, err
}

// errBegun is of a call whose answer broke off after its headers: nobody may repeat that.
var errBegun = errors.New("the answer had begun")

const limit = 30 * time.Second // of anything a test waits for

// must calls, and ends the test if that fails.
func must(t *testing.T, conn *grpc.ClientConn) (id, region string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	id, region, err := call(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	return id, region
}

// until calls until ok says so of who served.
func until(t *testing.T, conn *grpc.ClientConn, what string, ok func(id, region string) bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		id, region, err := call(ctx, conn)
		cancel()
		if err == nil && ok(id, region) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not %s within %s; the last call: %s in %s, %v", what, limit, id, region, err)
		}
	}
}

// in is for until.
func in(region string) func(string, string) bool {
	return func(_, r string) bool { return r == region }
}

// load calls from so many goroutines until it is stopped.
type load struct {
	conn    *grpc.ClientConn
	stopped atomic.Bool
	ended   sync.WaitGroup

	mu      sync.Mutex
	regions map[string]int
	ids     map[string]int
	failed  []error
	begun   int // answers that broke off; none of failed
	slowest time.Duration
}

func start(t *testing.T, conn *grpc.ClientConn, workers int) *load {
	t.Helper()
	l := &load{conn: conn, regions: map[string]int{}, ids: map[string]int{}}
	for range workers {
		l.ended.Go(func() {
			for !l.stopped.Load() {
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				began := time.Now()
				id, region, err := call(ctx, conn)
				took := time.Since(began)
				cancel()
				l.mu.Lock()
				l.regions[region]++
				l.ids[id]++
				l.slowest = max(l.slowest, took)
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

// more waits until n more calls were served in a region, and returns what was since.
func (l *load) more(t *testing.T, region string, n int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.regions[region]
	}
	want := count() + n
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); count() < want; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("no %d more calls were served in %s within %s", n, region, limit)
		}
	}
}

// failures returns what failed so far.
func (l *load) failures() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.failed)
}

// broke returns how many answers broke off after they had begun.
func (l *load) broke() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

// longest returns how long the slowest call took so far.
func (l *load) longest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slowest
}
