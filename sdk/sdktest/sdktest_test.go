package sdktest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/sdktest"
)

// hello answers with the name of who serves.
func hello(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// call returns who answered.
func call(t *testing.T, web *http.Client, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := web.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// A program registers, is found, is refused when it is the older of two, and is gone after Close.
func TestAProgramLivesInTheRegion(t *testing.T) {
	r := sdktest.NewRegion(t, "eu-west")
	c := r.Client()
	reg, err := c.Register(within(t), nearside.Registration{Service: "orders", ID: "orders-1", Address: "10.0.0.7", Port: 8080, DrainDelay: -1})
	if err != nil || reg.Pending() {
		t.Fatal(reg, err)
	}
	list := r.Instances("orders")
	if len(list) != 1 || list[0].Address != "10.0.0.7" || list[0].Status != api.StatusPassing || list[0].Region != "eu-west" {
		t.Fatalf("%+v", list)
	}
	res, err := c.Resolve(within(t), "orders")
	if err != nil || len(res.Endpoints) != 1 || res.Decision.Reason != api.ReasonSameRegion {
		t.Fatalf("%+v %v", res, err)
	}
	if err := reg.SetStatus(within(t), api.StatusWarning, "slow disk"); err != nil {
		t.Fatal(err)
	}
	if got := r.Instances("orders")[0]; got.Status != api.StatusWarning || got.StatusNote != "slow disk" {
		t.Fatalf("%+v", got)
	}
	if err := reg.Close(within(t)); err != nil || len(r.Instances("orders")) != 0 {
		t.Fatal(err, r.Instances("orders"))
	}
}

// A registry that lost its memory has a new epoch, and the program registers again.
func TestWipe(t *testing.T) {
	r := sdktest.NewRegion(t, "eu-west")
	reg, err := r.Client().Register(within(t), nearside.Registration{Service: "orders", Address: "10.0.0.7", Port: 8080, TTL: time.Second, DrainDelay: -1})
	if err != nil {
		t.Fatal(err)
	}
	r.Wipe()
	if err := r.Await(within(t), "orders", func(list []api.Instance) bool { return len(list) == 1 && list[0].ID == reg.ID() }); err != nil {
		t.Fatal(err)
	}
}

// What happens to an instance reaches callers: killed, hung, critical, gone.
func TestInstancesFail(t *testing.T) {
	r := sdktest.NewRegion(t, "eu-west")
	a, b := r.Serve("orders", hello("a")), r.Serve("orders", hello("b"))
	if a.ID() != "orders-1" || b.ID() != "orders-2" || !strings.HasPrefix(a.URL(), "http://127.0.0.1:") {
		t.Fatal(a.ID(), b.ID(), a.URL())
	}
	client, err := nearside.New(func() nearside.Config {
		cfg := r.Config()
		cfg.AttemptTimeout = 50 * time.Millisecond
		return cfg
	}())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	web := &http.Client{Transport: client.Transport(nil)}

	both := map[string]bool{}
	for range 10 {
		who, err := call(t, web, "http://orders/")
		if err != nil {
			t.Fatal(err)
		}
		both[who] = true
	}
	if len(both) != 2 || a.Calls() == 0 || b.Calls() == 0 {
		t.Fatal(both, a.Calls(), b.Calls())
	}
	for name, fail := range map[string]func(){"kill": a.Kill, "hang": a.Hang} {
		fail()
		for range 6 {
			if who, err := call(t, web, "http://orders/"); err != nil || who != "b" {
				t.Fatal(name, who, err)
			}
		}
		a.Heal()
		if who, err := call(t, http.DefaultClient, a.URL()); err != nil || who != "a" {
			t.Fatal(name, "healed:", who, err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
	b.SetStatus(api.StatusCritical, "")
	b.Deregister()
	b.Deregister()
	if list := r.Instances("orders"); len(list) != 1 || list[0].ID != a.ID() {
		t.Fatalf("%+v", list)
	}
}

// Kill and Hang are what they say, on both networks: refused at once, and accepted without an answer.
func TestKilledAndHung(t *testing.T) {
	for name, start := range map[string]func(sdktest.TB, ...api.Region) *sdktest.World{"loopback": sdktest.NewWorld, "memory": sdktest.NewMemoryWorld} {
		t.Run(name, func(t *testing.T) {
			w := start(t, "eu-west")
			r := w.Region("eu-west")
			web := &http.Client{Transport: w.Transport()}
			ask := func(patience time.Duration) error {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, r.URL()+api.PathLivez, nil)
				resp, err := web.Do(req)
				if err == nil {
					_ = resp.Body.Close()
				}
				return err
			}
			if err := ask(10 * time.Second); err != nil {
				t.Fatal(err)
			}
			url := r.URL()
			r.Kill()
			if err := ask(10 * time.Second); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("killed: %v", err)
			}
			r.Heal()
			if err := ask(10 * time.Second); err != nil || r.URL() != url {
				t.Error(err, r.URL())
			}
			r.Hang() // with an idle connection to it
			if err := ask(20 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("hung, old connection: %v", err)
			}
			web.CloseIdleConnections()
			if err := ask(20 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("hung, new connection: %v", err)
			}
			r.Heal()
			if err := ask(10 * time.Second); err != nil {
				t.Error(err)
			}
			r.Hang()
			r.Kill()
			if err := ask(10 * time.Second); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("hung and killed: %v", err)
			}
		})
	}
}

// P3: the registry dies, callers do not notice; a new program starts from its snapshot.
func TestRegistryFails(t *testing.T) {
	r := sdktest.NewRegion(t, "eu-west")
	r.Serve("orders", hello("a"))
	cfg := r.Config()
	cfg.SnapshotDir = t.TempDir()
	start := func() (*nearside.Client, *http.Client) {
		c, err := nearside.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return c, &http.Client{Transport: c.Transport(nil)}
	}
	c, web := start()
	if who, err := call(t, web, "http://orders/"); err != nil || who != "a" {
		t.Fatal(who, err)
	}
	for _, fail := range []func(){r.Kill, r.Heal, r.Hang} {
		fail()
		if who, err := call(t, web, "http://orders/"); err != nil || who != "a" {
			t.Fatal(who, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c, web = start()
	defer func() { _ = c.Close() }()
	if who, err := call(t, web, "http://orders/"); err != nil || who != "a" {
		t.Fatal("from the snapshot:", who, err)
	}
}

// Refused writes and watches: a registration is pending until the store is back, and callers
// learn by polling.
func TestRefusals(t *testing.T) {
	r := sdktest.NewRegion(t, "eu-west")
	r.Serve("orders", hello("a"))
	r.FailWatches(api.CodeTooManyRequests)
	r.FailWrites(api.CodeUnavailable, 0)
	c := r.Client()
	if p, err := c.Pick(within(t), "orders"); err != nil || p.Endpoint.ID != "orders-1" {
		t.Fatal(p, err)
	} else {
		p.Done(nil)
	}
	reg, err := c.Register(within(t), nearside.Registration{Service: "shop", Address: "10.0.0.7", Port: 1, DrainDelay: -1})
	if err != nil || !reg.Pending() || len(r.Instances("shop")) != 0 {
		t.Fatal(reg, err)
	}
	r.FailWrites("", 0)
	if err := r.Await(within(t), "shop", func(l []api.Instance) bool { return len(l) == 1 }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Await(ctx, "nobody", func(l []api.Instance) bool { return len(l) == 1 }); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

// loud is a TB that ends its goroutine as a *testing.T does, and keeps what was said.
type loud struct {
	said    string
	cleanup []func()
}

func (l *loud) Helper()          {}
func (l *loud) Cleanup(f func()) { l.cleanup = append(l.cleanup, f) }
func (l *loud) Fatalf(format string, args ...any) {
	l.said = fmt.Sprintf(format, args...)
	panic(l)
}

// Mistakes of a test are told: the thing, the cause, the remedy.
func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*sdktest.World)
		want string
	}{
		"service": {func(w *sdktest.World) { w.Region("eu").Serve("Orders!", hello("")) }, "use 1 to 63 of a-z"},
		"region":  {func(w *sdktest.World) { w.Region("us") }, `no region "us"`},
		"port": {func(w *sdktest.World) {
			w.Region("eu").Register(nearside.Registration{Service: "orders", Address: "10.0.0.1"})
		}, "use 1 to 65535"},
		"no serve": {func(w *sdktest.World) {
			w.Region("eu").Register(nearside.Registration{Service: "orders", Address: "10.0.0.1", Port: 1}).Kill()
		}, "use Serve"},
		"code":     {func(w *sdktest.World) { w.Region("eu").FailWrites("bad", 0) }, "none of the codes"},
		"percent":  {func(w *sdktest.World) { w.Region("eu").Drain("eu", 101) }, "use 0 to 100"},
		"distance": {func(w *sdktest.World) { w.SetDistance("eu", "eu", 0) }, "a millisecond or more"},
		"policy":   {func(w *sdktest.World) { w.Region("eu").SetPolicy("orders", api.Policy{Allowed: []api.Region{"E"}}) }, "not a valid name"},
		"listen":   {func(w *sdktest.World) { w.Listen("nowhere") }, "nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			tb := &loud{}
			w := sdktest.NewWorld(tb, "eu")
			defer tb.cleanup[0]()
			defer func() {
				if v := recover(); v != tb || !strings.Contains(tb.said, c.want) {
					t.Errorf("%v: %q does not say %q", v, tb.said, c.want)
				}
			}()
			c.do(w)
		})
	}
	defer func() {
		if v := fmt.Sprint(recover()); !strings.Contains(v, "needs a region") {
			t.Error(v)
		}
	}()
	sdktest.NewWorld(nil)
}

// A TB that comes back from Fatalf is a *testing.T in all that counts.
var _ sdktest.TB = (*testing.T)(nil)
