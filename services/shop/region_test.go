package shop

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/region/httpapi"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// realRegion serves a registry in memory, and returns its base URL.
func realRegion(t *testing.T, name api.Region) string {
	t.Helper()
	store, err := memstore.New(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + l.Addr().String()
	reg, err := registry.New(registry.Config{Region: name, Node: "n1", Store: store, Addresses: []string{base}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	door, err := httpapi.New(httpapi.Config{Registry: reg, Region: name, Node: "n1", Closing: ctx})
	if err != nil {
		t.Fatal(err)
	}
	srv := httpapi.Server(door)
	var running sync.WaitGroup
	running.Go(func() { _ = reg.Run(ctx) })
	running.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		cancel()
		_ = srv.Close()
		running.Wait()
		_ = store.Close()
	})
	select {
	case <-reg.Loaded():
	case <-time.After(5 * time.Second):
		t.Fatal("the registry is not loaded after 5 s")
	}
	return base
}

// The whole shop on a real registry, with the SDK: a copy that leaves in the middle of the
// rush costs no call; one request is one trace; who left is known to have left.
//
// The load is open: calls come at their rate whatever becomes of them, and each try at an
// instance has half a second. So a machine that cannot carry the rate (the race detector,
// other tests beside this one) fails calls for want of time, and says nothing of leaving. It
// shows in the median, which is some milliseconds where the rate is carried. Then the rush is
// repeated at half the rate.
func TestShopOnARealRegion(t *testing.T) {
	const carried = 150.0 // milliseconds; a median above is a queue
	for rate := 100.0; ; rate /= 2 {
		final, wrong := rush(t, rate)
		t.Logf("%.1f calls/s: %d calls, %d failed, median %.0f ms", rate, final.Requests, final.Failed+final.Refused, final.P50MS)
		if final.P50MS > carried && rate > 10 {
			t.Logf("this machine does not carry %.1f calls/s: half of that is tried", rate)
			continue
		}
		for _, w := range wrong {
			t.Error(w)
		}
		return
	}
}

// rush opens two copies of the shop, closes one in the middle of three seconds of load, and
// returns what the load tells and what is wrong with it.
func rush(t *testing.T, rate float64) (final Tick, wrong []string) {
	t.Helper()
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	base := realRegion(t, "eu-west")
	n := newTown(t) // only for its HTTP client
	file := filepath.Join(t.TempDir(), "spans.ndjson")
	cfg := Config{Region: "eu-west", Registry: []string{base}, SnapshotDir: t.TempDir()}
	ready, stopA := openOn(t, dialRegion, cfg)
	cfg.Instance, cfg.TraceFile = "b", file
	_, stopB := openOn(t, dialRegion, cfg)

	out := &report{begun: make(chan struct{})}
	loaded := make(chan error, 1)
	go func() {
		loaded <- Load(t.Context(), LoadConfig{
			Region: "eu-west", Registry: []string{base}, Rate: rate, Duration: 3 * time.Second, Out: out, Seed: 1,
		})
	}()
	select {
	case <-out.begun: // shoppers are in the middle of it
	case err := <-loaded:
		t.Fatalf("the load ended early: %v", err)
	}
	begun := time.Now()
	if err := stopB(); err != nil {
		complain("%v", err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		complain("leaving took %s", took)
	}
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	lines := parseLines[Tick](t, out.Bytes())
	final = lines[len(lines)-1]
	if float64(final.Requests) < 2.5*rate || final.Failed+final.Refused != 0 || final.PaymentsFrom["eu-west"] == 0 {
		complain("report %s", out.Bytes())
	}

	services := map[string][]string{}
	for _, s := range readLines[spanLine](t, file) {
		if !slices.Contains(services[s.Trace], s.Service) {
			services[s.Trace] = append(services[s.Trace], s.Service)
		}
	}
	whole := 0
	for _, in := range services {
		if len(in) >= 4 { // with both copies serving, few calls stay within one
			whole++
		}
	}
	if whole == 0 {
		complain("no trace goes through four services")
	}

	a := ask(t, n, "GET", base+api.PathInstances(Payments), nil)
	if list := decode[api.InstanceList](t, a); len(list.Instances) != 1 || list.Instances[0].ID != api.InstanceID(ready.Services[Payments].ID) {
		complain("instances of payments: %s", a.body)
	}
	if err := stopA(); err != nil {
		complain("%v", err)
	}
	a = ask(t, n, "GET", base+api.PathServices, nil)
	if list := decode[api.ServiceList](t, a); len(list.Services) != 0 {
		complain("after closing time: %s", a.body)
	}
	return final, wrong
}

// Without a registry the shop starts, serves what needs nobody, and ends in time.
func TestShopWithoutRegistry(t *testing.T) {
	n := newTown(t)
	ready, stop := openOn(t, dialRegion, Config{Region: "eu-west", Registry: []string{"http://127.0.0.1:1"}})
	if a := ask(t, n, "GET", "http://"+ready.Services[Catalog].Addr+"/products", nil); a.status != 200 {
		t.Errorf("catalog: %d %s", a.status, a.body)
	}
	a := ask(t, n, "GET", "http://"+ready.Services[Storefront].Addr+"/", nil)
	if p := a.problem(t); a.status != 502 || (p.Service != Catalog && p.Service != Users) {
		t.Errorf("storefront: %d %+v", a.status, p)
	}
	begun := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("ending took %s", took)
	}
}

// report tells when its first line was written. It is read after the load ended.
type report struct {
	bytes.Buffer
	begun chan struct{}
}

func (r *report) Write(b []byte) (int, error) {
	if r.Len() == 0 {
		close(r.begun)
	}
	return r.Buffer.Write(b)
}
