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
	own      route.Policy
	regions  map[api.Region]*region
	services map[api.ServiceKey]*service
	stream   *stream
	// whole tells that the node asked last knows every service of its own region, of home and
	// of every other region it knows of, so that a service that none of them has is nowhere.
	whole bool
}

// region is what is known about a region as a whole.
type region struct {
	version   api.Version // the best seen
	confirmed time.Time   // when the origin last confirmed version, by our clock
	complete  bool
	source    string
	rtt       int64
	addresses []string
	// What the node that the stream is held with wishes and says of it: these are not the
	// region's own words, and have no version.
	drained float64
	down    bool
}

// service is what is known about one service.
type service struct {
	own     route.Policy // the program's wishes for it alone
	content map[api.Region]*content
	// policy is the home region's; nil = none.
	policy *api.Policy
	// shown is what the last View said of each region that has the service.
	shown map[api.Region]api.Origin
	// synced is set once a stream or poll answered for this service; before, there is at
	// most a snapshot.
	synced bool
	// load is how much the service is used, by region, in percent; 0 = not known. It has no
	// version: it is as old as the last word of its region.
	load map[api.Region]int
}

// content is a service's instances in one region. An empty one says that the service is
// gone there as of version, and keeps older knowledge from bringing it back.
type content struct {
	version   api.Version // as of which the endpoints are known
	endpoints map[api.InstanceID]*held
	full      bool // every instance, not a summary's fail-over set
	direct    bool // said by the region itself
	// read is when an Image said so, if that is all that is known: however young the region's
	// version is, this is as old as the Image. Zero = told by a node.
	read time.Time
	// From a summary; unused when full.
	total, passing, draining int
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
		b.services[key] = &service{content: map[api.Region]*content{}, shown: map[api.Region]api.Origin{}, load: map[api.Region]int{}}
	}
}

// Drop forgets a service. A stream that is held for it may go on; what it says of the service
// is ignored.
func (b *Book) Drop(key api.ServiceKey) { delete(b.services, key) }

// Heard reports whether a node ever answered.
func (b *Book) Heard() bool {
	for _, s := range b.services {
		if s.synced {
			return true
		}
	}
	return false
}

// Whole reports whether a service of which nothing is known is nowhere. While a region is
// known in part only, or home through nobody, it may be there.
func (b *Book) Whole() bool { return b.whole }

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

// SetOwn sets the program's own wishes for all services.
func (b *Book) SetOwn(p route.Policy) { b.own = p }

// SetOwnOf sets the program's own wishes for one wanted service, beside those for all.
func (b *Book) SetOwnOf(key api.ServiceKey, p route.Policy) {
	if s := b.services[key]; s != nil {
		s.own = p
	}
}

// narrowed returns what comes of the home region's policy with the program's own wishes.
func (b *Book) narrowed(s *service) route.Policy {
	return route.PolicyOf(s.policy).Narrow(b.own).Narrow(s.own)
}

// Policy returns the home region's policy for the service, nil = none is known; and what comes
// of it with the program's own wishes. Neither changes.
func (b *Book) Policy(key api.ServiceKey) (*api.Policy, route.Policy) {
	if s := b.services[key]; s != nil {
		return s.policy, b.narrowed(s)
	}
	return nil, b.own
}

// View returns what is known of the service in the regions that have it, with ages as of
// now. The endpoints are copies. Regions and endpoints are in order of their names.
func (b *Book) View(key api.ServiceKey, now time.Time) route.View {
	v := route.View{Key: key}
	s := b.services[key]
	if s == nil {
		return v
	}
	clear(s.shown)
	for r, c := range s.content {
		if len(c.endpoints) > 0 || c.total > 0 {
			rv := b.regionView(c, r, now)
			rv.Load = float64(s.load[r])
			v.Regions = append(v.Regions, rv)
			s.shown[r] = rv.Origin
		}
	}
	sort.Slice(v.Regions, func(i, j int) bool { return v.Regions[i].Origin.Region < v.Regions[j].Origin.Region })
	return v
}

func (b *Book) regionView(c *content, name api.Region, now time.Time) route.RegionView {
	rv := route.RegionView{Origin: b.origin(c, name, now)}
	rv.Endpoints = make([]api.Endpoint, 0, len(c.endpoints))
	passing, draining := 0, 0
	for _, h := range c.endpoints {
		e := h.Endpoint
		e.Region, e.Tier = name, 0
		switch {
		case e.Status == api.StatusDraining:
			draining++
		case e.Status.Usable() && !e.Overdue:
			passing++
		}
		rv.Endpoints = append(rv.Endpoints, e)
	}
	sort.Slice(rv.Endpoints, func(i, j int) bool { return rv.Endpoints[i].ID < rv.Endpoints[j].ID })
	rv.Total, rv.Passing, rv.Draining = c.total, c.passing, c.draining
	if c.full {
		rv.Total, rv.Passing, rv.Draining = len(c.endpoints), passing, draining
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
	o.Drained, o.Down = r.drained, r.down
	return o
}

// origin returns what is known of a region as far as c goes.
func (b *Book) origin(c *content, name api.Region, now time.Time) api.Origin {
	o := b.Origin(name, now)
	if c != nil && !c.read.IsZero() {
		age := max(now.Sub(c.read), time.Duration(o.AgeMS)*time.Millisecond)
		o.AgeMS, o.State, o.Source = age.Milliseconds(), StateOf(age), api.SourceSnapshot
	}
	return o
}

// Origins returns every region known, by name, as far as the service is concerned: where only
// an Image tells of it, with the age of that. The zero key stands for no service.
func (b *Book) Origins(key api.ServiceKey, now time.Time) []api.Origin {
	list := make([]api.Origin, 0, len(b.regions))
	s := b.services[key]
	for name := range b.regions {
		var c *content
		if s != nil {
			c = s.content[name]
		}
		list = append(list, b.origin(c, name, now))
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

// Tick ends holds and notices regions that aged into another class, as far as a decision sees
// it: between two bookmarks a region swings from fresh to stale and back, and nobody should
// decide anew for that. It returns the services whose view changed.
func (b *Book) Tick(now time.Time) []api.ServiceKey {
	var changed []api.ServiceKey
	for key, s := range b.services {
		if b.sweep(s, now) || b.aged(s, now) {
			changed = append(changed, key)
		}
	}
	return changed
}

func (b *Book) aged(s *service, now time.Time) bool {
	p := b.narrowed(s)
	for name, o := range s.shown {
		if !p.Alike(o, b.origin(s.content[name], name, now)) {
			return true
		}
	}
	return false
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
