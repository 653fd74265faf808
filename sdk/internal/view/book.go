// Package view holds what one client knows of the services it asked for, region by
// region, and merges what watches, polls and snapshots say into it.
//
// It is pure: callers pass the time in, and nothing here does I/O. Its rules:
//
//   - Knowledge of a region never goes back to an older (epoch, revision) (P4).
//   - Silence removes nothing; it only ages (P10).
//   - An explicit delete applies at once. An instance that is merely missing after the
//     region's history restarted (a new epoch, a reset) stays as it was for [Hold], so that
//     a registry that came back with an empty disk neither empties its callers (P7) nor
//     moves their traffic: losing its memory says nothing about the instances (P10).
//
// A Book is not safe for concurrent use; its owner locks.
package view

import (
	"errors"
	"sort"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// Hold is how long instances stay after their region's history restarted
// without them. It is two default TTLs: whoever lives has registered again by then.
const Hold = 30 * time.Second

// confirmedWithin bounds how old the last word of a region may be for a hold to end: a
// region that went silent again must not lose instances by the passing of time.
const confirmedWithin = 15 * time.Second

// ErrOlder is returned by Apply when a node shows a version of its own region below what
// the client already saw: the node lags or was restored. Leave it for another one.
var ErrOlder = errors.New("the node is behind what was already seen of its region")

// Book is the knowledge of one client about a set of services.
type Book struct {
	home     api.Region
	regions  map[api.Region]*region
	services map[api.ServiceKey]*service
	stream   *stream
}

// region is what is known about a region as a whole.
type region struct {
	version   api.Version // the best seen
	confirmed time.Time   // when the origin last confirmed version, by our clock
	complete  bool
	source    string
	rtt       int64
	addresses []string
	rank      int // of the state at the last look, see rankOf
}

// service is what is known about one service.
type service struct {
	content map[api.Region]*content
	// synced is set once a stream or poll answered for this service; before, there is at
	// most a snapshot.
	synced bool
}

// content is a service's instances in one region. An empty one says that the service is
// gone there as of version, and keeps older knowledge from bringing it back.
type content struct {
	version        api.Version // as of which the endpoints are known
	endpoints      map[api.InstanceID]*held
	full           bool // every instance, not a summary's fail-over set
	direct         bool // said by the region itself
	total, passing int  // from a summary; unused when full
}

// held is an endpoint, and until when it is kept if its region lost it (zero = it exists).
type held struct {
	api.Endpoint
	until time.Time
}

// New returns an empty Book. home may be "" until it is learned.
func New(home api.Region) *Book {
	return &Book{
		home: home, regions: map[api.Region]*region{}, services: map[api.ServiceKey]*service{},
	}
}

// Home returns the home region, "" while it is not known.
func (b *Book) Home() api.Region { return b.home }

// SetHome names the home region.
func (b *Book) SetHome(r api.Region) { b.home = r }

// Want adds a service.
func (b *Book) Want(key api.ServiceKey) {
	if b.services[key] == nil {
		b.services[key] = &service{content: map[api.Region]*content{}}
	}
}

// Wanted returns the services, sorted.
func (b *Book) Wanted() []api.ServiceKey {
	keys := make([]api.ServiceKey, 0, len(b.services))
	for k := range b.services {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		if keys[i].Namespace != keys[j].Namespace {
			return keys[i].Namespace < keys[j].Namespace
		}
		return keys[i].Service < keys[j].Service
	})
	return keys
}

// Synced reports whether a registry has answered for the service.
func (b *Book) Synced(key api.ServiceKey) bool {
	s := b.services[key]
	return s != nil && s.synced
}

// Known reports whether anything is known of the service: an answer or a snapshot.
func (b *Book) Known(key api.ServiceKey) bool {
	s := b.services[key]
	return s != nil && (s.synced || len(s.content) > 0)
}

// View returns what is known of the service in the regions that have it, with ages as of
// now. The endpoints are copies. Regions and endpoints are in order of their names.
func (b *Book) View(key api.ServiceKey, now time.Time) route.View {
	v := route.View{Key: key}
	s := b.services[key]
	if s == nil {
		return v
	}
	for r, c := range s.content {
		if len(c.endpoints) > 0 || c.total > 0 {
			v.Regions = append(v.Regions, b.regionView(c, r, now))
		}
	}
	sort.Slice(v.Regions, func(i, j int) bool { return v.Regions[i].Origin.Region < v.Regions[j].Origin.Region })
	return v
}

func (b *Book) regionView(c *content, name api.Region, now time.Time) route.RegionView {
	rv := route.RegionView{Origin: b.Origin(name, now)}
	rv.Endpoints = make([]api.Endpoint, 0, len(c.endpoints))
	passing := 0
	for _, h := range c.endpoints {
		e := h.Endpoint
		e.Region, e.Tier = name, 0
		if e.Status.Usable() && !e.Overdue {
			passing++
		}
		rv.Endpoints = append(rv.Endpoints, e)
	}
	sort.Slice(rv.Endpoints, func(i, j int) bool { return rv.Endpoints[i].ID < rv.Endpoints[j].ID })
	rv.Total, rv.Passing = c.total, c.passing
	if c.full {
		rv.Total, rv.Passing = len(c.endpoints), passing
	}
	return rv
}

// Origin returns what is known of a region, with its age as of now.
func (b *Book) Origin(name api.Region, now time.Time) api.Origin {
	o := api.Origin{Region: name, State: api.AgeExpired}
	r := b.regions[name]
	if r == nil {
		return o
	}
	age := r.age(now)
	o.Epoch, o.Revision = r.version.Epoch, r.version.Revision
	o.AgeMS, o.State = age.Milliseconds(), StateOf(age)
	o.Complete, o.Source, o.RTTMS, o.Addresses = r.complete, r.source, r.rtt, r.addresses
	return o
}

// Origins returns every region known, by name.
func (b *Book) Origins(now time.Time) []api.Origin {
	list := make([]api.Origin, 0, len(b.regions))
	for name := range b.regions {
		list = append(list, b.Origin(name, now))
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Region < list[j].Region })
	return list
}

func (r *region) age(now time.Time) time.Duration { return max(0, now.Sub(r.confirmed)) }

// StateOf grades an age.
func StateOf(age time.Duration) api.AgeState {
	switch {
	case age < 5*time.Second:
		return api.AgeFresh
	case age < 30*time.Second:
		return api.AgeStale
	case age < 15*time.Minute:
		return api.AgeSuspect
	}
	return api.AgeExpired
}

// rankOf folds states that route alike: between two bookmarks a region swings from fresh
// to stale and back, and nobody should decide anew for that.
func rankOf(s api.AgeState) int {
	switch s {
	case api.AgeFresh, api.AgeStale:
		return 0
	case api.AgeSuspect:
		return 1
	}
	return 2
}

// Tick ends holds and notices regions that aged into another class. It returns the
// services whose view changed by that.
func (b *Book) Tick(now time.Time) []api.ServiceKey {
	aged := false
	for _, r := range b.regions {
		if rank := rankOf(StateOf(r.age(now))); rank != r.rank {
			r.rank, aged = rank, true
		}
	}
	var changed []api.ServiceKey
	for key, s := range b.services {
		if b.sweep(s, now) || aged {
			changed = append(changed, key)
		}
	}
	return changed
}

// sweep removes instances whose hold is over, in regions that spoke lately.
func (b *Book) sweep(s *service, now time.Time) bool {
	swept := false
	for name, c := range s.content {
		r := b.regions[name]
		if r == nil || r.age(now) > confirmedWithin {
			continue
		}
		for id, h := range c.endpoints {
			if !h.until.IsZero() && !now.Before(h.until) {
				delete(c.endpoints, id)
				swept = true
			}
		}
	}
	return swept
}
