package grpcresolver

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/balancer"
	_ "google.golang.org/grpc/balancer/roundrobin" // the yardstick
	"google.golang.org/grpc/connectivity"
	estats "google.golang.org/grpc/experimental/stats"
	"google.golang.org/grpc/resolver"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/sdktest"
)

// fakeChannel is what a balancer sees of a channel whose connections are all ready a moment
// after they are wanted; unless connect says otherwise.
type fakeChannel struct {
	balancer.ClientConn
	connect func(*fakeConn) // runs for every Connect, on a goroutine of its own

	mu    sync.Mutex
	state balancer.State
	news  chan struct{} // closed at the next state
	conns []*fakeConn
	ended sync.WaitGroup
}

func newFakeChannel() *fakeChannel {
	return &fakeChannel{news: make(chan struct{}), connect: func(c *fakeConn) { c.tell(connectivity.Connecting, nil); c.tell(connectivity.Ready, nil) }}
}

type fakeConn struct {
	balancer.SubConn
	cc      *fakeChannel
	address string
	listen  func(balancer.SubConnState)

	mu       sync.Mutex
	connects int
	shut     bool
}

func (f *fakeChannel) NewSubConn(a []resolver.Address, o balancer.NewSubConnOptions) (balancer.SubConn, error) {
	c := &fakeConn{cc: f, address: a[0].Addr, listen: o.StateListener}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
	return c, nil
}

func (f *fakeChannel) UpdateState(s balancer.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
	close(f.news)
	f.news = make(chan struct{})
}

func (f *fakeChannel) ResolveNow(resolver.ResolveNowOptions)   {}
func (f *fakeChannel) Target() string                          { return "nearside:///orders" }
func (f *fakeChannel) MetricsRecorder() estats.MetricsRecorder { return nil }

func (c *fakeConn) Connect() {
	c.mu.Lock()
	c.connects++
	c.mu.Unlock()
	c.cc.ended.Go(func() { c.cc.connect(c) })
}

func (c *fakeConn) Shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
}

func (c *fakeConn) tell(s connectivity.State, err error) {
	c.mu.Lock()
	shut := c.shut
	c.mu.Unlock()
	if !shut {
		c.listen(balancer.SubConnState{ConnectivityState: s, ConnectionError: err})
	}
}

func (c *fakeConn) UpdateAddresses([]resolver.Address) {}
func (c *fakeConn) GetOrBuildProducer(balancer.ProducerBuilder) (balancer.Producer, func()) {
	return nil, func() {}
}

func (c *fakeConn) RegisterHealthListener(f func(balancer.SubConnState)) {
	c.cc.ended.Go(func() { f(balancer.SubConnState{ConnectivityState: connectivity.Ready}) })
}

// picker waits until calls reach n connections, and returns the picker they have then.
func (f *fakeChannel) picker(tb testing.TB, n int) balancer.Picker {
	tb.Helper()
	for deadline := time.After(limit); ; {
		f.mu.Lock()
		s, news := f.state, f.news
		f.mu.Unlock()
		if s.ConnectivityState == connectivity.Ready {
			seen := map[balancer.SubConn]bool{}
			for range 4 * n {
				r, err := s.Picker.Pick(balancer.PickInfo{Ctx: context.Background()})
				if err != nil {
					break
				}
				seen[r.SubConn] = true
				if r.Done != nil {
					r.Done(balancer.DoneInfo{BytesSent: true, BytesReceived: true})
				}
			}
			if len(seen) == n {
				return s.Picker
			}
		}
		select {
		case <-news:
		case <-deadline:
			tb.Fatalf("no picker for %d connections; the state is %s", n, s.ConnectivityState)
		}
	}
}

// BenchmarkPicker: what a call pays for its instance, with the report of its end, beside
// grpc-go's own round robin over the same number of connections in the same run. That one
// knows no regions, shares, breakers and reports.
func BenchmarkPicker(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		w := sdktest.NewWorld(b, "us", "eu")
		var list []resolver.Endpoint
		for i := range n {
			w.Region("us").Register(nearside.Registration{Service: "orders", Address: "127.0.0.1", Port: i + 1})
			list = append(list, resolver.Endpoint{Addresses: []resolver.Address{{Addr: fmt.Sprintf("127.0.0.1:%d", i+1)}}})
		}
		w.Region("eu").Register(nearside.Registration{Service: "orders", Address: "127.0.0.1", Port: 2000})
		c := w.Region("us").Client()
		res, err := c.Resolve(b.Context(), "orders")
		if err != nil {
			b.Fatal(err)
		}
		set := newSettings(c, []Option{WithMaxConns(n)})
		run := func(name string, state resolver.State) {
			f := newFakeChannel()
			bal := balancer.Get(name).Build(f, balancer.BuildOptions{})
			if err := bal.UpdateClientConnState(balancer.ClientConnState{ResolverState: state}); err != nil {
				b.Fatal(err)
			}
			p := f.picker(b, n)
			info := balancer.PickInfo{FullMethodName: "/" + check, Ctx: context.Background()}
			done := balancer.DoneInfo{BytesSent: true, BytesReceived: true}
			one := func() error {
				r, err := p.Pick(info)
				if err == nil && r.Done != nil {
					r.Done(done)
				}
				return err
			}
			b.Run(fmt.Sprintf("%s/conns=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := one(); err != nil {
						b.Fatal(err)
					}
				}
			})
			if n == 100 {
				b.Run(fmt.Sprintf("%s/conns=%d, parallel", name, n), func(b *testing.B) {
					b.ReportAllocs()
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							if err := one(); err != nil {
								b.Error(err)
								return
							}
						}
					})
				})
			}
			bal.Close()
			f.ended.Wait()
		}
		run("round_robin", resolver.State{Endpoints: list})
		run(Name, (&watch{set: set, service: "orders"}).state(res))
	}
}
