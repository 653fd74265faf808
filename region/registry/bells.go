package registry

import (
	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/sdk/api"
)

// bell wakes one watch, for changes of what it watches only. Commits that change nothing of
// it, and they are most, cost it nothing: a watch that was not marked since it last looked
// knows that there is nothing for it up to the head, whatever else was committed.
//
// All but c is guarded by Registry.mu: marked with the lock held for writing, looked at and
// reset by its own watch with the lock held for reading.
type bell struct {
	c chan struct{} // capacity 1
	// blind: it is not known what came after the watch's position.
	blind bool
	// first is the revision of the first change since the last look; 0 = there was none.
	first uint64
}

func newBell() *bell { return &bell{c: make(chan struct{}, 1), blind: true} }

// bells are those of all watches, by what they watch. It is guarded by Registry.mu.
type bells struct {
	services   map[api.ServiceKey]map[*bell]struct{}
	namespaces map[api.Namespace]map[*bell]struct{} // of watches of all services
}

// hang adds the bell of a watch; nil services mean all of the namespace, or of all of them.
func (b *bells) hang(one *bell, ns api.Namespace, services map[api.ServiceKey]struct{}) {
	if b.services == nil {
		b.services, b.namespaces = map[api.ServiceKey]map[*bell]struct{}{}, map[api.Namespace]map[*bell]struct{}{}
	}
	if services == nil {
		add(b.namespaces, ns, one)
	}
	for key := range services {
		add(b.services, key, one)
	}
}

// take removes what hang added.
func (b *bells) take(one *bell, ns api.Namespace, services map[api.ServiceKey]struct{}) {
	if services == nil {
		drop(b.namespaces, ns, one)
	}
	for key := range services {
		drop(b.services, key, one)
	}
}

func add[K comparable](m map[K]map[*bell]struct{}, key K, one *bell) {
	if m[key] == nil {
		m[key] = map[*bell]struct{}{}
	}
	m[key][one] = struct{}{}
}

func drop[K comparable](m map[K]map[*bell]struct{}, key K, one *bell) {
	delete(m[key], one)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

// mark notes the changes of one commit, in key order, and returns the bells to ring.
func (b *bells) mark(changes []catalog.Change) []*bell {
	var out []*bell
	note := func(set map[*bell]struct{}, revision uint64) {
		for one := range set {
			if one.first == 0 {
				one.first = revision
				out = append(out, one)
			}
		}
	}
	for i := range changes {
		key := changes[i].Key()
		if i > 0 && key == changes[i-1].Key() {
			continue
		}
		note(b.services[key], changes[i].Revision)
		note(b.namespaces[key.Namespace], changes[i].Revision)
		note(b.namespaces[api.AllNamespaces], changes[i].Revision)
	}
	return out
}

// markAll makes every watch look for itself: what was remembered is gone.
func (b *bells) markAll() []*bell {
	seen := map[*bell]struct{}{}
	for _, set := range b.services {
		for one := range set {
			seen[one] = struct{}{}
		}
	}
	for _, set := range b.namespaces {
		for one := range set {
			seen[one] = struct{}{}
		}
	}
	out := make([]*bell, 0, len(seen))
	for one := range seen {
		one.blind = true
		out = append(out, one)
	}
	return out
}

// ring wakes the watches of the bells. It never waits: one that was not heard yet will be.
func ring(list []*bell) {
	for _, one := range list {
		select {
		case one.c <- struct{}{}:
		default:
		}
	}
}
