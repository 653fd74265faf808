package view

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// replica applies what a node says about a service in another region than its own.
func (b *Book) replica(f api.Frame, now time.Time) Effect {
	if f.Origin == nil || f.Origin.Region == "" {
		return Effect{}
	}
	key := frameKey(f)
	if f.Service == "" && f.Summary != nil {
		key = f.Summary.Key()
	}
	s := b.services[key]
	if s == nil {
		return Effect{}
	}
	o := f.Origin
	if seen := b.stream.seen; seen != nil {
		if seen[key] == nil {
			seen[key] = map[api.Region]struct{}{}
		}
		seen[key][o.Region] = struct{}{}
	}
	b.learn(*o, f.Version.Region, now)
	if !b.summary(s, o, f.Summary, now) {
		return Effect{}
	}
	if b.stream.listing != nil && !s.synced {
		return Effect{} // the first view waits for the list to be complete
	}
	return Effect{Changed: []api.ServiceKey{key}}
}

// summary replaces what is known of a service in o's region; a nil sum says that it is not
// there any more. It reports whether anything was taken over.
func (b *Book) summary(s *service, o *api.Origin, sum *api.Summary, now time.Time) bool {
	old := s.content[o.Region]
	if !accepts(old, o.Version(), false) {
		return false
	}
	if sum == nil {
		if old == nil {
			return false
		}
		b.remove(s, o, now)
		return true
	}
	if old != nil && old.full && old.version == o.Version() {
		return false // the whole list at the same version says more
	}
	c := &content{
		version: o.Version(), endpoints: make(map[api.InstanceID]*held, len(sum.Endpoints)),
		total: sum.Total, passing: sum.Passing,
	}
	for i := range sum.Endpoints {
		c.endpoints[sum.Endpoints[i].ID] = &held{Endpoint: sum.Endpoints[i]}
	}
	if old != nil {
		switch {
		case old.version.Epoch != o.Epoch:
			c.keep(old, now)
		case o.Region == b.home && old.full && !sum.Complete:
			// Heard of home through a stranger who knows only some of its instances: that
			// is no reason to forget the others.
			for id, h := range old.endpoints {
				if _, ok := c.endpoints[id]; !ok {
					c.endpoints[id] = h
				}
			}
		default:
			for id, h := range old.endpoints { // holds go on
				if _, ok := c.endpoints[id]; !ok && !h.until.IsZero() {
					c.endpoints[id] = h
				}
			}
		}
	}
	s.content[o.Region] = c
	return true
}

// confirm notes that the stream's own region is at version now, and what the frame says
// of the other regions.
func (b *Book) confirm(f api.Frame, now time.Time) {
	v := f.Version
	if v.Region == "" {
		return
	}
	r := b.region(v.Region)
	if o := v.Compare(r.version); o != api.Older {
		r.version = v
	}
	r.confirmed, r.complete, r.source = now, true, api.SourceMemory
	if len(f.Addresses) > 0 {
		r.addresses = f.Addresses
	}
	for _, o := range f.Origins {
		b.learn(o, v.Region, now)
	}
}

// Alive notes a sign of life of the node that the stream is held with: what was known of
// its region still holds.
func (b *Book) Alive(name api.Region, now time.Time) {
	if r := b.regions[name]; r != nil && r.source == api.SourceMemory {
		r.confirmed = now
	}
}

func (b *Book) region(name api.Region) *region {
	r := b.regions[name]
	if r == nil {
		r = &region{rank: 2}
		b.regions[name] = r
	}
	return r
}

// learn takes over what a node of region teller says of another region, unless better is
// known.
func (b *Book) learn(o api.Origin, teller api.Region, now time.Time) {
	if o.Region == "" || o.Region == teller {
		return
	}
	r := b.region(o.Region)
	if teller == b.home && o.RTTMS > 0 {
		// Distances count from home; those of a stranger are of no use here.
		r.rtt = o.RTTMS
	}
	if len(o.Addresses) > 0 {
		r.addresses = o.Addresses
	}
	confirmed := now.Add(-time.Duration(o.AgeMS) * time.Millisecond)
	switch o.Version().Compare(r.version) {
	case api.Older:
		return
	case api.Same:
		if confirmed.Before(r.confirmed) {
			return
		}
	case api.Conflict:
		if r.source == api.SourceMemory {
			return
		}
	}
	r.version, r.confirmed, r.complete = o.Version(), confirmed, o.Complete
	r.source = o.Source
	if r.source == "" || r.source == api.SourceMemory {
		r.source = api.SourceReplica
	}
}

// Poll applies a resolution asked for while no watch can be held. It says less than a
// watch: the endpoints are those of a decision, so they are taken like summaries.
func (b *Book) Poll(key api.ServiceKey, from api.Region, res api.Resolution, now time.Time) Effect {
	s := b.services[key]
	if s == nil {
		return Effect{}
	}
	byRegion := map[api.Region][]api.Endpoint{}
	for _, e := range res.Endpoints {
		byRegion[e.Region] = append(byRegion[e.Region], e)
	}
	for i := range res.Views {
		o := &res.Views[i]
		if o.Region == from {
			if b.isOlder(o.Version()) {
				continue
			}
			b.confirm(api.Frame{Version: o.Version()}, now)
		} else {
			b.learn(*o, from, now)
		}
		list := byRegion[o.Region]
		if len(list) == 0 {
			if c := s.content[o.Region]; c != nil && o.Complete && accepts(c, o.Version(), o.Region == from) {
				b.remove(s, o, now)
			}
			continue
		}
		sum := &api.Summary{Endpoints: list, Total: len(list), Complete: true}
		for _, e := range list {
			if e.Status.Usable() {
				sum.Passing++
			}
		}
		b.summary(s, o, sum, now)
	}
	s.synced = true
	return Effect{Changed: []api.ServiceKey{key}, Synced: true}
}
