// Package regiontest is a region's catalogue for the tests of federation: small, in memory,
// and able to lose its data, its history or its store on request.
package regiontest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// Source implements peer.Source. Safe for concurrent use.
type Source struct {
	mu      sync.Mutex
	image   *image
	changed map[api.ServiceKey]uint64 // revision of the last change, deletes included
	floor   uint64                    // history before it is gone
	meant   map[api.ServiceKey]uint64 // revision of the last removal, when all were meant
	wake    chan struct{}
	nonce   uint64
	stuck   bool
	loads   map[api.ServiceKey]float64
	raised  int
}

type image struct {
	version  api.Version
	services map[api.ServiceKey]service
}

type service struct {
	instances []*api.Instance
	revision  uint64
}

// New returns a loaded, empty catalogue of region.
func New(region api.Region) *Source {
	s := &Source{wake: make(chan struct{}), changed: make(map[api.ServiceKey]uint64), meant: make(map[api.ServiceKey]uint64), nonce: 1}
	s.image = &image{version: api.Version{Region: region, Epoch: api.Epoch{Generation: 1, Nonce: 0xabcdef}, Revision: 1}}
	return s
}

// Key returns the key of a service in the default namespace.
func Key(name string) api.ServiceKey {
	return api.ServiceKey{Namespace: api.DefaultNamespace, Service: api.ServiceName(name)}
}

// Instances returns n passing instances of a service.
func Instances(region api.Region, name string, n int) []*api.Instance {
	out := make([]*api.Instance, n)
	for i := range out {
		out[i] = &api.Instance{
			Namespace: api.DefaultNamespace, Service: api.ServiceName(name), ID: api.InstanceID(fmt.Sprintf("%s-%d", name, i)),
			Region: region, Zone: api.Zone([]string{"a", "b"}[i%2]), Address: "127.0.0.1", Port: 1024 + i, Weight: 100,
			Status: api.StatusPassing, Version: "1.0.0",
		}
	}
	return out
}

func (s *Source) update(f func(next *image)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &image{version: s.image.version, services: maps.Clone(s.image.services)}
	if next.services == nil {
		next.services = make(map[api.ServiceKey]service)
	}
	f(next)
	s.image = next
	close(s.wake)
	s.wake = make(chan struct{})
}

// Set gives the named services n passing instances each, in one revision; 0 removes them.
func (s *Source) Set(n int, names ...string) {
	s.update(func(next *image) {
		next.version.Revision++
		for _, name := range names {
			k := Key(name)
			s.changed[k] = next.version.Revision
			if n == 0 {
				delete(next.services, k)
				continue
			}
			next.services[k] = service{Instances(next.version.Region, name, n), next.version.Revision}
		}
	})
}

// Plan removes the named services as an operator does who means it.
func (s *Source) Plan(names ...string) {
	s.Set(0, names...)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.meant[Key(name)] = s.image.version.Revision
	}
}

// Use sets how much the named services are used, in percent; below 0 it is not known any more.
func (s *Source) Use(percent float64, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loads == nil {
		s.loads = make(map[api.ServiceKey]float64)
	}
	for _, name := range names {
		if s.loads[Key(name)] = percent; percent < 0 {
			delete(s.loads, Key(name))
		}
	}
}

// Loads implements origin.Loader.
func (s *Source) Loads() map[api.ServiceKey]float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.loads)
}

// PlannedSince implements origin.Planner.
func (s *Source) PlannedSince(after api.Version) map[api.ServiceKey]struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[api.ServiceKey]struct{})
	if after.Epoch == s.image.version.Epoch && after.Revision >= s.floor {
		for k, r := range s.meant {
			if r > after.Revision && r == s.changed[k] {
				out[k] = struct{}{}
			}
		}
	}
	return out
}

// SetInstances replaces the instances of a service.
func (s *Source) SetInstances(name string, instances []*api.Instance) {
	s.update(func(next *image) {
		next.version.Revision++
		s.changed[Key(name)] = next.version.Revision
		next.services[Key(name)] = service{instances, next.version.Revision}
	})
}

// Wipe loses all data: an empty catalogue of generation 1 with a new nonce.
func (s *Source) Wipe() {
	s.update(func(next *image) {
		s.nonce++
		next.version.Epoch = api.Epoch{Generation: 1, Nonce: s.nonce}
		next.version.Revision = 1
		clear(next.services)
		clear(s.changed)
		clear(s.meant)
		s.floor = 0
	})
}

// Rewind makes the revision go back under the same epoch, as a restored backup does.
func (s *Source) Rewind(revision uint64) {
	s.update(func(next *image) {
		next.version.Revision = revision
		s.floor = revision
	})
}

// Compact loses the history, not the data.
func (s *Source) Compact() {
	s.update(func(next *image) {
		next.version.Revision++
		s.floor = next.version.Revision
	})
}

// Beat makes a revision that changes no service.
func (s *Source) Beat() {
	s.update(func(next *image) { next.version.Revision++ })
}

// Stick makes RaiseEpoch fail, as a store without quorum does.
func (s *Source) Stick(stuck bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = stuck
}

// Raised returns how often the epoch was raised.
func (s *Source) Raised() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raised
}

// Version returns the newest version.
func (s *Source) Version() api.Version { return s.Image().Version() }

// Image implements peer.Source.
func (s *Source) Image() peer.Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.image
}

// Wait implements peer.Source.
func (s *Source) Wait(ctx context.Context, after api.Version) error {
	for {
		s.mu.Lock()
		at, wake := s.image.version, s.wake
		s.mu.Unlock()
		if at != after {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ChangedSince implements peer.Source.
func (s *Source) ChangedSince(after api.Version) ([]api.ServiceKey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after.Epoch != s.image.version.Epoch || after.Revision < s.floor {
		return nil, false
	}
	var keys []api.ServiceKey
	for k, r := range s.changed {
		if r > after.Revision {
			keys = append(keys, k)
		}
	}
	return keys, true
}

// RaiseEpoch implements peer.Source.
func (s *Source) RaiseEpoch(_ context.Context, above uint64) error {
	s.mu.Lock()
	stuck := s.stuck
	s.mu.Unlock()
	if stuck {
		return errors.New("the store has no quorum")
	}
	s.update(func(next *image) {
		if next.version.Epoch.Generation > above {
			return
		}
		s.nonce++
		s.raised++
		next.version.Epoch = api.Epoch{Generation: above + 1, Nonce: s.nonce}
	})
	return nil
}

func (i *image) Version() api.Version { return i.version }

func (i *image) Services() []api.ServiceKey {
	return slices.SortedFunc(maps.Keys(i.services), func(a, b api.ServiceKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service))
	})
}

func (i *image) Service(k api.ServiceKey) ([]*api.Instance, uint64) {
	s := i.services[k]
	return s.instances, s.revision
}
