package registry

import (
	"cmp"
	"slices"
	"sync"

	"github.com/nearside/nearside/sdk/api"
)

// fakeReplicas is a federation that says what a test tells it to.
type fakeReplicas struct {
	mu      sync.Mutex
	origins map[api.Region]api.Origin
	rows    map[api.Region]map[api.ServiceKey]*api.Summary
	wake    chan struct{}
	served  map[api.Region]map[api.ServiceKey]int // calls of Serving
}

func newReplicas(regions ...api.Region) *fakeReplicas {
	f := &fakeReplicas{origins: map[api.Region]api.Origin{}, rows: map[api.Region]map[api.ServiceKey]*api.Summary{}, wake: make(chan struct{}), served: map[api.Region]map[api.ServiceKey]int{}}
	for i, r := range regions {
		f.origins[r] = api.Origin{
			Region: r, Epoch: api.Epoch{Generation: 1, Nonce: uint64(i + 1)}, Revision: 100, AgeMS: 1200, State: api.AgeFresh, Complete: true,
			Source: api.SourceReplica, RTTMS: int64(10 * (i + 1)), Addresses: []string{"http://" + string(r) + ":7400"},
		}
		f.rows[r] = map[api.ServiceKey]*api.Summary{}
	}
	return f
}

// set replaces a row; no endpoints remove it.
func (f *fakeReplicas) set(region api.Region, service api.ServiceName, revision uint64, ids ...api.InstanceID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := api.ServiceKey{Namespace: "default", Service: service}
	if len(ids) == 0 {
		delete(f.rows[region], key)
	} else {
		s := &api.Summary{Namespace: "default", Service: service, Total: len(ids), Passing: len(ids), Complete: true, Revision: revision}
		for _, id := range ids {
			s.Endpoints = append(s.Endpoints, api.Endpoint{ID: id, Address: "10.9.0.1", Port: 80, Region: region, Zone: "z", Weight: 100, Status: api.StatusPassing})
		}
		f.rows[region][key] = s
	}
	close(f.wake)
	f.wake = make(chan struct{})
}

func (f *fakeReplicas) Origins() []api.Origin {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []api.Origin
	for _, o := range f.origins {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b api.Origin) int { return cmp.Compare(a.Region, b.Region) })
	return out
}

func (f *fakeReplicas) Lookup(key api.ServiceKey) []api.Replica {
	var out []api.Replica
	for _, o := range f.Origins() {
		f.mu.Lock()
		if s := f.rows[o.Region][key]; s != nil {
			out = append(out, api.Replica{Origin: o, Summary: s})
		}
		f.mu.Unlock()
	}
	return out
}

func (f *fakeReplicas) Services(region api.Region) []*api.Summary {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*api.Summary
	for _, s := range f.rows[region] {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *api.Summary) int { return cmp.Compare(a.Service, b.Service) })
	return out
}

func (f *fakeReplicas) Serving(key api.ServiceKey, origin api.Region) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.served[origin] == nil {
		f.served[origin] = map[api.ServiceKey]int{}
	}
	f.served[origin][key]++
}

// uses returns how often it was said that a region serves a service.
func (f *fakeReplicas) uses(origin api.Region, service api.ServiceName) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.served[origin][api.ServiceKey{Namespace: "default", Service: service}]
}

func (f *fakeReplicas) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wake
}

func (f *fakeReplicas) Info() api.FederationInfo {
	return api.FederationInfo{Links: []api.LinkInfo{{Peer: "us-east", State: "unreachable"}}}
}
