package mesh

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/sdk/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair runs two meshes over real sockets: reader reads origin.
func pair(t *testing.T, provider metric.MeterProvider) (reader *Mesh, origin *regiontest.Source) {
	t.Helper()
	origin = regiontest.New("eu-west")
	far, err := New(Config{Region: "eu-west", Source: origin})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(far.Handler())
	reader, err = New(Config{
		Region: "us-east", Source: regiontest.New("us-east"), DataDir: t.TempDir(), MeterProvider: provider,
		Peers: map[api.Region][]string{"eu-west": {srv.URL}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, m := range []*Mesh{far, reader} {
		wg.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		srv.Close()
	})
	return reader, origin
}

// waitForRows waits for a condition on the mesh's rows; only Changed may wake it.
func waitForRows(t *testing.T, m *Mesh, cond func() bool) {
	t.Helper()
	wait(t, m, cond, 0)
}

// waitFor waits for a condition that may also hang on ages and links.
func waitFor(t *testing.T, m *Mesh, cond func() bool) {
	t.Helper()
	wait(t, m, cond, 50*time.Millisecond)
}

func wait(t *testing.T, m *Mesh, cond func() bool, every time.Duration) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		var poll <-chan time.Time
		if every > 0 {
			poll = time.After(every)
		}
		changed := m.Changed()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-poll:
		case <-deadline:
			t.Fatalf("never: %+v", m.Info())
		}
	}
}

// The figure of the design: change -> row in the other region, over real sockets on loopback,
// quiet and under churn, for small and large services.
func TestPropagation(t *testing.T) {
	m, src := pair(t, nil)
	for _, c := range []struct {
		instances int
		every     time.Duration
	}{{2, 450 * time.Millisecond}, {500, 450 * time.Millisecond}, {2, 5 * time.Millisecond}} {
		name := fmt.Sprintf("svc-%d-%s", c.instances, c.every)
		var took []time.Duration
		for i := range 8 {
			began := time.Now()
			src.Set(c.instances+i, name)
			waitForRows(t, m, func() bool {
				x := m.Lookup(regiontest.Key(name))
				return len(x) == 1 && x[0].Summary.Total == c.instances+i
			})
			took = append(took, time.Since(began))
			select {
			case <-time.After(c.every): // the pace of the workload
			case <-t.Context().Done():
			}
		}
		slices.Sort(took)
		t.Logf("%3d instances, a change each %v: change -> row elsewhere p50 %v, max %v",
			c.instances, c.every, took[len(took)/2].Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond))
	}
}

// P8: an idle link costs the same whatever the origin holds.
func TestIdleBytesDoNotDependOnSize(t *testing.T) {
	rate := func(services int) uint64 {
		m, src := pair(t, nil)
		if services > 0 {
			list := make([]string, services)
			for i := range list {
				list[i] = fmt.Sprintf("s%05d", i)
			}
			src.Set(3, list...)
		}
		link := func() api.LinkInfo { return m.Info().Links[0] }
		waitFor(t, m, func() bool {
			return link().Services == services && link().HeadLag == 0 && link().Replica.State == api.AgeFresh
		})
		// The least of some: on a busy machine empty lines come between two heartbeats.
		least := ^uint64(0)
		for range 4 {
			before := link()
			waitFor(t, m, func() bool { return link().Frames > before.Frames })
			now := link()
			least = min(least, (now.BytesIn-before.BytesIn)/(now.Frames-before.Frames))
		}
		return least
	}
	small, large := rate(0), rate(2000)
	t.Logf("bytes of a heartbeat: %d with no service, %d with 2000", small, large)
	if large > small+16 {
		t.Fatal("the idle link grows with the origin")
	}
}

// Operators see the link, its age and its traffic.
func TestMetrics(t *testing.T) {
	rec := &recorder{values: map[string]float64{}}
	m, src := pair(t, provider{rec: rec})
	src.Set(3, "orders")
	waitFor(t, m, func() bool { return len(m.Services("eu-west")) == 1 })
	waitFor(t, m, func() bool { return m.Origins()[0].RTTMS > 0 })
	waitFor(t, m, func() bool { return m.Info().Links[0].Canary != nil })
	if err := rec.collect(); err != nil {
		t.Fatal(err)
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for name, ok := range map[string]func(float64) bool{
		"nearside.federation.link.up":             func(v float64) bool { return v == 1 },
		"nearside.federation.replica.age":         func(v float64) bool { return v > 0 && v < 5 },
		"nearside.federation.replica.services":    func(v float64) bool { return v == 1 },
		"nearside.federation.link.rtt":            func(v float64) bool { return v > 0 && v < 1 },
		"nearside.federation.replica.state":       func(v float64) bool { return v == 0 },
		"nearside.federation.replica.behind":      func(v float64) bool { return v == 0 },
		"nearside.federation.replica.quarantined": func(v float64) bool { return v == 0 },
		"nearside.federation.region.down":         func(v float64) bool { return v == 0 },
		"nearside.federation.probes":              func(v float64) bool { return v == 0 },
		"nearside.federation.canary":              func(v float64) bool { return v > 0 && v < 5 },
		"nearside.federation.received":            func(v float64) bool { return v > 100 },
		"nearside.federation.frames":              func(v float64) bool { return v >= 3 },
		"nearside.federation.snapshots":           func(v float64) bool { return v == 1 },
	} {
		if v, there := rec.values[name]; !there || !ok(v) {
			t.Errorf("%s = %v (%v)", name, v, there)
		}
	}
}

// recorder is a meter that remembers what its callback observes.
type recorder struct {
	noop.Meter
	noop.Observer
	callback metric.Callback
	mu       sync.Mutex
	values   map[string]float64
}

type provider struct {
	noop.MeterProvider
	rec *recorder
}

func (p provider) Meter(string, ...metric.MeterOption) metric.Meter { return p.rec }

type gauge struct {
	noop.Float64ObservableGauge
	name string
}

type counter struct {
	noop.Int64ObservableCounter
	name string
}

func (r *recorder) Float64ObservableGauge(name string, _ ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	return gauge{name: name}, nil
}

func (r *recorder) Int64ObservableCounter(name string, _ ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	return counter{name: name}, nil
}

type histogram struct {
	noop.Float64Histogram
	rec  *recorder
	name string
}

func (h histogram) Record(_ context.Context, v float64, _ ...metric.RecordOption) {
	h.rec.mu.Lock()
	defer h.rec.mu.Unlock()
	h.rec.values[h.name] = v
}

func (r *recorder) Float64Histogram(name string, _ ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return histogram{rec: r, name: name}, nil
}

func (r *recorder) RegisterCallback(f metric.Callback, _ ...metric.Observable) (metric.Registration, error) {
	r.callback = f
	return noop.Registration{}, nil
}

func (r *recorder) collect() error { return r.callback(context.Background(), observer{rec: r}) }

type observer struct {
	noop.Observer
	rec *recorder
}

func (o observer) ObserveFloat64(g metric.Float64Observable, v float64, _ ...metric.ObserveOption) {
	o.rec.mu.Lock()
	defer o.rec.mu.Unlock()
	o.rec.values[g.(gauge).name] = v
}

func (o observer) ObserveInt64(c metric.Int64Observable, v int64, _ ...metric.ObserveOption) {
	o.rec.mu.Lock()
	defer o.rec.mu.Unlock()
	o.rec.values[c.(counter).name] = float64(v)
}

// Lookup sits on the path of every resolve.
func BenchmarkLookup(b *testing.B) {
	peers := map[api.Region][]string{}
	for i := range 5 {
		peers[api.Region(fmt.Sprintf("region-%d", i))] = []string{"http://127.0.0.1:1"}
	}
	m, err := New(Config{Region: "us-east", Source: regiontest.New("us-east"), Peers: peers})
	if err != nil {
		b.Fatal(err)
	}
	key := regiontest.Key("orders")
	b.ReportAllocs()
	for b.Loop() {
		_ = m.Lookup(key)
	}
}
