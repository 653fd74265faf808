package registry

import (
	"cmp"
	"maps"
	"slices"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/sdk/api"
)

// far tells one watch what other regions have of its services.
type far struct {
	replicas Replicas
	steer    func([]api.Origin) []api.Origin
	ns       api.Namespace
	services map[api.ServiceKey]struct{} // nil = all of the namespace

	bell  *farBell
	stale bool // there may be something to tell
	told  map[farKey]farMark
}

type farKey struct {
	region api.Region
	key    api.ServiceKey
}

// farMark is what was last told: the row's place in its origin's history, and the row. A
// row may change without a new revision: what the federation held back during an outage
// shows when that ends. Its pointer is another one then, and the same while it is unchanged.
type farMark struct {
	epoch    api.Epoch
	revision uint64
	summary  *api.Summary
	origin   api.Origin
}

func newFar(r Replicas, steer func([]api.Origin) []api.Origin, ns api.Namespace, services map[api.ServiceKey]struct{}) *far {
	return &far{replicas: r, steer: steer, ns: ns, services: services, bell: newFarBell(), told: map[farKey]farMark{}}
}

// forget makes the next diff tell everything.
func (f *far) forget() {
	clear(f.told)
	f.stale = true
}

// changed returns the channel that says that something is stale; nil, for ever, without a far.
func (f *far) changed() <-chan struct{} {
	if f == nil {
		return nil
	}
	return f.bell.c
}

// diff tells what changed since the last call, by service and region, if something may have.
func (f *far) diff(tell func(api.Frame) error) error {
	if !f.stale {
		return nil
	}
	f.stale = false
	now := f.collect()
	keys := slices.SortedFunc(maps.Keys(now), compareFar)
	for _, k := range keys {
		rep := now[k]
		mark := farMark{epoch: rep.Origin.Epoch, revision: rep.Summary.Revision, summary: rep.Summary, origin: rep.Origin}
		if old, ok := f.told[k]; ok && old.epoch == mark.epoch && old.revision == mark.revision && old.summary == mark.summary {
			continue
		}
		if err := tell(f.frame(k.key, &mark.origin, rep.Summary)); err != nil {
			return err
		}
		f.told[k] = mark
	}
	var gone []farKey
	for k := range f.told {
		if _, ok := now[k]; !ok {
			gone = append(gone, k)
		}
	}
	slices.SortFunc(gone, compareFar)
	for _, k := range gone {
		origin := f.told[k].origin
		if o := findOrigin(f.replicas.Origins(), k.region); o != nil {
			origin = *o
		}
		if err := tell(f.frame(k.key, &origin, nil)); err != nil {
			return err
		}
		delete(f.told, k)
	}
	return nil
}

func (f *far) frame(key api.ServiceKey, origin *api.Origin, s *api.Summary) api.Frame {
	out := api.Frame{Kind: api.FrameReplica, Service: key.Service, Origin: &f.steer([]api.Origin{*origin})[0], Summary: s}
	if key.Namespace != api.DefaultNamespace {
		out.Namespace = key.Namespace
	}
	return out
}

// collect returns every row of the watched services.
func (f *far) collect() map[farKey]api.Replica {
	out := map[farKey]api.Replica{}
	if f.services != nil {
		for key := range f.services {
			for _, rep := range f.replicas.Lookup(key) {
				if rep.Summary != nil {
					out[farKey{rep.Origin.Region, key}] = rep
				}
			}
		}
		return out
	}
	for _, o := range f.replicas.Origins() {
		for _, s := range f.replicas.Services(o.Region) {
			if s.Namespace == f.ns || f.ns == api.AllNamespaces {
				out[farKey{o.Region, s.Key()}] = api.Replica{Origin: o, Summary: s}
			}
		}
	}
	return out
}

func compareFar(a, b farKey) int {
	return cmp.Or(catalog.CompareKeys(a.key, b.key), cmp.Compare(a.region, b.region))
}

func sortedKeys[V any](m map[api.ServiceKey]V) []api.ServiceKey {
	return slices.SortedFunc(maps.Keys(m), catalog.CompareKeys)
}
