package view

import (
	"slices"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// stream is the state of the watch that feeds the Book.
type stream struct {
	services []api.ServiceKey
	// listing collects the items between the start (or a reset) and synced, so that a list
	// becomes visible as one; nil on a live stream.
	listing map[api.ServiceKey]map[api.InstanceID]*held
	// seen notes the replicas that came before synced, where all are told, also on a
	// resumed stream: an origin of which everything is known and that was not named for a
	// service does not have it. nil after synced.
	seen map[api.ServiceKey]map[api.Region]struct{}
	// ruled notes the services whose policy came before synced, where all are told: another
	// has none. nil after synced.
	ruled   map[api.ServiceKey]struct{}
	reset   bool        // the listing follows a reset
	pending []api.Frame // changes of one revision, until its last
}

// Effect is what a frame did.
type Effect struct {
	Changed []api.ServiceKey // their views differ now
	Synced  bool             // the listing is complete
}

// Begin starts a stream over services. resumed tells that it continues at a version, so
// that no listing is expected (a reset may still bring one).
func (b *Book) Begin(services []api.ServiceKey, resumed bool) {
	b.stream = &stream{services: services}
	b.stream.expect()
	if !resumed {
		b.stream.start(false)
	}
}

// Listing reports whether a list is being sent, so that the stream cannot be resumed yet.
func (b *Book) Listing() bool { return b.stream != nil && b.stream.listing != nil }

func (s *stream) start(reset bool) {
	s.listing = map[api.ServiceKey]map[api.InstanceID]*held{}
	s.expect()
	s.reset, s.pending = reset, nil
}

// expect begins to note what is told before synced.
func (s *stream) expect() {
	s.seen = map[api.ServiceKey]map[api.Region]struct{}{}
	s.ruled = map[api.ServiceKey]struct{}{}
}

// Apply takes one frame of the stream begun last. Frames of services that were not asked
// for are ignored. The only error is ErrOlder.
func (b *Book) Apply(f api.Frame, now time.Time) (Effect, error) {
	st := b.stream
	if st == nil {
		return Effect{}, nil
	}
	switch f.Kind {
	case api.FrameItem:
		if f.Instance == nil {
			return Effect{}, nil
		}
		if st.listing == nil {
			st.start(false)
		}
		st.stage(f)
	case api.FrameReset:
		st.start(true)
	case api.FrameChange:
		return b.change(f, now), nil
	case api.FrameReplica:
		return b.replica(f, now), nil
	case api.FramePolicy:
		return b.policy(f), nil
	case api.FrameSynced:
		if b.isOlder(f.Version) {
			return Effect{}, ErrOlder
		}
		return b.synced(f, now), nil
	case api.FrameBookmark:
		if b.isOlder(f.Version) {
			return Effect{}, ErrOlder
		}
		b.confirm(f, now)
		changed := union(b.wishes(f), b.loads(f, false))
		if b.judge(f) {
			changed = append(changed, b.nowhere()...)
		}
		return Effect{Changed: changed}, nil
	}
	return Effect{}, nil
}

// judge takes over what a synced or bookmark says of how much of the other regions is known.
// It reports whether that makes a difference to services of which nothing is known.
func (b *Book) judge(f api.Frame) bool {
	teller := f.Version.Region
	whole, home := true, teller == b.home
	for i := range f.Origins {
		if o := &f.Origins[i]; o.Region != teller {
			whole = whole && o.Complete
			home = home || o.Region == b.home && o.Complete
		}
	}
	was := b.whole
	b.whole = whole && home
	return b.whole != was
}

// nowhere returns the services that no region has.
func (b *Book) nowhere() []api.ServiceKey {
	var keys []api.ServiceKey
	for key, s := range b.services {
		if s.synced && s.nowhere() {
			keys = append(keys, key)
		}
	}
	return keys
}

func (s *service) nowhere() bool {
	for _, c := range s.content {
		if len(c.endpoints) > 0 || c.total > 0 {
			return false
		}
	}
	return true
}

// isOlder reports whether a node's own version is below the best seen of its region. An
// equal generation with another nonce is a new history that only its origin can tell of,
// and here the origin itself speaks.
func (b *Book) isOlder(v api.Version) bool {
	r := b.regions[v.Region]
	return r != nil && v.Compare(r.version) == api.Older
}

func (s *stream) stage(f api.Frame) {
	key := frameKey(f)
	m := s.listing[key]
	if m == nil {
		m = map[api.InstanceID]*held{}
		s.listing[key] = m
	}
	m[f.Instance.ID] = &held{Endpoint: f.Instance.Endpoint()}
}

func frameKey(f api.Frame) api.ServiceKey {
	key := api.ServiceKey{Namespace: f.Namespace, Service: f.Service}
	if f.Instance != nil {
		if key.Service == "" {
			key.Service = f.Instance.Service
		}
		if key.Namespace == "" {
			key.Namespace = f.Instance.Namespace
		}
	}
	if key.Namespace == "" {
		key.Namespace = api.DefaultNamespace
	}
	return key
}

// synced makes a finished listing visible, and drops or holds what it did not contain.
func (b *Book) synced(f api.Frame, now time.Time) Effect {
	st := b.stream
	var eff Effect
	for _, key := range st.services {
		s := b.services[key]
		if s == nil || !st.covers(s) {
			continue
		}
		if st.listing != nil {
			s.replace(f.Version, st.listing[key], st.reset, now)
		}
		if st.seen != nil {
			for i := range f.Origins {
				b.absent(s, &f.Origins[i], f.Version.Region, st.seen[key], now)
			}
		}
		if _, ok := st.ruled[key]; !ok && st.ruled != nil && f.Version.Region == b.home {
			s.policy = nil
		}
	}
	b.wishes(f)
	b.loads(f, true)
	var nowhere []api.ServiceKey
	if b.judge(f) {
		nowhere = b.nowhere()
	}
	for _, key := range st.services {
		if s := b.services[key]; s != nil && st.covers(s) {
			s.synced = true
			eff.Changed = append(eff.Changed, key)
		}
	}
	st.listing, st.seen, st.ruled, st.reset = nil, nil, nil, false
	for _, key := range nowhere {
		if !slices.Contains(st.services, key) {
			eff.Changed = append(eff.Changed, key)
		}
	}
	b.confirm(f, now)
	eff.Synced = true
	return eff
}

// covers reports whether what came before synced is an answer for the service: a list is, for
// all that were asked for; a stream that was resumed without one only for those it continues,
// not for one that was let go and asked for again since.
func (s *stream) covers(svc *service) bool { return s.listing != nil || svc.synced }

// replace sets the region's instances to a complete list as of version.
func (s *service) replace(version api.Version, list map[api.InstanceID]*held, reset bool, now time.Time) {
	old := s.content[version.Region]
	c := &content{version: version, endpoints: list, full: true, direct: true}
	if c.endpoints == nil {
		c.endpoints = map[api.InstanceID]*held{}
	}
	if old != nil && (reset || old.version.Epoch != version.Epoch) {
		c.keep(old, now)
	}
	s.content[version.Region] = c
}

// keep holds the usable instances of old that c lacks.
func (c *content) keep(old *content, now time.Time) {
	for id, h := range old.endpoints {
		if _, ok := c.endpoints[id]; ok || !h.Status.Usable() {
			continue
		}
		if h.until.IsZero() {
			h = &held{Endpoint: h.Endpoint, until: now.Add(Hold)}
		}
		c.endpoints[id] = h
	}
}

// absent handles a region that listed everything it has without naming the service.
func (b *Book) absent(s *service, o *api.Origin, teller api.Region, seen map[api.Region]struct{}, now time.Time) {
	if o.Region == teller {
		return // its own list was told
	}
	c := s.content[o.Region]
	if _, ok := seen[o.Region]; ok || c == nil || !o.Complete || !accepts(c, o.Version(), false) {
		return
	}
	b.remove(s, o, now)
}

// remove takes a region's instances away: at once when its history says so, with a hold
// when that history is a new one.
func (b *Book) remove(s *service, o *api.Origin, now time.Time) {
	old := s.content[o.Region]
	c := &content{version: o.Version(), endpoints: map[api.InstanceID]*held{}}
	if old.version.Epoch != o.Epoch {
		c.keep(old, now)
	}
	s.content[o.Region] = c
}

// accepts reports whether knowledge of version may replace c. Two histories of the same
// generation cannot be ordered: then the region's own word counts, and hearsay does not
// replace it.
func accepts(c *content, v api.Version, direct bool) bool {
	if c == nil || c.version.IsZero() {
		return true
	}
	switch v.Compare(c.version) {
	case api.Older:
		return false
	case api.Conflict:
		return direct || !c.direct
	}
	return true
}

// change applies changes of one revision together.
func (b *Book) change(f api.Frame, now time.Time) Effect {
	st := b.stream
	if f.Instance == nil {
		return Effect{}
	}
	if st.listing != nil { // not promised by the registry, but harmless
		if f.Op == api.OpDelete {
			delete(st.listing[frameKey(f)], f.Instance.ID)
		} else {
			st.stage(f)
		}
		return Effect{}
	}
	st.pending = append(st.pending, f)
	if f.More {
		return Effect{}
	}
	batch := st.pending
	st.pending = nil
	var eff Effect
	for _, f := range batch {
		key := frameKey(f)
		s := b.services[key]
		// A service that was let go and asked for again since has no list yet that a change
		// could add to.
		if s == nil || !s.synced || !s.change(f) {
			continue
		}
		if !slices.Contains(eff.Changed, key) {
			eff.Changed = append(eff.Changed, key)
		}
	}
	b.confirm(api.Frame{Version: f.Version}, now)
	return eff
}

func (s *service) change(f api.Frame) bool {
	c := s.content[f.Version.Region]
	if !accepts(c, f.Version, true) {
		return false
	}
	if c == nil {
		c = &content{endpoints: map[api.InstanceID]*held{}, full: true}
		s.content[f.Version.Region] = c
	}
	c.version, c.direct = f.Version, true
	if f.Op == api.OpDelete {
		delete(c.endpoints, f.Instance.ID)
	} else {
		c.endpoints[f.Instance.ID] = &held{Endpoint: f.Instance.Endpoint()}
	}
	return true
}
