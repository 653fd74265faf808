package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// What a region keeps at most, unless Config says otherwise.
const (
	DefaultMaxKeys  = 100_000
	DefaultMaxBytes = 64 << 20
	// The store keeps what was replaced for five minutes, and less when that would pass its
	// quota of 512 MiB. At this pace keys alone hardly bring it there (64 MiB that there are, 128
	// at once, 300 in five minutes), and what else resumes from history keeps its own.
	DefaultWriteBurst = 128 << 20
	DefaultWriteRate  = 1 << 20
)

// Registry is the part of *registry.Registry that keys are kept with.
type Registry interface {
	Follow(f registry.Follower) error
	Authorize(ctx context.Context, a registry.Access) error
	Fresh(ctx context.Context, o registry.ReadOptions) (registry.Stamp, error)
	Meet(ctx context.Context, seen api.Version) (why string, err error)
	Write(ctx context.Context, decide func() ([]store.Op, error)) (revision uint64, err error)
	OpenWatch() (done func(), err error)
	Ended() <-chan struct{}
}

// Config is what a Table is made of.
type Config struct {
	Registry Registry // required; it must not run yet
	// MaxKeys and MaxBytes bound the keys of the region, and their values together in bytes:
	// each node holds all of them in memory, and the store on its disk, so raise them with
	// both, and the store's quota with them. 0 = the defaults above.
	MaxKeys  int
	MaxBytes int
	// WriteBurst bytes of keys and values may be written at once, and WriteRate bytes per second
	// from then on, at each node. Higher ones shorten the store's history, and can fill its quota. 0 = the defaults.
	WriteBurst    int
	WriteRate     int
	Logger        *slog.Logger         // nil = silent
	MeterProvider metric.MeterProvider // nil = none
}

// Table is the use cases of a region's keys. Its methods are safe for concurrent use. Values
// that it returns are shared: do not change them.
type Table struct {
	cfg    Config
	log    *slog.Logger
	writes metric.Int64Counter

	// head is what readers see; replaced under mu.
	head    atomic.Pointer[head]
	mu      sync.Mutex
	history history // of head's epoch

	budget budget
	pace   pace
}

// head is the view at one version.
type head struct {
	view    *View
	version api.Version
	// changed is closed when a key changed, or the epoch. Heads that differ in nothing but
	// their revision share it, so that watches sleep through the registrations of instances.
	changed chan struct{}
}

// New returns a table that follows cfg.Registry; it answers once that has loaded.
func New(cfg Config) (*Table, error) {
	if cfg.Registry == nil {
		return nil, errors.New("kv: a registry is needed")
	}
	for _, limit := range []struct {
		of   *int
		name string
		or   int
	}{
		{&cfg.MaxKeys, "keys", DefaultMaxKeys},
		{&cfg.MaxBytes, "bytes", DefaultMaxBytes},
		{&cfg.WriteBurst, "bytes written at once", DefaultWriteBurst},
		{&cfg.WriteRate, "bytes written per second", DefaultWriteRate},
	} {
		if *limit.of < 0 {
			return nil, fmt.Errorf("kv: %d %s cannot be the limit", *limit.of, limit.name)
		}
		if *limit.of == 0 {
			*limit.of = limit.or
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = noop.NewMeterProvider()
	}
	t := &Table{cfg: cfg, log: cfg.Logger, pace: pace{burst: cfg.WriteBurst, rate: cfg.WriteRate}}
	t.head.Store(&head{view: &View{}, changed: make(chan struct{})})
	if err := t.observe(); err != nil {
		return nil, err
	}
	return t, cfg.Registry.Follow(follower{t})
}

// observe makes the instruments.
func (t *Table) observe() error {
	m := t.cfg.MeterProvider.Meter("github.com/nearside/nearside/region/kv")
	var err1, err2, err3 error
	t.writes, err1 = m.Int64Counter("nearside.kv.writes", metric.WithUnit("{write}"), metric.WithDescription("Puts and deletes of keys accepted."))
	_, err2 = m.Int64ObservableGauge("nearside.kv.keys", metric.WithUnit("{key}"), metric.WithDescription("Keys of the region."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			keys, _ := t.head.Load().view.Len()
			o.Observe(int64(keys))
			return nil
		}))
	_, err3 = m.Int64ObservableGauge("nearside.kv.size", metric.WithUnit("By"), metric.WithDescription("Bytes of all values."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			_, bytes := t.head.Load().view.Len()
			o.Observe(bytes)
			return nil
		}))
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("kv metrics: %w", err)
	}
	return nil
}

// Limits fills in what is in force here.
func (t *Table) Limits(l *api.Limits) {
	l.KVKeyLength, l.KVValueBytes, l.KVKeys, l.KVBytes = api.MaxKVKeyLength, api.MaxKVValueBytes, t.cfg.MaxKeys, t.cfg.MaxBytes
	l.KVWriteBurst, l.KVWriteRate = t.cfg.WriteBurst, t.cfg.WriteRate
}

// follower is the side of a table that the registry feeds.
type follower struct{ t *Table }

var _ registry.Follower = follower{}

// Load implements registry.Follower.
func (f follower) Load(version api.Version, records []store.Record) {
	view, broken := Load(records)
	f.t.replace(&head{view: view, version: version})
	f.t.report(broken)
}

// Apply implements registry.Follower.
func (f follower) Apply(b store.Batch) {
	if !Concerns(b) {
		f.Progress(b.Revision)
		return
	}
	t := f.t
	t.mu.Lock()
	old := t.head.Load()
	view, changes, broken := old.view.Apply(b)
	next := &head{view: view, version: old.version, changed: make(chan struct{})}
	next.version.Revision = b.Revision
	t.history.add(changes)
	t.head.Store(next)
	close(old.changed)
	t.mu.Unlock()
	t.report(broken)
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
	old := f.t.head.Load()
	next := &head{view: old.view, version: old.version}
	next.version.Epoch = epoch
	f.t.replace(next)
}

// replace begins anew with h: nothing of what was before can be resumed from.
func (t *Table) replace(h *head) {
	h.changed = make(chan struct{})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.history = history{floor: h.version.Revision}
	close(t.head.Swap(h).changed)
}

func (t *Table) report(broken []Broken) {
	for _, b := range broken {
		t.log.Error("a key's record cannot be read and is left out: put the key again", "key", b.Key, "cause", b.Err)
	}
}
