package steering

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// Registry is the part of *registry.Registry that decisions are kept with.
type Registry interface {
	Region() api.Region
	Follow(f registry.Follower) error
	Steer(s registry.Steering) error
	Authorize(ctx context.Context, a registry.Access) error
	Fresh(ctx context.Context, o registry.ReadOptions) (registry.Stamp, error)
	Write(ctx context.Context, decide func() ([]store.Op, error)) (revision uint64, err error)
	ListServices(ctx context.Context, q registry.ServicesQuery) (api.ServiceList, registry.Stamp, error)
	ResolveUnder(ctx context.Context, q registry.ResolveQuery, p *api.Policy) (api.Decision, error)
	// Wishes are the other regions with what each wishes about itself, Overview all of them with
	// what is in force.
	Wishes() []api.Origin
	Overview() []api.RegionInfo
	Judges() bool
	// Record must not block, and is called while the registry applies a commit.
	Record(e api.Event)
}

// Config is what a Table is made of.
type Config struct {
	Registry      Registry             // required; it must not run yet
	Logger        *slog.Logger         // nil = silent
	MeterProvider metric.MeterProvider // nil = none
}

// Table is the use cases of a region's policies and drains. Its methods are safe for
// concurrent use. What they return may be shared: do not change it.
type Table struct {
	cfg    Config
	region api.Region
	log    *slog.Logger

	// head is what readers see; replaced under mu.
	head atomic.Pointer[head]
	mu   sync.Mutex
	// wake tells Run that the drains are other ones; capacity 1.
	wake chan struct{}
}

// head is the view at one version, and the drains at one moment.
type head struct {
	view    *View
	version api.Version
	levels  map[api.Region]float64 // above 0 only
	states  map[api.Region]api.DrainState
	// changed is closed when a newer head says something else. Heads that differ in nothing but
	// their revision share it.
	changed chan struct{}
}

// New returns a table that follows cfg.Registry, and by which that decides from now on; it
// answers once the registry has loaded. Drains in steps need Run.
func New(cfg Config) (*Table, error) {
	if cfg.Registry == nil {
		return nil, errors.New("steering: a registry is needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = noop.NewMeterProvider()
	}
	t := &Table{cfg: cfg, region: cfg.Registry.Region(), log: cfg.Logger, wake: make(chan struct{}, 1)}
	t.head.Store(&head{view: &View{}, changed: make(chan struct{})})
	if err := t.observe(); err != nil {
		return nil, err
	}
	if err := cfg.Registry.Steer(t); err != nil {
		return nil, err
	}
	return t, cfg.Registry.Follow(follower{t})
}

func (t *Table) observe() error {
	m := t.cfg.MeterProvider.Meter("github.com/nearside/nearside/region/steering")
	_, err1 := m.Int64ObservableGauge("nearside.policies", metric.WithUnit("{policy}"), metric.WithDescription("Policies of the region."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(len(t.head.Load().view.policies)))
			return nil
		}))
	_, err2 := m.Float64ObservableGauge("nearside.region.drained", metric.WithUnit("%"), metric.WithDescription("How much less of its traffic this region decided that a region is to get, in percent."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			h := t.head.Load()
			for region := range h.view.drains {
				o.Observe(h.levels[region], metric.WithAttributes(regionAttribute(region)))
			}
			return nil
		}))
	return errors.Join(err1, err2)
}

// Policy implements registry.Steering.
func (t *Table) Policy(key api.ServiceKey) *api.Policy { return t.head.Load().view.Policy(key) }

// Policies implements registry.Steering.
func (t *Table) Policies(ns api.Namespace) []api.ServiceKey {
	var out []api.ServiceKey
	for k := range t.head.Load().view.policies {
		if ns == k.Namespace || ns == api.AllNamespaces {
			out = append(out, k)
		}
	}
	return out
}

// Drained implements registry.Steering.
func (t *Table) Drained(region api.Region) float64 {
	levels := t.head.Load().levels
	if len(levels) == 0 {
		return 0
	}
	return levels[region]
}

// Own returns what the region decided about itself: what its federation tells the peers.
func (t *Table) Own() float64 { return t.Drained(t.region) }

// Changed implements registry.Steering.
func (t *Table) Changed() <-chan struct{} { return t.head.Load().changed }

// follower is the side of a table that the registry feeds.
type follower struct{ t *Table }

var (
	_ registry.Follower = follower{}
	_ registry.Steering = (*Table)(nil)
)

// Load implements registry.Follower.
func (f follower) Load(version api.Version, records []store.Record) {
	view, broken := Load(records)
	f.t.replace(view, version, time.Now())
	f.t.report(broken)
}

// Apply implements registry.Follower.
func (f follower) Apply(b store.Batch) {
	t := f.t
	version := t.head.Load().version
	version.Revision = b.Revision
	if !concerns(b) {
		f.Progress(b.Revision)
		return
	}
	now, before := time.Now(), t.head.Load()
	view, broken := before.view.Apply(b)
	t.replace(view, version, now)
	t.report(broken)
	t.tellChanges(before, t.head.Load(), b.Revision, now)
}

// Progress implements registry.Follower.
func (f follower) Progress(revision uint64) {
	t := f.t
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.head.Load()
	next.version.Revision = max(next.version.Revision, revision)
	t.head.Store(&next)
}

// Raise implements registry.Follower.
func (f follower) Raise(epoch api.Epoch) {
	t := f.t
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.head.Load()
	next.version.Epoch = epoch
	t.head.Store(&next)
}

// replace publishes another view.
func (t *Table) replace(view *View, version api.Version, now time.Time) {
	t.mu.Lock()
	old := t.head.Load()
	next := &head{view: view, version: version, changed: make(chan struct{})}
	next.levels, next.states = view.at(now)
	t.head.Store(next)
	t.mu.Unlock()
	close(old.changed)
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// at returns where the drains stand at now.
func (v *View) at(now time.Time) (levels map[api.Region]float64, states map[api.Region]api.DrainState) {
	levels, states = map[api.Region]float64{}, map[api.Region]api.DrainState{}
	for region, d := range v.drains {
		if l := d.Level(now); l > 0 {
			levels[region] = l
		}
		states[region] = d.State(now)
	}
	return levels, states
}

// pass moves the drains on to now, and returns what was before; nil when nothing moved.
func (t *Table) pass(now time.Time) (before, after *head) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.head.Load()
	levels, states := old.view.at(now)
	if maps.Equal(levels, old.levels) && maps.Equal(states, old.states) {
		return nil, old
	}
	next := *old
	next.levels, next.states, next.changed = levels, states, make(chan struct{})
	t.head.Store(&next)
	close(old.changed)
	return old, &next
}

func (t *Table) report(broken []Broken) {
	for _, b := range broken {
		t.log.Error("the record of a policy or drain cannot be read and is left out: set it again", "key", b.Key, "cause", b.Err)
	}
}

// regions returns the regions that have a drain on record, sorted.
func (v *View) regions() []api.Region { return slices.Sorted(maps.Keys(v.drains)) }
