package follow

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/nearside/nearside/sdk/api"
)

// shardCount divides an image so that a change copies a part of it only.
const shardCount = 256

// service is one service of an image; immutable.
type service struct {
	instances []*api.Instance // by id
	// revision is that of the last change. After a list it may be that of the list, if
	// instances went that were there before: nobody tells when.
	revision uint64
}

// image is an immutable picture of the region. It implements peer.Image.
type image struct {
	version api.Version
	shards  [shardCount]map[api.ServiceKey]*service

	sortOnce sync.Once
	sorted   []api.ServiceKey
}

// Version implements peer.Image; zero before the first list.
func (m *image) Version() api.Version { return m.version }

// Services implements peer.Image.
func (m *image) Services() []api.ServiceKey {
	m.sortOnce.Do(func() {
		for i := range m.shards {
			for k := range m.shards[i] {
				m.sorted = append(m.sorted, k)
			}
		}
		slices.SortFunc(m.sorted, compareKeys)
	})
	return m.sorted
}

// Service implements peer.Image.
func (m *image) Service(k api.ServiceKey) ([]*api.Instance, uint64) {
	if s := m.shards[shardOf(k)][k]; s != nil {
		return s.instances, s.revision
	}
	return nil, 0
}

func shardOf(k api.ServiceKey) int {
	h := uint32(2166136261)
	for _, s := range []string{string(k.Namespace), "/", string(k.Service)} {
		for i := range len(s) {
			h = (h ^ uint32(s[i])) * 16777619
		}
	}
	return int(h % shardCount)
}

func compareKeys(a, b api.ServiceKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service))
}

// edit builds a new image from another one.
type edit struct {
	m     *image
	owned [shardCount]bool
	keys  map[api.ServiceKey]struct{} // that were touched
}

func newEdit(base *image) *edit {
	return &edit{m: &image{version: base.version, shards: base.shards}, keys: make(map[api.ServiceKey]struct{})}
}

func (e *edit) shard(k api.ServiceKey) map[api.ServiceKey]*service {
	i := shardOf(k)
	if !e.owned[i] {
		e.m.shards[i] = maps.Clone(e.m.shards[i])
		if e.m.shards[i] == nil {
			e.m.shards[i] = make(map[api.ServiceKey]*service)
		}
		e.owned[i] = true
	}
	return e.m.shards[i]
}

// set makes instances those of a service, none to remove it.
func (e *edit) set(k api.ServiceKey, s *service) {
	e.keys[k] = struct{}{}
	if len(s.instances) == 0 {
		delete(e.shard(k), k)
		return
	}
	e.shard(k)[k] = s
}

// change takes one change of an instance.
func (e *edit) change(op api.Op, in *api.Instance, revision uint64) {
	k := in.Key().ServiceKey()
	var next []*api.Instance
	if old := e.m.shards[shardOf(k)][k]; old != nil {
		next = slices.Clone(old.instances)
	}
	at, found := slices.BinarySearchFunc(next, in.ID, func(i *api.Instance, id api.InstanceID) int { return cmp.Compare(i.ID, id) })
	switch {
	case op == api.OpDelete && found:
		next = slices.Delete(next, at, at+1)
	case op == api.OpDelete:
	case found:
		next[at] = in
	default:
		next = slices.Insert(next, at, in)
	}
	e.set(k, &service{next, revision})
}

// replace makes items all that there is, as of version, and keeps what is the same.
func (e *edit) replace(items map[api.ServiceKey][]*api.Instance, version api.Version) {
	sameHistory := e.m.version.Epoch == version.Epoch
	for k, list := range items {
		slices.SortFunc(list, func(a, b *api.Instance) int { return cmp.Compare(a.ID, b.ID) })
		var newest uint64
		for _, in := range list {
			newest = max(newest, in.Revision)
		}
		if old := e.m.shards[shardOf(k)][k]; old != nil && sameHistory {
			if sameSet(old.instances, list) {
				continue
			}
			newest = max(newest, old.revision)
			if wentFrom(old.instances, list) {
				newest = version.Revision
			}
		}
		e.set(k, &service{list, newest})
	}
	for i := range shardCount {
		for k := range e.m.shards[i] {
			if _, there := items[k]; !there {
				e.set(k, &service{}) // deletes from the shard, which ranging allows
			}
		}
	}
}

// sameSet reports whether two sorted lists are the same records of one history.
func sameSet(a, b []*api.Instance) bool {
	return slices.EqualFunc(a, b, func(x, y *api.Instance) bool { return x.ID == y.ID && x.Revision == y.Revision })
}

// wentFrom reports whether an instance of old is not in list; both are sorted.
func wentFrom(old, list []*api.Instance) bool {
	for _, in := range old {
		if _, ok := slices.BinarySearchFunc(list, in.ID, func(i *api.Instance, id api.InstanceID) int { return cmp.Compare(i.ID, id) }); !ok {
			return true
		}
	}
	return false
}
