package nearside

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Which services a client stops to watch. One that somebody has is let go only to make room
// for others: what is known of it may be needed when no registry answers. A name that nobody
// has is cheap to ask for again, and a program that passes on names from outside may ask for
// any number of them.
const (
	unknownIdle = time.Minute      // without a use, until a name that nobody has is let go
	maxUnknown  = 256              // of these; beyond them the longest unused are let go at once
	knownIdle   = 10 * time.Minute // without a use, until a service may be let go to make room
	roomAtOnce  = 64               // services let go together
)

// use tells how lately a service was used. Its methods may be called from anywhere; last is
// the keeper's.
type use struct {
	noted atomic.Bool // since the keeper's last look
	holds atomic.Int32
	last  time.Duration // of the client's clock; guarded by Client.mu
}

// released marks a service that is not watched any more.
const released = -1 << 30

// note is on the path of a Pick: a load and nothing else, but once a second.
func (u *use) note() {
	if !u.noted.Load() {
		u.noted.Store(true)
	}
}

// hold keeps the service until release. False: it is gone already.
func (u *use) hold() bool {
	for {
		n := u.holds.Load()
		if n < 0 {
			return false
		}
		if u.holds.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (u *use) release() { u.holds.Add(-1) }

// letGo marks the service as gone unless somebody holds or just used it.
func (u *use) letGo() bool { return !u.noted.Load() && u.holds.CompareAndSwap(0, released) }

// hold returns a service that is not let go until its use is released.
func (c *Client) hold(name string) (*service, error) {
	for {
		s, err := c.service(name)
		if err != nil {
			return nil, err
		}
		if s.use.hold() {
			return s, nil
		}
	}
}

// idle looks which services were used since the last time, and lets names go that nobody has
// and nobody asks for.
func (c *Client) idle() {
	now := c.clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	var unknown []*service
	for _, s := range *c.services.Load() { // one of two names comes twice
		if s.use.noted.Swap(false) || s.use.holds.Load() > 0 {
			s.use.last = now
		} else if s.use.last < now && s.unknown() {
			unknown = append(unknown, s)
		}
	}
	longestUnusedFirst(unknown)
	over := max(0, len(unknown)-maxUnknown)
	gone := unknown[:over:over]
	for _, s := range unknown[over:] {
		if now-s.use.last >= unknownIdle {
			gone = append(gone, s)
		}
	}
	c.dropLocked(gone)
}

// makeRoomLocked lets services go when there are too many. It reports whether any went.
func (c *Client) makeRoomLocked() bool {
	now := c.clock()
	var unknown, known []*service
	for _, s := range *c.services.Load() {
		switch {
		case s.use.noted.Load() || s.use.holds.Load() > 0:
		case s.unknown():
			unknown = append(unknown, s)
		case now-s.use.last >= knownIdle:
			known = append(known, s)
		}
	}
	longestUnusedFirst(unknown)
	longestUnusedFirst(known)
	list := append(unknown, known...)
	return c.dropLocked(list[:min(len(list), roomAtOnce)]) > 0
}

func longestUnusedFirst(list []*service) {
	slices.SortFunc(list, func(a, b *service) int { return int(min(max(a.use.last-b.use.last, -1), 1)) })
}

// unknown reports whether the service is, as far as is known, nowhere.
func (s *service) unknown() bool {
	a := s.answer.Load()
	return a == nil || a.decision.Reason == api.ReasonServiceNotFound
}

// dropLocked stops to watch services, and their watchers that have nothing else to do. It
// returns how many there were; one that is used in that moment stays.
func (c *Client) dropLocked(list []*service) int {
	gone := map[*service]bool{}
	for _, s := range list {
		if s.use.letGo() {
			gone[s] = true
		}
	}
	if len(gone) == 0 {
		return 0
	}
	next := maps.Clone(*c.services.Load())
	maps.DeleteFunc(next, func(_ string, s *service) bool { return gone[s] })
	c.services.Store(&next)
	for s := range gone {
		si, known, left := s.w.drop(s.key)
		if known {
			c.snap.keep(si)
		}
		if left == 0 {
			s.w.cancel()
			c.watchers = slices.DeleteFunc(slices.Clone(c.watchers), func(w *watcher) bool { return w == s.w })
		}
	}
	return len(gone)
}
