package registry

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/metric"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
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
	// Info returns links and readers; the registry fills in the rest.
	Info() api.FederationInfo
}

// Config is what a Registry is made of.
type Config struct {
	Region        api.Region // required
	Zone          api.Zone
	Node          string
	Store         store.Store          // required
	Replicas      Replicas             // nil = no federation
	Addresses     []string             // base URLs of this node for clients
	Authorizer    Authorizer           // nil = OpenAccess
	Logger        *slog.Logger         // nil = silent
	MeterProvider metric.MeterProvider // nil = none
	MaxWatches    int                  // 0 = 10,000
}

// Registry holds the use cases of one region's node.
type Registry struct{ cfg Config }

// New checks cfg and returns a registry that answers once Run has loaded the catalogue.
func New(cfg Config) (*Registry, error) { return &Registry{cfg: cfg}, nil }

var errSkeleton = api.Errorf(api.CodeUnavailable, "not wired yet")

func (r *Registry) Run(ctx context.Context) error                     { <-ctx.Done(); return nil }
func (r *Registry) Loaded() <-chan struct{}                           { return nil }
func (r *Registry) SetDraining()                                      {}
func (r *Registry) Snapshot() *catalog.Snapshot                       { return &catalog.Snapshot{} }
func (r *Registry) Wait(ctx context.Context, after api.Version) error { return errSkeleton }
func (r *Registry) ChangedSince(after api.Version) (keys []api.ServiceKey, ok bool) {
	return nil, false
}
func (r *Registry) RaiseEpoch(ctx context.Context, above uint64) error { return errSkeleton }
func (r *Registry) Stamp() Stamp                                       { return Stamp{} }
func (r *Registry) Register(ctx context.Context, key api.InstanceKey, reg api.Registration) (inst api.Instance, created bool, err error) {
	return inst, false, errSkeleton
}
func (r *Registry) Get(ctx context.Context, key api.InstanceKey, o ReadOptions) (api.Instance, error) {
	return api.Instance{}, errSkeleton
}
func (r *Registry) Deregister(ctx context.Context, key api.InstanceKey, incarnation uint64) error {
	return errSkeleton
}
func (r *Registry) Heartbeat(ctx context.Context, key api.InstanceKey, incarnation uint64) (api.HeartbeatAck, error) {
	return api.HeartbeatAck{}, errSkeleton
}
func (r *Registry) SetStatus(ctx context.Context, key api.InstanceKey, c api.StatusChange) (api.Instance, error) {
	return api.Instance{}, errSkeleton
}
func (r *Registry) ListServices(ctx context.Context, q ServicesQuery) (api.ServiceList, Stamp, error) {
	return api.ServiceList{}, Stamp{}, errSkeleton
}
func (r *Registry) ListInstances(ctx context.Context, q InstancesQuery) (api.InstanceList, Stamp, error) {
	return api.InstanceList{}, Stamp{}, errSkeleton
}
func (r *Registry) Resolve(ctx context.Context, q ResolveQuery) (api.Resolution, Stamp, error) {
	return api.Resolution{}, Stamp{}, errSkeleton
}
func (r *Registry) Explain(ctx context.Context, q ResolveQuery) (api.Explanation, Stamp, error) {
	return api.Explanation{}, Stamp{}, errSkeleton
}
func (r *Registry) Watch(ctx context.Context, q WatchQuery, send func(api.Frame) error) error {
	return errSkeleton
}
func (r *Registry) Regions(ctx context.Context) (api.RegionList, Stamp, error) {
	return api.RegionList{}, Stamp{}, errSkeleton
}
func (r *Registry) RegionInfo(ctx context.Context, region api.Region) (api.RegionInfo, Stamp, error) {
	return api.RegionInfo{}, Stamp{}, errSkeleton
}
func (r *Registry) Federation(ctx context.Context) (api.FederationInfo, Stamp, error) {
	return api.FederationInfo{}, Stamp{}, errSkeleton
}
func (r *Registry) Limits() api.Limits       { return api.Limits{} }
func (r *Registry) Readiness() api.Readiness { return api.Readiness{} }
