package catalog

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/nearside/nearside/sdk/api"
)

// shards is how many parts the catalogue is copied in. At 10,000 services a part has
// about 40, so that a change copies a small map, one slice and this table.
const shards = 256

// Snapshot is the catalogue at one version. It never changes; its methods are safe for
// concurrent use and what they return is shared: do not change it.
type Snapshot struct {
	version  api.Version
	shards   [shards]map[api.ServiceKey]*service
	services int
	counts   Counts
	// broken holds the revisions of instance records that could not be read, by record key.
	// They show nowhere, but a guard on such a record must know its revision, so that
	// registering the instance again heals it.
	broken map[string]uint64
}

// Counts counts instances by status.
type Counts struct {
	Total    int
	ByStatus map[api.Status]int // shared, read-only
}

type service struct {
	instances []*api.Instance // by id; never empty
	revision  uint64          // of the last change of the service
	// endpoints caches the callers' form of instances; computed at the first need.
	endpoints atomic.Pointer[[]api.Endpoint]
}

// Empty returns a snapshot without instances.
func Empty(v api.Version) *Snapshot { return &Snapshot{version: v} }

// Version returns the version that the snapshot stands at.
func (s *Snapshot) Version() api.Version { return s.version }

// At returns the same content at a later revision: nothing happened up to there.
func (s *Snapshot) At(revision uint64) *Snapshot {
	c := *s
	c.version.Revision = max(c.version.Revision, revision)
	return &c
}

// InEpoch returns the same content in another epoch of the same region.
func (s *Snapshot) InEpoch(e api.Epoch) *Snapshot {
	c := *s
	c.version.Epoch = e
	return &c
}

// Len returns the numbers of services and instances.
func (s *Snapshot) Len() (services, instances int) { return s.services, s.counts.Total }

// Counts returns the number of instances by status.
func (s *Snapshot) Counts() Counts { return s.counts }

// Services returns the keys of all services that have an instance, sorted by namespace
// and name.
func (s *Snapshot) Services() []api.ServiceKey {
	keys := make([]api.ServiceKey, 0, s.services)
	for _, m := range &s.shards {
		for k := range m {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, CompareKeys)
	return keys
}

// CompareKeys orders service keys by namespace, then name.
func CompareKeys(a, b api.ServiceKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service))
}

// Service returns the instances of a service by id, and the revision of the last change
// of the service; nil and 0 when it has no instance.
func (s *Snapshot) Service(key api.ServiceKey) (instances []*api.Instance, revision uint64) {
	sv := s.shards[shardOf(key)][key]
	if sv == nil {
		return nil, 0
	}
	return sv.instances, sv.revision
}

// Endpoints returns the instances of a service as callers need them, by id. The slice is
// computed once per change of the service.
func (s *Snapshot) Endpoints(key api.ServiceKey) []api.Endpoint {
	sv := s.shards[shardOf(key)][key]
	if sv == nil {
		return nil
	}
	if p := sv.endpoints.Load(); p != nil {
		return *p
	}
	out := sv.compute()
	sv.endpoints.Store(&out) // two at once compute the same
	return out
}

// PeekEndpoints is Endpoints for those who look at every service once: what is computed for them is
// not kept, so that the whole catalogue does not end up twice in memory.
func (s *Snapshot) PeekEndpoints(key api.ServiceKey) []api.Endpoint {
	sv := s.shards[shardOf(key)][key]
	if sv == nil {
		return nil
	}
	if p := sv.endpoints.Load(); p != nil {
		return *p
	}
	return sv.compute()
}

func (sv *service) compute() []api.Endpoint {
	out := make([]api.Endpoint, len(sv.instances))
	for i, in := range sv.instances {
		out[i] = in.Endpoint()
	}
	return out
}

// Instance returns one instance, nil when there is none.
func (s *Snapshot) Instance(key api.InstanceKey) *api.Instance {
	sv := s.shards[shardOf(key.ServiceKey())][key.ServiceKey()]
	if sv == nil {
		return nil
	}
	if i, ok := search(sv.instances, key.ID); ok {
		return sv.instances[i]
	}
	return nil
}

// Guard returns the revision that a guarded write of the instance's record must name: 0
// when there is no such record. Unlike Instance it knows records that cannot be read.
func (s *Snapshot) Guard(key api.InstanceKey) uint64 {
	if i := s.Instance(key); i != nil {
		return i.Revision
	}
	return s.broken[InstanceRecordKey(key)]
}

func search(instances []*api.Instance, id api.InstanceID) (int, bool) {
	return slices.BinarySearchFunc(instances, id, func(i *api.Instance, id api.InstanceID) int {
		return cmp.Compare(i.ID, id)
	})
}

// shardOf hashes a key (FNV-1a). The choice is local to a process: nothing stores it.
func shardOf(k api.ServiceKey) uint32 {
	h := uint32(2166136261)
	for i := 0; i < len(k.Namespace); i++ {
		h = (h ^ uint32(k.Namespace[i])) * 16777619
	}
	h = (h ^ '/') * 16777619
	for i := 0; i < len(k.Service); i++ {
		h = (h ^ uint32(k.Service[i])) * 16777619
	}
	return (h ^ h>>16) % shards
}
