package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Registry is the part of *registry.Registry that this door calls. All methods are called
// concurrently; each returns when its context ends. An *api.Error in the chain of a
// returned error is the answer to the client; any other error is told as "internal".
type Registry interface {
	// Stamp says where the node's own catalogue stands.
	Stamp() registry.Stamp

	Register(ctx context.Context, key api.InstanceKey, reg api.Registration) (inst api.Instance, created bool, err error)
	Get(ctx context.Context, key api.InstanceKey, o registry.ReadOptions) (api.Instance, registry.Stamp, error)
	Deregister(ctx context.Context, key api.InstanceKey, incarnation uint64) error
	RemoveService(ctx context.Context, ns api.Namespace, service api.ServiceName) (api.ServiceRemoved, error)
	Beat(ctx context.Context, key api.InstanceKey, hb api.Heartbeat) (api.HeartbeatAck, error)
	// Heartbeats returns one error for each item, in their order.
	Heartbeats(ctx context.Context, items []api.BatchHeartbeat) []error
	// Report is for the nodes of the region among themselves.
	Report(ctx context.Context, node string, rep api.NodeReport) (api.NodeAnswer, error)
	SetStatus(ctx context.Context, key api.InstanceKey, c api.StatusChange) (api.Instance, error)
	EndDrain(ctx context.Context, key api.InstanceKey, incarnation uint64) (api.Instance, error)

	ListServices(ctx context.Context, q registry.ServicesQuery) (api.ServiceList, registry.Stamp, error)
	ListInstances(ctx context.Context, q registry.InstancesQuery) (api.InstanceList, registry.Stamp, error)
	ResolveShared(ctx context.Context, q registry.ResolveQuery) (*registry.Answer, []api.Origin, registry.Stamp, error)
	Explain(ctx context.Context, q registry.ResolveQuery) (api.Explanation, registry.Stamp, error)
	WhatIf(ctx context.Context, q registry.WhatIfQuery) (api.WhatIf, registry.Stamp, error)

	// WatchShared calls send from one goroutine at a time, and returns soon after ctx ends or
	// send returns an error. An error before the first send is answered with its status.
	WatchShared(ctx context.Context, q registry.WatchQuery, send func(*api.Frame, *encoded.Frame) error) error

	// FollowEvents calls send as WatchShared does.
	FollowEvents(ctx context.Context, q events.Query, send func(api.EventFrame) error) error
	Events(ctx context.Context, q events.Query) (api.EventList, registry.Stamp, error)

	Regions(ctx context.Context) (api.RegionList, registry.Stamp, error)
	RegionInfo(ctx context.Context, region api.Region) (api.RegionInfo, registry.Stamp, error)
	// RegionsOf and RegionInfoOf count one namespace instead of all.
	RegionsOf(ctx context.Context, ns api.Namespace) (api.RegionList, registry.Stamp, error)
	RegionInfoOf(ctx context.Context, region api.Region, ns api.Namespace) (api.RegionInfo, registry.Stamp, error)
	Federation(ctx context.Context) (api.FederationInfo, registry.Stamp, error)
	VerifyRegion(ctx context.Context, region api.Region) (api.Verification, error)
	ResyncRegion(ctx context.Context, region api.Region) (api.ResyncInfo, error)
	// RaiseEpochFor is for a federation that is a process of its own.
	RaiseEpochFor(ctx context.Context, region api.Region, raise api.EpochRaise) (api.EpochRaised, registry.Stamp, error)

	ListMembers(ctx context.Context, region api.Region) (api.MemberList, registry.Stamp, error)
	AddMember(ctx context.Context, region api.Region, add api.MemberAdd) (m api.Member, created bool, err error)
	RemoveMember(ctx context.Context, region api.Region, node string, force bool) error

	// Backup returns every record of the store, of one moment.
	Backup(ctx context.Context) (store.Image, error)
	BackupStamp(ctx context.Context) (registry.Stamp, error)

	Limits() api.Limits
	Readiness() api.Readiness
}

// Config is what a door needs. Registry is required; every other field has a useful zero.
type Config struct {
	Registry Registry
	Region   api.Region // told in headers of answers that carry no data
	Node     string     // told in Nearside-Node

	// KV serves /v1/kv/; nil = 404.
	KV KV

	// Steering serves /v1/policies and the drains of regions; nil = 404.
	Steering Steering

	// Metrics serves GET /metrics; nil = 404.
	Metrics http.Handler

	// AllowedHosts are the host names by which clients may call the node, besides IP
	// addresses, localhost and names without a dot: the advertised host above all. An
	// entry ".example.org" allows every name below example.org; "*" allows every name and
	// so gives up the protection against DNS rebinding. Ports are ignored.
	AllowedHosts []string

	// Closing ends when the node shuts down: open streams end then, at once. nil = never.
	Closing context.Context

	// Timeout bounds every call of the registry but Watch; 0 = 10 s.
	Timeout time.Duration

	// Dev shows the text of internal errors to the client; without it they are in the log only.
	Dev bool

	Logger         *slog.Logger                  // nil = discard
	MeterProvider  metric.MeterProvider          // nil = none
	TracerProvider trace.TracerProvider          // nil = none
	Propagator     propagation.TextMapPropagator // nil = W3C trace context, when there is a TracerProvider
}

// Timeouts of the door. A client that is slower than these loses its connection.
const (
	headerTimeout = 5 * time.Second  // to send the request's headers
	readTimeout   = 15 * time.Second // to send the whole request
	writeTimeout  = 30 * time.Second // to take an answer that is not a stream
	idleTimeout   = 2 * time.Minute  // between requests
	frameTimeout  = 10 * time.Second // to take one frame of a stream
	callTimeout   = 10 * time.Second // for the registry; below readTimeout, see watch.go

	maxHeaderBytes = 16 << 10
)

// door is the state behind the handler. It is read-only after New but for the instruments
// and the request counter, which are safe for concurrent use.
type door struct {
	Config
	guard   guard
	ids     requestIDs
	metrics *instruments
	tracer  trace.Tracer // nil = no traces
	stamps  stamper
	sent    *encoded.Budget // of the frames of watches
	backups chan struct{}   // capacity maxBackups: held by who sends one
	beside  bool            // of a federation that is its own process
	crowd   *crowd
}

// sentBytes bounds what is kept of the frames of watches: some 6,000 changes.
const sentBytes = 4 << 20

// New returns the handler of HTTP v1. It starts no goroutine.
func New(cfg Config) (http.Handler, error) {
	return newHandler(cfg, false)
}

// newHandler returns the handler of a node, or of a process beside them.
func newHandler(cfg Config, beside bool) (http.Handler, error) {
	if cfg.Registry == nil {
		return nil, errors.New("http api: a registry is required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = callTimeout
	}
	if cfg.Closing == nil {
		cfg.Closing = context.Background()
	}
	d := &door{
		Config: cfg,
		guard:  newGuard(cfg.AllowedHosts),
		ids:    newRequestIDs(),
		stamps: newStamper(cfg.Region, cfg.Node),
		sent:   encoded.NewBudget(sentBytes),

		backups: make(chan struct{}, maxBackups),
		crowd:   newCrowd(func() int { return cfg.Registry.Limits().Watches }, cfg.Dev),
	}
	if cfg.TracerProvider != nil {
		d.tracer = cfg.TracerProvider.Tracer("github.com/nearside/nearside/region/httpapi")
		if d.Propagator == nil {
			d.Propagator = propagation.TraceContext{}
		}
	}
	routes := d.routes()
	if d.beside = beside; beside {
		routes = slices.DeleteFunc(routes, func(rt route) bool { return !besidePaths[rt.path] })
	}
	var err error
	if d.metrics, err = newInstruments(cfg.MeterProvider, routes); err != nil {
		return nil, err
	}
	return d.router(routes), nil
}

// Server returns a server for h with the limits that the package's promises need: 5 s for
// headers, 16 KiB of them, 15 s for a whole request, 30 s for an answer. Streams of h lift
// the last two for themselves and bound each frame instead. The caller sets Addr,
// BaseContext and ErrorLog if it likes.
func Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails: it ends the program instead
	return hex.EncodeToString(b)
}
