package grpcresolver

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/sdktest"
)

// region starts so many servers of a service in a region.
func region(t *testing.T, r *sdktest.Region, service string, n int) []*server {
	t.Helper()
	var list []*server
	for i := range n {
		list = append(list, serve(t, r, service, string(r.Name())+"-"+string(rune('a'+i))))
	}
	return list
}

// Calls stay in the caller's region, evenly, and go to the port named grpc where there is one.
func TestCallsGoToTheNearInstances(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us", "eu")
	region(t, w.Region("us"), "orders", 3)
	region(t, w.Region("eu"), "orders", 2)
	named := serve(t, w.Region("us"), "elsewhere", "us-d")
	reg := registration("orders", "us-d", "127.0.0.1:1") // nothing listens at the main port
	reg.Ports = map[string]int{PortName: registration("", "", named.address).Port}
	w.Region("us").Register(reg)
	conn := channel(t, client(t, w.Region("us"), nil), "nearside:///orders")
	got := map[string]int{}
	until(t, conn, "connected to all", func(id, _ string) bool { got[id]++; return len(got) == 4 })
	clear(got)
	for range 100 {
		id, _ := must(t, conn)
		got[id]++
	}
	for _, id := range []string{"us-a", "us-b", "us-c", "us-d"} {
		if got[id] != 25 {
			t.Errorf("%s served %d of 100 calls: %v", id, got[id], got)
		}
	}
}

// The namespace is named behind the service; a target that names nothing says how to write it.
func TestTargets(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us")
	serve(t, w.Region("us"), "orders.shop", "shop-1")
	c := client(t, w.Region("us"), nil)
	if id, _ := must(t, channel(t, c, "nearside:///orders.shop")); id != "shop-1" {
		t.Errorf("%s serves", id)
	}
	for target, want := range map[string]string{
		"nearside://orders":             "with three slashes",
		"nearside:///":                  "nearside:///service",
		"nearside:///Orders":            "nearside:///service",
		"nearside:///orders.shop.extra": "nearside:///service",
	} {
		_, _, err := call(t.Context(), channel(t, c, target))
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a word about %q", target, err, want)
		}
	}
	_, _, err := call(t.Context(), channel(t, c, "nearside:///orders", WithRetry("orders/get/it")))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "pkg.Service/Method") {
		t.Errorf("a wrong option: %v", err)
	}
}

// The promise of the module: a region dies under load, and no call fails that may be repeated. Home
// is back, and so are the calls.
func TestRegionKillUnderLoad(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us", "eu")
	us := region(t, w.Region("us"), "orders", 3)
	region(t, w.Region("eu"), "orders", 3)
	for _, retry := range []bool{false, true} {
		var opts []Option
		name := "calls that must not be repeated"
		if retry {
			opts, name = []Option{WithRetry(check)}, "calls that may be repeated"
		}
		t.Run(name, func(t *testing.T) {
			const workers = 16
			conn := channel(t, client(t, w.Region("us"), nil), "nearside:///orders", opts...)
			until(t, conn, "at home", in("us"))
			l := start(t, conn, workers)
			l.more(t, "us", 500)
			var killed sync.WaitGroup
			for _, s := range us {
				killed.Go(s.kill)
			}
			killed.Wait()
			l.more(t, "eu", 500)
			failed := l.failures()
			t.Logf("%d calls failed, %d answers broke off, %d calls were under way all the time; the slowest took %s", len(failed), l.broke(), workers, l.longest())
			if retry && len(failed) > 0 {
				t.Errorf("%d calls failed: %v", len(failed), failed[0])
			}
			if n := l.broke(); n > workers {
				t.Errorf("%d answers broke off", n)
			}
			if len(failed) > workers*len(us) {
				t.Errorf("%d calls failed, more than were under way at each server when it died: %v", len(failed), failed[0])
			}
			for _, s := range us {
				s.start()
			}
			if !retry {
				return // calls that must not be repeated come home too, seconds later
			}
			before := len(failed)
			l.more(t, "us", 500)
			l.stop()
			if n := len(l.failures()); n > before {
				t.Errorf("%d calls failed as home came back: %v", n-before, l.failures()[n-1])
			}
			until(t, conn, "all at home again", func() func(id, _ string) bool {
				row := map[string]bool{}
				return func(id, region string) bool {
					if region != "us" {
						clear(row)
					}
					row[id] = true
					return len(row) == 3
				}
			}())
		})
	}
}

// A region whose servers hang costs three calls of each server their deadline; then calls
// go to the next region, and come back when home answers.
func TestHungRegionIsLeft(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us", "eu")
	us := region(t, w.Region("us"), "orders", 2)
	region(t, w.Region("eu"), "orders", 1)
	conn := channel(t, client(t, w.Region("us"), nil), "nearside:///orders", WithRetry(check))
	until(t, conn, "at home", in("us"))
	for _, s := range us {
		s.hang()
	}
	failed := 0
	for deadline := time.Now().Add(limit); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, region, err := call(ctx, conn)
		cancel()
		if err == nil && region == "eu" {
			break
		}
		if failed++; status.Code(err) != codes.DeadlineExceeded || time.Now().After(deadline) {
			t.Fatalf("call %d: %s, %v", failed, region, err)
		}
	}
	if failed > 8 { // two may be on a slow machine
		t.Errorf("%d calls ran out of time; three of each server are enough to know", failed)
	}
	for _, s := range us {
		s.do(nil)
	}
	until(t, conn, "at home again", in("us"))
}

// Answers of the program are answers, whatever their code; a caller who gives up says nothing.
func TestErrorsOfTheProgramMoveNothing(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us", "eu")
	us := serve(t, w.Region("us"), "orders", "us-a")
	serve(t, w.Region("eu"), "orders", "eu-a")
	conn := channel(t, client(t, w.Region("us"), nil), "nearside:///orders")
	until(t, conn, "at home", in("us"))
	for code := codes.Code(1); code <= codes.Unauthenticated; code++ {
		if code == codes.Unavailable {
			continue
		}
		us.do(func(context.Context) error { return status.Error(code, "as the program says") })
		for range 12 {
			if _, _, err := call(t.Context(), conn); status.Code(err) != code {
				t.Fatalf("%v, want %s of the server at home", err, code)
			}
		}
	}
	us.hang()
	for range 12 {
		ctx, cancel := context.WithCancel(t.Context())
		before := us.calls.Load()
		done := make(chan error, 1)
		go func() { _, _, err := call(ctx, conn); done <- err }()
		tick := time.NewTicker(time.Millisecond)
		for us.calls.Load() == before {
			<-tick.C
		}
		tick.Stop()
		cancel()
		if err := <-done; status.Code(err) != codes.Canceled {
			t.Fatal(err)
		}
	}
	us.do(nil)
	if _, region := must(t, conn); region != "us" {
		t.Errorf("after all that %s serves", region)
	}
	us.do(func(context.Context) error { return status.Error(codes.Unavailable, "full") })
	until(t, conn, "away from a server that takes no calls", in("eu"))
}

// A drain moves its share and nothing fails; undone, calls are back.
func TestDrainMovesCalls(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us", "eu")
	region(t, w.Region("us"), "orders", 2)
	region(t, w.Region("eu"), "orders", 2)
	conn := channel(t, client(t, w.Region("us"), nil), "nearside:///orders")
	until(t, conn, "at home", in("us"))
	l := start(t, conn, 4)
	w.Region("us").Drain("us", 30)
	l.more(t, "eu", 50)
	w.Region("us").Drain("us", 100)
	until(t, conn, "in the next region", in("eu"))
	for range 50 {
		if _, region := must(t, conn); region != "eu" {
			t.Fatalf("a call went to the drained %s", region)
		}
	}
	w.Region("us").Drain("us", 0)
	until(t, conn, "at home again", in("us"))
	l.stop()
	if failed := l.failures(); len(failed) > 0 {
		t.Errorf("%d calls failed: %v", len(failed), failed[0])
	}
	got := map[string]int{}
	w.Region("us").Drain("us", 30)
	until(t, conn, "shared", in("eu"))
	for range 1000 {
		_, region := must(t, conn)
		got[region]++
	}
	if got["eu"] < 270 || got["eu"] > 330 {
		t.Errorf("of 1000 calls with a drain of 30 %%: %v", got)
	}
}

// A rolling restart fails no call, repeated or not: with the registration closed first, and
// with nothing but gRPC's GOAWAY.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us", "eu")
	us := region(t, w.Region("us"), "orders", 3)
	region(t, w.Region("eu"), "orders", 1)
	conn := channel(t, client(t, w.Region("us"), nil), "nearside:///orders")
	until(t, conn, "at home", in("us"))
	for _, s := range us {
		s.do(func(ctx context.Context) error { // some work, so that calls are under way
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
			}
			return nil
		})
	}
	l := start(t, conn, 8)
	for round, restarted := range [][]*server{us, us[:1]} {
		for _, s := range restarted {
			l.more(t, "us", 100)
			if round == 0 {
				s.instance.SetStatus(api.StatusDraining, "stops")
				for before := int64(-1); before != s.calls.Load(); {
					before = s.calls.Load()
					l.more(t, "us", 100)
				}
			}
			s.stop()
			l.more(t, "us", 100)
			s.start()
			s.instance.SetStatus(api.StatusPassing, "")
			want := s.calls.Load() + 10
			tick := time.NewTicker(5 * time.Millisecond)
			for deadline := time.Now().Add(limit); s.calls.Load() < want; <-tick.C {
				if time.Now().After(deadline) {
					t.Fatalf("%s is back and not called", s.id)
				}
			}
			tick.Stop()
		}
	}
	l.stop()
	if failed := l.failures(); len(failed) > 0 {
		t.Errorf("%d calls failed: %v", len(failed), failed[0])
	}
}

// tarpit accepts connections and says nothing.
func tarpit(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var ended sync.WaitGroup
	ended.Go(func() {
		var conns []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range conns {
					_ = c.Close()
				}
				return
			}
			conns = append(conns, c)
		}
	})
	t.Cleanup(func() { _ = l.Close(); ended.Wait() })
	return l.Addr().String()
}

// A fresh channel whose nearest endpoint accepts connections and says nothing (gRPC's own
// priorities take 10 s for it): the next region is there after half a second.
func TestFreshChannelToATarpit(t *testing.T) {
	t.Parallel()
	for _, warm := range []int{0, 2} {
		w := sdktest.NewWorld(t, "us", "eu")
		w.Region("us").Register(registration("orders", "us-a", tarpit(t)))
		serve(t, w.Region("eu"), "orders", "eu-a")
		conn := channel(t, client(t, w.Region("us"), nil), "nearside:///orders", WithWarm(warm))
		began := time.Now()
		if _, region := must(t, conn); region != "eu" {
			t.Errorf("%s serves", region)
		}
		took := time.Since(began)
		t.Logf("the first call took %s", took)
		if took < patience || took > 4*time.Second {
			t.Errorf("the first call took %s, want %s and what a connection takes", took, patience)
		}
		served := serve(t, w.Region("us"), "orders", "us-b")
		until(t, conn, "at the server that was added", func(id, _ string) bool { return id == served.id })
	}
}

// With nothing left a call fails as unavailable, and says why; one that waits for ready waits.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us")
	us := w.Region("us")
	c := client(t, us, nil)
	_, _, err := call(t.Context(), channel(t, c, "nearside:///nobody"))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a service that nobody has: %v", err)
	}
	only := serve(t, us, "orders", "us-a")
	conn := channel(t, c, "nearside:///orders")
	until(t, conn, "at home", in("us"))
	only.kill()
	deadline := time.Now().Add(limit)
	for _, _, err = call(t.Context(), conn); err == nil || !strings.Contains(err.Error(), "refused"); _, _, err = call(t.Context(), conn) {
		if time.Now().After(deadline) {
			t.Fatalf("no word about the refused connection: %v", err)
		}
	}
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "service orders") {
		t.Errorf("the only instance is dead: %v", err)
	}
	waits := make(chan error, 1)
	go func() {
		_, _, err := call(t.Context(), conn, grpc.WaitForReady(true))
		waits <- err
	}()
	select {
	case err := <-waits:
		t.Fatalf("a call that waits for ready did not: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	only.start()
	select {
	case err := <-waits:
		if err != nil {
			t.Errorf("the server is back: %v", err)
		}
	case <-time.After(limit):
		t.Error("the server is back and the call still waits")
	}
}

// Without any registry the first call says so within the client's two seconds; once there is
// one, calls go on by themselves. With the registry gone later nothing changes (P10).
func TestNoRegistry(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us")
	us := w.Region("us")
	serve(t, us, "orders", "us-a")
	us.Kill()
	c := client(t, us, nil)
	conn := channel(t, c, "nearside:///orders")
	_, _, err := call(t.Context(), conn)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), nearside.ErrUnreachable.Error()) {
		t.Errorf("no registry: %v", err)
	}
	us.Heal()
	until(t, conn, "served", in("us"))
	us.Kill()
	for range 100 {
		must(t, conn)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := call(t.Context(), conn); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), nearside.ErrClosed.Error()) {
		t.Errorf("the client is closed before the channel: %v", err)
	}
}

// A channel that names another balancer, or ignores service configs, is told.
func TestWrongChannels(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us")
	serve(t, w.Region("us"), "orders", "us-a")
	c := client(t, w.Region("us"), nil)
	for name, tc := range map[string]struct {
		opts []Option
		dial []grpc.DialOption
		want string
	}{
		"no service config": {nil, []grpc.DialOption{grpc.WithDisableServiceConfig()}, "WithDisableServiceConfig"},
		"not JSON":          {[]Option{WithServiceConfig("{")}, nil, "no JSON object"},
		"another balancer":  {[]Option{WithServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`)}, nil, "its own balancer"},
		"refused by gRPC":   {[]Option{WithServiceConfig(`{"methodConfig":[{"name":[{"method":"m"}]}]}`)}, nil, "service config is refused"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient("nearside:///orders", append(append(DialOptions(c, tc.opts...), grpc.WithTransportCredentials(insecure.NewCredentials())), tc.dial...)...)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, _, err := call(t.Context(), conn); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want a word about %q", err, tc.want)
			}
		})
	}
	if _, _, err := call(t.Context(), channel(t, nil, "nearside:///orders")); err == nil || !strings.Contains(err.Error(), "client is nil") {
		t.Errorf("without a client: %v", err)
	}
}

// A call's key holds its instance over channels too, where the client's balancer looks at keys.
func TestStickyKeys(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us")
	region(t, w.Region("us"), "orders", 4)
	c := client(t, w.Region("us"), func(cfg *nearside.Config) { cfg.Balancer = nearside.ConsistentHash{} })
	conn := channel(t, c, "nearside:///orders")
	seen := map[string]bool{}
	until(t, conn, "connected to all", func(id, _ string) bool { seen[id] = true; return len(seen) == 4 })
	used := map[string]bool{}
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		first := ""
		for range 20 {
			id, _, err := call(nearside.WithKey(t.Context(), key), conn)
			if err != nil {
				t.Fatal(err)
			}
			if first == "" {
				first = id
			}
			if id != first {
				t.Fatalf("key %s moved from %s to %s", key, first, id)
			}
		}
		used[first] = true
	}
	if len(used) < 2 {
		t.Errorf("all keys are at %v", used)
	}
}

// With a healthCheckConfig the channel asks each server whether it serves; without, it does not.
func TestHealthCheckOfTheChannel(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us", "eu")
	us := w.Region("us")
	serve(t, w.Region("eu"), "orders", "eu-a")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	home, said := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(home, said)
	said.SetServingStatus("orders", healthpb.HealthCheckResponse_NOT_SERVING)
	said.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	var ended sync.WaitGroup
	ended.Go(func() { _ = home.Serve(l) })
	t.Cleanup(func() { home.Stop(); ended.Wait() })
	us.Register(registration("orders", "us-a", l.Addr().String()))
	c := client(t, us, nil)
	if _, region := must(t, channel(t, c, "nearside:///orders")); region != "" { // home does not say where it is
		t.Errorf("without a health check %s serves", region)
	}
	conn := channel(t, c, "nearside:///orders", WithRetry(check), WithServiceConfig(`{"healthCheckConfig":{"serviceName":"orders"}}`))
	until(t, conn, "away from a server that says it does not serve", in("eu"))
	said.SetServingStatus("orders", healthpb.HealthCheckResponse_SERVING)
	until(t, conn, "at home once it does", in(""))
}

// A repeat goes to an instance that the call has not tried, and the last one to another region:
// three attempts are enough for a region in which nobody takes calls, before any breaker knows.
func TestRepeatsGoElsewhere(t *testing.T) {
	t.Parallel()
	w := sdktest.NewWorld(t, "us", "eu")
	us := region(t, w.Region("us"), "orders", 3)
	region(t, w.Region("eu"), "orders", 1)
	conn := channel(t, client(t, w.Region("us"), nil), "nearside:///orders", WithRetry(check))
	w.Region("us").Drain("us", 100) // so that there is a connection to eu
	until(t, conn, "in eu", in("eu"))
	w.Region("us").Drain("us", 0)
	seen := map[string]bool{}
	until(t, conn, "at home", func(id, region string) bool {
		seen[id] = region == "us"
		return seen["us-a"] && seen["us-b"] && seen["us-c"]
	})
	for _, s := range us {
		s.calls.Store(0)
		s.do(func(context.Context) error { return status.Error(codes.Unavailable, "full") })
	}
	if _, region := must(t, conn); region != "eu" {
		t.Errorf("served in %s", region)
	}
	tried := 0
	for _, s := range us {
		n := int(s.calls.Load())
		if tried += n; n > 1 {
			t.Errorf("%s was tried %d times", s.id, n)
		}
	}
	if tried != 2 {
		t.Errorf("home was tried %d times, the call has three attempts", tried)
	}
}
