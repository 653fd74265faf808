package view

import (
	"slices"
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
	s.loaded(o.Region, sum)
	if sum == nil {
		if old == nil {
			return false
		}
		b.remove(s, o, now)
		return true
	}
	if old != nil && old.full && old.version == o.Version() {
		heard := !old.read.IsZero() // what an Image said is confirmed
		old.read = time.Time{}
		return heard // the whole list at the same version says more
	}
	c := &content{
		version: o.Version(), endpoints: make(map[api.InstanceID]*held, len(sum.Endpoints)),
		total: sum.Total, passing: sum.Passing, draining: sum.Draining,
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

// wishes takes over what a synced or bookmark says of drains and of regions that are down. It
// returns the services that have to do with a region of which that changed. The own region
// of the node is named only while it is drained. The word of the node counts whatever
// version of a region it knows; also a stranger's, while home is silent: it may be the only
// place where a drain of a dead region can be written.
func (b *Book) wishes(f api.Frame) []api.ServiceKey {
	changed := map[api.Region]struct{}{}
	set := func(name api.Region, drained float64, down bool) {
		if name == "" {
			return
		}
		if !(drained > 0) {
			drained = 0
		}
		r := b.region(name)
		if drained = min(drained, 100); r.drained != drained || r.down != down {
			r.drained, r.down = drained, down
			changed[name] = struct{}{}
		}
	}
	own := 0.0
	for i := range f.Origins {
		if o := &f.Origins[i]; o.Region == f.Version.Region {
			own = o.Drained
		} else {
			set(o.Region, o.Drained, o.Down)
		}
	}
	set(f.Version.Region, own, false)
	if len(changed) == 0 {
		return nil
	}
	var keys []api.ServiceKey
	for key, s := range b.services {
		for name := range s.content {
			if _, ok := changed[name]; ok {
				keys = append(keys, key)
				break
			}
		}
	}
	return keys
}

// loads takes over what a synced or bookmark says of how much services of the node's own region
// are used, and returns those of which that changed. all tells that what is not named is not
// known.
func (b *Book) loads(f api.Frame, all bool) (changed []api.ServiceKey) {
	region := f.Version.Region
	if all {
		for _, key := range b.stream.services {
			if s := b.services[key]; s != nil {
				delete(s.load, region)
			}
		}
	}
	for i := range f.Loads {
		l := &f.Loads[i]
		key := frameKey(api.Frame{Namespace: l.Namespace, Service: l.Service})
		if s := b.services[key]; s != nil && s.told(region, int(l.Percent)) {
			changed = append(changed, key)
		}
	}
	return changed
}

// loaded takes over the load of a summary; nil has none.
func (s *service) loaded(region api.Region, sum *api.Summary) {
	if sum == nil {
		s.told(region, 0)
		return
	}
	s.told(region, sum.Load)
}

// told notes a load, and reports whether it is another one.
func (s *service) told(region api.Region, percent int) bool {
	if percent = min(max(percent, 0), api.MaxLoadPercent); s.load[region] == percent {
		return false
	}
	s.load[region] = percent
	return true
}

// union returns a with what b has besides.
func union(a, b []api.ServiceKey) []api.ServiceKey {
	for _, key := range b {
		if !slices.Contains(a, key) {
			a = append(a, key)
		}
	}
	return a
}

// policy takes over a service's policy. Only home's counts: it is a rule for the callers of
// the region that tells it.
func (b *Book) policy(f api.Frame) Effect {
	key := frameKey(f)
	s := b.services[key]
	if s == nil || f.Version.Region != b.home {
		return Effect{}
	}
	if b.stream.ruled != nil {
		b.stream.ruled[key] = struct{}{}
	}
	s.policy = f.Policy
	if b.stream.listing != nil && !s.synced {
		return Effect{} // the first view waits for the list to be complete
	}
	return Effect{Changed: []api.ServiceKey{key}}
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
		r = &region{}
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
			if o.Drained >= 100 {
				continue // not offered, but there, and the last resort
			}
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
		sum.Load = res.Loads[o.Region]
		b.summary(s, o, sum, now)
	}
	s.synced = true
	if from == b.home && len(res.Views) > 0 {
		s.policy = res.Policy // not found says nothing of it, and leaves what it is for
	}
	said := api.Frame{Version: api.Version{Region: from}, Origins: res.Views}
	changed := b.wishes(said)
	if len(res.Views) == 0 {
		// Not found. The node says no more than that, and is taken by its word.
		b.whole = b.whole || from == b.home
	} else if b.judge(said) {
		changed = append(changed, b.nowhere()...)
	}
	if !slices.Contains(changed, key) {
		changed = append(changed, key)
	}
	return Effect{Changed: changed, Synced: true}
}
