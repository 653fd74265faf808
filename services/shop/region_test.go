package shop

import (
	"bytes"
	"context"
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
func TestShopOnARealRegion(t *testing.T) {
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
			Region: "eu-west", Registry: []string{base}, Rate: 40, Duration: 3 * time.Second, Out: out, Seed: 1, // what two cores carry with the race detector
		})
	}()
	select {
	case <-out.begun: // shoppers are in the middle of it
	case err := <-loaded:
		t.Fatalf("the load ended early: %v", err)
	}
	begun := time.Now()
	if err := stopB(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("leaving took %s", took)
	}
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	lines := parseLines[Tick](t, out.Bytes())
	final := lines[len(lines)-1]
	if final.Requests < 100 || final.Failed+final.Refused != 0 || final.PaymentsFrom["eu-west"] == 0 {
		t.Errorf("report %s", out.Bytes())
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
		t.Error("no trace goes through four services")
	}

	a := ask(t, n, "GET", base+api.PathInstances(Payments), nil)
	if list := decode[api.InstanceList](t, a); len(list.Instances) != 1 || list.Instances[0].ID != api.InstanceID(ready.Services[Payments].ID) {
		t.Errorf("instances of payments: %s", a.body)
	}
	if err := stopA(); err != nil {
		t.Error(err)
	}
	a = ask(t, n, "GET", base+api.PathServices, nil)
	if list := decode[api.ServiceList](t, a); len(list.Services) != 0 {
		t.Errorf("after closing time: %s", a.body)
	}
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
