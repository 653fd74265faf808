package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/filter"
	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	defaultMaxWatches = 10_000
	// historySize is how many changes are remembered for watches that resume: at 100
	// changes a second, two and a half minutes.
	historySize = 16_384
	// writeDeadline bounds a write, from the first look to its being visible here.
	writeDeadline = 5 * time.Second
	// readDeadline bounds the waiting of a strong or min_revision read.
	readDeadline = 2 * time.Second
	tickInterval = 200 * time.Millisecond
)

// Replicas is what the federation knows of other regions. All methods are safe for
// concurrent use and return at once.
type Replicas interface {
	// Origins returns every other region, by name; ages are as of the call.
	Origins() []api.Origin
	// Lookup returns the other regions that have the service, by region name. Summaries
	// are shared and must not be changed.
	Lookup(key api.ServiceKey) []api.Replica
	// Services returns all rows of a region, by key; nil when the region is not known.
	Services(region api.Region) []*api.Summary
	// Changed is closed at the next change of any row or origin epoch (not of ages).
	Changed() <-chan struct{}
	// Serving notes that callers of this region are sent to another one for a service: while that goes
	// on, Lookup is to have all of its instances. It is called on every such resolve.
	Serving(key api.ServiceKey, origin api.Region)
	// Info returns links and readers; the registry fills in the rest.
	Info() api.FederationInfo
}

// Config is what a Registry is made of.
type Config struct {
	Region        api.Region // required
	Zone          api.Zone
	Node          string
	Store         store.Store          // required; the caller closes it after Run returned
	Room          func(bool) error     // why the store takes no puts (true) or nothing (false) for want of disk; nil = not watched
	Trouble       func() string        // why the store cannot answer, from who looks after it, "" = it can; at once; nil = not known
	Members       Members              // nil = the store is no cluster of this region's nodes
	Replicas      Replicas             // nil = no federation
	Auditor       Auditor              // nil = nothing of other regions can be verified or asked for anew here
	Addresses     []string             // base URLs of this node for clients, and for the region's other nodes
	Nodes         Nodes                // calls the region's other nodes; nil = there are none, and Node owns liveness alone
	Authorizer    Authorizer           // nil = OpenAccess
	Logger        *slog.Logger         // nil = silent
	MeterProvider metric.MeterProvider // nil = none
	MaxWatches    int                  // streams at once; 0 = 10,000
	History       int                  // changes remembered for watches that resume; 0 = 16,384; less in tests
	Copy          Copy                 // nil = a start without the store answers nothing
	HighWater     HighWater            // nil = a store put back to an older state shows by its clients only
	Events        Events               // changes of note go there; nil = nowhere
	// Conditions are further checks of the node for /readyz; called concurrently; nil = none.
	Conditions func() []api.ReadinessCheck
	Prober     Prober // nil = registrations with checks that a region runs are refused
}

// Registry holds the use cases of one region's node. Its methods are safe for concurrent
// use. What they return may share maps and slices with the catalogue: do not change it.
type Registry struct {
	cfg    Config
	log    *slog.Logger
	start  time.Time // of the monotonic clock of all deadlines
	brake  liveness.Config
	health health
	counts counters
	actors actors
	handed handed // to apply, from the writers
	loads  loads

	// head is what readers see. It is replaced under mu; changed of the old one is closed then.
	head atomic.Pointer[head]
	// overlay is the last tick's verdict.
	overlay atomic.Pointer[liveness.Overlay]

	mu      sync.RWMutex
	history *catalog.History // of head's epoch; history.Last() <= head's revision
	bells   bells            // of the watches

	own      *ownership
	farBells *farBells // nil = no federation
	forward  *forwarder
	barrier  *sharedBarrier
	raising  sync.Mutex // held while this node raises the epoch; before mu

	ledgerMu sync.Mutex // the last of the locks but forwarder.mu
	ledger   *liveness.Ledger
	owning   bool   // the claim of liveness is this node's; the ledger judges while own.holds
	claimRev uint64 // of the claim's record
	lapsed   bool   // own.holds was false at the last tick
	// windowKept: of a node that is alone, the store may have a record of the brake's window.
	windowKept atomic.Bool
	// stirred is the revision of the last commit, or load, that was more than a beat.
	stirred atomic.Uint64
	// overlayVersion rises with every overlay of this node's own.
	overlayVersion uint64

	followers []Follower // fixed before Run; called under mu
	steering  Steering   // fixed before Run; nil = nothing is decided

	answering chan struct{} // closed when there is something to answer reads from: the store's content, or the copy
	answer    func()        // closes answers
	loaded    chan struct{} // closed at the first load from the store
	copied    atomic.Pointer[copied]
	others    others
	ended     chan struct{} // closed when Run returns
	running   atomic.Bool
	checks    *checker
	draining  atomic.Bool
	watches   atomic.Int64

	group     *committer
	filters   *filter.Cache
	answers   answerCache
	served    served
	strain    atomic.Pointer[strain] // nil before the first look
	wondering chan struct{}          // capacity 1: a what-if is being answered
	items     itemFrames
	evictWake chan struct{}       // capacity 1: evictions are pending
	storeWake chan struct{}       // capacity 1: the store may be back
	raised    bool                // owned by follow: another node raised the epoch
	orphans   chan []store.Record // capacity 1: departure records that a load found to be of no use
	// departures are those that became so since.
	departures *departures

	loadedAt atomic.Int64 // now() of the first load
	refuting sync.Mutex   // one client's evidence at a time
	refuted  atomic.Bool  // the epoch was raised because of a client's; set under refuting

	// beforeTick and beforeStep, when set by a test, run before each tick and each step of the
	// election.
	beforeTick, beforeStep func()
	// whatIfBudget, when set by a test, stands in for the constant.
	whatIfBudget *time.Duration
}

// head is one published snapshot.
type head struct {
	snap    *catalog.Snapshot
	changed chan struct{} // closed when a newer head is published
	// moved is closed when a newer head is published in which instances or the epoch changed;
	// the last one that did is of revision touched. Most commits of an idle region (the beat of
	// its owner of liveness, above all) wake nobody who waits for this.
	moved   chan struct{}
	touched uint64
}

// New checks cfg and returns a registry that answers once Run has loaded the catalogue.
func New(cfg Config) (*Registry, error) {
	if err := api.CheckRegion(string(cfg.Region)); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if err := api.CheckZone(string(cfg.Zone)); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if cfg.Store == nil {
		return nil, errors.New("registry: a store is needed")
	}
	if cfg.MaxWatches < 0 {
		return nil, fmt.Errorf("registry: %d watches cannot be the limit", cfg.MaxWatches)
	}
	if cfg.MaxWatches == 0 {
		cfg.MaxWatches = defaultMaxWatches
	}
	if cfg.History <= 0 {
		cfg.History = historySize
	}
	if cfg.Authorizer == nil {
		cfg.Authorizer = OpenAccess()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = noop.NewMeterProvider()
	}
	r := &Registry{
		cfg: cfg, log: cfg.Logger, start: time.Now(), brake: liveness.Default(),
		history: catalog.NewHistory(cfg.History, 0), answering: make(chan struct{}), loaded: make(chan struct{}), ended: make(chan struct{}),
		evictWake: make(chan struct{}, 1), storeWake: make(chan struct{}, 1), orphans: make(chan []store.Record, 1), departures: newDepartures(),
		wondering: make(chan struct{}, 1),
	}
	r.answer = sync.OnceFunc(func() { close(r.answering) })
	if cfg.Copy != nil {
		r.followers = append(r.followers, &r.others)
	}
	var err error
	if r.own, err = newOwnership(&cfg); err != nil {
		return nil, err
	}
	r.forward, r.owning = newForwarder(), r.own.alone
	if cfg.Replicas != nil {
		r.farBells = newFarBells(cfg.Replicas)
	}
	r.barrier = newSharedBarrier(cfg.Store.Barrier)
	r.ledger = liveness.New(r.brake)
	r.health.tell = r.tellStore
	r.health.outside = cfg.Trouble
	r.checks = newChecker(r)
	r.filters = filter.NewCache(maxFilters)
	r.group = newCommitter(r.commit, func() api.Version { return r.Snapshot().Version() },
		func(ctx context.Context, revision uint64) { _, _ = r.waitRevision(ctx, revision) })
	r.head.Store(&head{snap: catalog.Empty(api.Version{Region: cfg.Region}), changed: make(chan struct{}), moved: make(chan struct{})})
	return r, nil
}

// now is the time of all deadlines: monotonic, so no jump of the wall clock moves it.
func (r *Registry) now() time.Duration { return time.Since(r.start) }

// publish makes snap what readers see; r.mu is held.
func (r *Registry) publish(snap *catalog.Snapshot) {
	old := r.head.Swap(&head{snap: snap, changed: make(chan struct{}), moved: make(chan struct{}), touched: snap.Version().Revision})
	close(old.changed)
	close(old.moved)
}

// publishQuietly is publish for a revision in which no instance changed; r.mu is held.
func (r *Registry) publishQuietly(snap *catalog.Snapshot) {
	old := r.head.Load()
	r.head.Store(&head{snap: snap, changed: make(chan struct{}), moved: old.moved, touched: old.touched})
	close(old.changed)
}

// Loaded is closed when the catalogue is loaded from the store for the first time. Reads may be
// answered before, from the copy on disk.
func (r *Registry) Loaded() <-chan struct{} { return r.loaded }

func (r *Registry) isLoaded() bool {
	select {
	case <-r.loaded:
		return true
	default:
		return false
	}
}

func (r *Registry) isAnswering() bool {
	select {
	case <-r.answering:
		return true
	default:
		return false
	}
}

// SetDraining makes the node say that it is not ready, ahead of a shutdown. Everything
// goes on being answered.
func (r *Registry) SetDraining() { r.draining.Store(true) }

// Snapshot returns the newest snapshot. Before Loaded its version has no epoch: publish
// nothing then. It shows what is stored; an instance whose eviction waits for the store
// is still in it.
func (r *Registry) Snapshot() *catalog.Snapshot { return r.head.Load().snap }

// Wait returns nil once instances have changed after the version or its epoch is no longer
// the region's, or ctx's error. It sleeps through revisions that change neither.
func (r *Registry) Wait(ctx context.Context, after api.Version) error {
	for {
		h := r.head.Load()
		if h.snap.Version().Epoch != after.Epoch || h.touched > after.Revision {
			return nil
		}
		select {
		case <-h.moved:
		case <-ctx.Done():
			return ctx.Err()
		case <-r.ended:
			return api.Errorf(api.CodeShuttingDown, "this node is shutting down")
		}
	}
}

// waitChange returns nil when a newer head than h is published.
func (r *Registry) waitChange(ctx context.Context, h *head) error {
	select {
	case <-h.changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ended:
		return api.Errorf(api.CodeShuttingDown, "this node is shutting down")
	}
}

// waitRevision returns the first head that has reached revision.
func (r *Registry) waitRevision(ctx context.Context, revision uint64) (*head, error) {
	for {
		h := r.head.Load()
		if h.snap.Version().Revision >= revision {
			return h, nil
		}
		if err := r.waitChange(ctx, h); err != nil {
			return nil, err
		}
	}
}

// ChangedSince returns the services that changed after the version, sorted. ok is false when
// that is not known: the version is of another epoch, or too long ago.
func (r *Registry) ChangedSince(after api.Version) (keys []api.ServiceKey, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	v := r.head.Load().snap.Version()
	if after.Region != v.Region || after.Epoch != v.Epoch {
		return nil, false
	}
	return r.history.KeysSince(after.Revision)
}

// authorize is the one door that every use case passes first.
func (r *Registry) authorize(ctx context.Context, verb Verb, ns api.Namespace, services ...api.ServiceName) error {
	if len(services) == 0 {
		return r.cfg.Authorizer.Authorize(ctx, Access{Verb: verb, Namespace: ns})
	}
	for _, s := range services {
		if err := r.cfg.Authorizer.Authorize(ctx, Access{Verb: verb, Namespace: ns, Service: s}); err != nil {
			return err
		}
	}
	return nil
}

// Limits returns the limits of the public surface as they are in force here.
func (r *Registry) Limits() api.Limits {
	return api.Limits{
		LabelLength: api.MaxLabelLength, InstanceIDLength: api.MaxInstanceIDLength, AddressLength: api.MaxAddressLength,
		VersionLength: api.MaxVersionLength, NoteBytes: api.MaxNoteLength, Tags: api.MaxTags, TagBytes: api.MaxTagLength,
		Ports: api.MaxPorts, MetadataKeys: api.MaxMetadataKeys, MetadataBytes: api.MaxMetadataBytes, BodyBytes: api.MaxBodyBytes,
		BatchItems: api.MaxBatchItems, BatchBytes: api.MaxBatchBytes,
		FilterBytes: api.MaxFilterLength, FilterDepth: api.MaxFilterDepth,
		Weight: api.MaxWeight, Capacity: api.MaxCapacity, TTLMin: api.Duration(api.MinTTL), TTLMax: api.Duration(api.MaxTTL),
		TTLDefault: api.Duration(api.DefaultTTL), Checks: api.MaxChecks, CheckIntervalMin: api.Duration(api.MinCheckInterval),
		CheckIntervalMax: api.Duration(api.MaxCheckInterval), CheckTimeoutMax: api.Duration(api.MaxCheckTimeout), WatchServices: api.MaxWatchServices, Watches: r.cfg.MaxWatches,
		ListLimit: api.MaxListLimit, FailoverSet: api.MaxFailoverSet, EvictionShare: r.brake.Share,
		EvictionWindow: api.Duration(r.brake.Window), BookmarkInterval: api.Duration(api.BookmarkInterval),
		Policies: api.MaxPolicies, PolicyBytes: api.MaxPolicyBytes, PolicyRegions: api.MaxPolicyRegions,
		DrainOverMax: api.Duration(api.MaxDrainOver), DrainSteps: api.MaxDrainSteps,
		CheckTimeoutMin: api.Duration(api.MinCheckTimeout), CheckThreshold: api.MaxCheckThreshold, CheckPathBytes: api.MaxCheckPath,
		CheckServiceBytes: api.MaxCheckService, DeregisterAfterMin: api.Duration(time.Second), DeregisterAfterMax: api.Duration(api.MaxDeregisterAfter),
		WhatIfLosses: api.MaxWhatIfLosses, WhatIfServices: api.MaxWhatIfServices,
		EventDetailBytes: api.MaxEventDetail, EventLogBytes: api.EventLogBytes, EventLogAge: api.Duration(api.EventLogAge),
	}
}
