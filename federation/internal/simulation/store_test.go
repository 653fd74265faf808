package simulation

import (
	"fmt"
	"maps"
	"slices"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// store is a region's catalogue; a copy of it is a disk.
type store struct {
	version  api.Version
	services map[api.ServiceKey]service
	changed  map[api.ServiceKey]uint64
	floor    uint64 // history before it is gone
	removals []removal
	image    *store // the last picture that was taken
	told     history
}

// history has every picture that anybody of a region ever took, by its version: two publishers,
// or one with yesterday's disk, may tell two things under one version.
type history map[api.Version][]*store

// has reports whether a reader of a region may hold rows with a digest at a version.
func (h history) has(at api.Version, d summary.Digest, reader api.Region) bool {
	for _, s := range h[at] {
		if s.digest(reader) == d {
			return true
		}
	}
	return false
}

// removal is a loss of instances; meant: an operator said so.
type removal struct {
	key      api.ServiceKey
	revision uint64
	meant    bool
}

type service struct {
	instances []*api.Instance
	revision  uint64
	hashes    map[api.Region]summary.Hash // of its row, as each reader gets it; shared by all copies
}

func newStore(region api.Region, nonce uint64, told history) *store {
	return &store{
		version:  api.Version{Region: region, Epoch: api.Epoch{Generation: 1, Nonce: nonce}, Revision: 1},
		services: map[api.ServiceKey]service{}, changed: map[api.ServiceKey]uint64{}, told: told,
	}
}

func (s *store) clone() *store {
	return &store{s.version, maps.Clone(s.services), maps.Clone(s.changed), s.floor, slices.Clone(s.removals), nil, s.told}
}

func key(i int) api.ServiceKey {
	return api.ServiceKey{Namespace: api.DefaultNamespace, Service: api.ServiceName(fmt.Sprintf("s%02d", i))}
}

// set gives a service n instances made by a publisher; 0 removes it.
func (s *store) set(i, n int, by string) { s.put(i, n, by, false) }

// put is set; meant: whatever the service loses by it was meant to go.
func (s *store) put(i, n int, by string, meant bool) {
	s.version.Revision++
	k := key(i)
	if had := len(s.services[k].instances); n < had {
		s.removals = append(s.removals, removal{k, s.version.Revision, meant})
	}
	s.changed[k] = s.version.Revision
	if n == 0 {
		delete(s.services, k)
		return
	}
	list := make([]*api.Instance, n)
	for j := range list {
		list[j] = &api.Instance{
			Namespace: k.Namespace, Service: k.Service, ID: api.InstanceID(fmt.Sprintf("%s-%d", k.Service, j)),
			Region: s.version.Region, Zone: "a", Address: "10.0.0.1", Port: 8000 + j, Weight: 100, Status: api.StatusPassing, Version: by,
		}
	}
	s.services[k] = service{list, s.version.Revision, map[api.Region]summary.Hash{}}
}

func (s *store) digest(reader api.Region) (d summary.Digest) {
	for k, x := range s.services {
		h, known := x.hashes[reader]
		if !known {
			_, h = summary.Encode(summary.Build(k, x.instances, x.revision, reader))
			x.hashes[reader] = h
		}
		d = d.Add(h)
	}
	return d
}

// Image implements origin.Source. Every change has a version of its own.
func (s *store) Image() origin.Image {
	if s.image == nil || s.image.version != s.version {
		s.image = s.clone()
		s.told[s.version] = append(s.told[s.version], s.image)
	}
	return s.image
}

func (s *store) ChangedSince(after api.Version) (keys []api.ServiceKey, ok bool) {
	if after.Epoch != s.version.Epoch || after.Revision < s.floor {
		return nil, false
	}
	for k, r := range s.changed {
		if r > after.Revision {
			keys = append(keys, k)
		}
	}
	return keys, true
}

// PlannedSince implements origin.Planner.
func (s *store) PlannedSince(after api.Version) map[api.ServiceKey]struct{} {
	out := map[api.ServiceKey]struct{}{}
	if after.Epoch != s.version.Epoch || after.Revision < s.floor {
		return out
	}
	spoilt := map[api.ServiceKey]bool{}
	for _, r := range s.removals {
		if r.revision > after.Revision {
			spoilt[r.key] = spoilt[r.key] || !r.meant
			out[r.key] = struct{}{}
		}
	}
	maps.DeleteFunc(out, func(k api.ServiceKey, _ struct{}) bool { return spoilt[k] })
	return out
}

func (s *store) Version() api.Version { return s.version }

func (s *store) Services() []api.ServiceKey {
	return slices.SortedFunc(maps.Keys(s.services), replica.CompareKeys)
}

func (s *store) Service(k api.ServiceKey) ([]*api.Instance, uint64) {
	x := s.services[k]
	return x.instances, x.revision
}
