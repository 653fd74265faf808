package grpcresolver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/sdktest"
)

// Where the instances of the regions are. Nothing listens there: the client dials those that
// are said not to be reached.
var places = map[api.Region]string{"us": "127.0.0.1", "eu": "127.0.0.2", "ap": "127.0.0.3"}

const us, eu, ap = "127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"

// stage is a balancer in a bubble of its own time, with connections that do what the test
// says, and a real client that knows one instance of orders in us and one in eu.
type stage struct {
	*fakeChannel
	b      balancer.Balancer
	watch  *watch
	client *nearside.Client
}

func onStage(t *testing.T, f func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewMemoryWorld(t, "us", "eu")
		for i, r := range []api.Region{"us", "eu"} {
			w.Region(r).Register(nearside.Registration{Service: "orders", ID: fmt.Sprint(i, ".0"), Address: places[r], Port: 1})
		}
		c := w.Region("us").Client()
		if _, err := c.Resolve(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		cc := newFakeChannel()
		s := &stage{fakeChannel: cc, client: c, watch: &watch{set: newSettings(c, nil), service: "orders"}}
		s.b = balancer.Get(Name).Build(cc, balancer.BuildOptions{})
		f(t, s)
		s.b.Close()
		s.ended.Wait()
		if open := s.open(); len(open) > 0 {
			t.Errorf("open after Close: %v", open)
		}
		made := len(s.conns)
		time.Sleep(time.Hour)
		if len(s.conns) != made {
			t.Error("connections are made after Close")
		}
	})
}

// tell gives the balancer a resolution of instances that are at their region's place.
func (s *stage) tell(t *testing.T, tiers ...string) {
	t.Helper()
	s.tellRes(t, resolution(tiers...))
}

func (s *stage) tellRes(t *testing.T, res *api.Resolution) {
	t.Helper()
	for i := range res.Endpoints {
		if e := &res.Endpoints[i]; e.Address == "" {
			e.Address, e.Port = places[e.Region], 1
		}
	}
	if err := s.b.UpdateClientConnState(balancer.ClientConnState{ResolverState: s.watch.state(*res)}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// open counts the open connections by address.
func (s *stage) open() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[string]int{}
	for _, c := range s.conns {
		c.mu.Lock()
		if !c.shut {
			m[c.address]++
		}
		c.mu.Unlock()
	}
	return m
}

func (s *stage) want(t *testing.T, when string, want map[string]int) {
	t.Helper()
	synctest.Wait()
	if got := s.open(); !maps.Equal(got, want) {
		t.Errorf("%s: connections %v, want %v", when, got, want)
	}
}

// of returns the connections ever made to an address.
func (s *stage) of(address string) []*fakeConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.conns), func(c *fakeConn) bool { return c.address != address })
}

// pick picks with the newest picker.
func (s *stage) pick(t *testing.T) (balancer.PickResult, error) {
	synctest.Wait()
	s.mu.Lock()
	p := s.state.Picker
	s.mu.Unlock()
	return p.Pick(balancer.PickInfo{Ctx: t.Context()})
}

func (s *stage) is(t *testing.T, want connectivity.State) {
	t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.ConnectivityState != want {
		t.Errorf("the channel is %s, want %s", s.state.ConnectivityState, want)
	}
}

// pass lets time pass in the bubble.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// P8: what traffic has left is kept for a minute, in which it may come back, and then closed.
func TestLeftConnectionsAreClosed(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		s.tell(t, "us:3@1", "eu:3@0", "ap:3@0")
		s.want(t, "at home", map[string]int{us: 3, eu: 2})
		s.tell(t, "last us:0@0", "eu:3@1", "ap:3@0")
		s.want(t, "home is left", map[string]int{us: 3, eu: 3, ap: 2})
		pass(leaveAfter - time.Second)
		s.want(t, "for a minute", map[string]int{us: 3, eu: 3, ap: 2})
		s.tell(t, "us:3@1", "eu:3@0", "ap:3@0")
		pass(2 * time.Second)
		if n := len(s.of(us)); n != 3 {
			t.Errorf("back within a minute, %d connections were made to home", n)
		}
		pass(leaveAfter)
		s.want(t, "a minute later", map[string]int{us: 3, eu: 2})
		s.tell(t)
		s.is(t, connectivity.TransientFailure)
		pass(leaveAfter + time.Second)
		s.want(t, "the service is gone", map[string]int{})
	})
}

// A connection that breaks is made again if it is wanted, and forgotten if it is not.
func TestBrokenConnections(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		s.tell(t, "us:1@1")
		home := s.of(us)[0]
		home.tell(connectivity.Idle, nil)
		s.is(t, connectivity.Ready)
		if home.connects != 2 {
			t.Errorf("%d times connected", home.connects)
		}
		s.tell(t, "last us:0@0", "eu:1@1")
		home.tell(connectivity.Idle, nil) // the server went away
		s.want(t, "left and broken", map[string]int{eu: 1})
		// The same instance at another address is another connection; nothing twice.
		res := resolution("last us:0@0", "eu:1@1")
		res.Endpoints[0].Address, res.Endpoints[0].Port = "127.0.0.9", 2
		s.tellRes(t, res)
		s.tellRes(t, res)
		s.want(t, "moved", map[string]int{"127.0.0.9:2": 1})
	})
}

// An instance that accepts connections and says nothing: the next tier is connected to after
// half a second, and after two the client knows, and leaves it alone.
func TestConnectingHasALimit(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		answers := s.connect
		s.connect = func(c *fakeConn) {
			if c.address == us {
				c.tell(connectivity.Connecting, nil)
				return
			}
			answers(c)
		}
		s.tell(t, "us:1@1", "eu:1@0")
		s.is(t, connectivity.Connecting)
		s.want(t, "at first", map[string]int{us: 1})
		pass(patience - time.Millisecond)
		s.want(t, "before patience ends", map[string]int{us: 1})
		pass(2 * time.Millisecond)
		s.want(t, "after it", map[string]int{us: 1, eu: 1})
		s.is(t, connectivity.Ready)
		region := func() api.Region {
			res, err := s.client.Resolve(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			return res.Decision.Region
		}
		if r := region(); r != "us" {
			t.Errorf("the client is sent to %s already", r)
		}
		pass(connectLimit)
		if r := region(); r != "eu" {
			t.Errorf("after %s the client is still sent to %s", connectLimit, r)
		}
	})
}

// While nothing else is left gRPC's backoff goes by; once the client offers the instance again,
// since it has dialed it, a new connection is made at once.
func TestNoBackoffOnceTheInstanceIsOfferedAgain(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		answers := s.connect
		s.connect = func(c *fakeConn) {
			c.tell(connectivity.Connecting, nil)
			c.tell(connectivity.TransientFailure, errors.New("refused"))
		}
		s.tell(t, "last us:1@1")
		s.is(t, connectivity.TransientFailure)
		_, err := s.pick(t)
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("the last error is not told: %v", err)
		}
		s.tell(t, "last us:1@1")
		if n := len(s.of(us)); n != 1 {
			t.Errorf("%d connections were made", n)
		}
		s.of(us)[0].tell(connectivity.Idle, nil) // the backoff is over
		synctest.Wait()
		if c := s.of(us)[0]; c.connects != 2 {
			t.Errorf("after the backoff it connected %d times", c.connects)
		}
		s.connect = answers
		s.tell(t, "us:1@1")
		s.is(t, connectivity.Ready)
		if n := len(s.of(us)); n != 2 {
			t.Errorf("%d connections were made", n)
		}
		s.want(t, "offered again", map[string]int{us: 1})
	})
}

// The warm connections come after the needed ones, and calls do not take them meanwhile.
func TestWarmConnectionsWait(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		answers := s.connect
		s.connect = func(c *fakeConn) { c.tell(connectivity.Connecting, nil) }
		s.tell(t, "us:1@1", "eu:1@0")
		s.want(t, "connecting", map[string]int{us: 1})
		s.connect = answers
		s.of(us)[0].tell(connectivity.Ready, nil)
		s.want(t, "connected", map[string]int{us: 1, eu: 1})
		s.connect = func(c *fakeConn) { c.tell(connectivity.Connecting, nil) }
		s.of(us)[0].tell(connectivity.Idle, nil) // and it breaks
		if _, err := s.pick(t); !errors.Is(err, balancer.ErrNoSubConnAvailable) {
			t.Errorf("a call does not wait for home: %v", err)
		}
		pass(patience + time.Millisecond)
		r, err := s.pick(t)
		if err != nil || r.SubConn.(*fakeConn).address != eu {
			t.Fatalf("after %s: %v", patience, err)
		}
		r.Done(balancer.DoneInfo{BytesSent: true, BytesReceived: true})
	})
}

// Without the resolver of this package the balancer knows nothing, and says so.
func TestBalancerAlone(t *testing.T) {
	cc := newFakeChannel()
	b := balancer.Get(Name).Build(cc, balancer.BuildOptions{})
	defer b.Close()
	if err := b.UpdateClientConnState(balancer.ClientConnState{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cc.state.Picker.Pick(balancer.PickInfo{Ctx: t.Context()}); err == nil || !strings.Contains(err.Error(), "DialOptions") {
		t.Errorf("%v", err)
	}
}

// A server that hangs is not called while a connection to a better one is being made, and is
// when that fails: something may be better than nothing.
func TestLastResortWaitsForConnections(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		answers := s.connect
		s.connect = func(c *fakeConn) {
			if c.address == us {
				answers(c)
				return
			}
			c.tell(connectivity.Connecting, nil)
		}
		s.watch.set.warm = 0
		s.tell(t, "us:1@1", "eu:1@0")
		for range 3 {
			r, err := s.pick(t)
			if err != nil {
				t.Fatal(err)
			}
			r.Done(balancer.DoneInfo{BytesSent: true, Err: status.Error(codes.DeadlineExceeded, "hangs")})
		}
		s.tell(t, "us:0@0", "eu:1@1") // as the client decides then
		pass(patience + time.Millisecond)
		if r, err := s.pick(t); !errors.Is(err, balancer.ErrNoSubConnAvailable) {
			t.Errorf("while eu is being connected to: %+v, %v", r.SubConn, err)
		}
		pass(connectLimit)
		r, err := s.pick(t)
		if err != nil || r.SubConn.(*fakeConn).address != us {
			t.Fatalf("when eu cannot be had: %v", err)
		}
		r.Done(balancer.DoneInfo{})
	})
}
