package memstore

import (
	"slices"

	"github.com/nearside/nearside/region/store"
)

// What can go wrong with a store, for tests of those who use one. All are safe for
// concurrent use.

// SetUnavailable makes every call return store.ErrUnavailable, and running watches end with
// it, until it is called with false. Nothing is lost.
func (s *Store) SetUnavailable(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != down {
		s.down = down
		s.tell()
	}
}

// SetFull makes commits with a put, and RaiseEpoch, return store.ErrFull until it is called
// with false. Reads, watches and commits of deletes only go on.
func (s *Store) SetFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

// LoseAnswers makes the next n commits happen and yet return store.ErrUnavailable, as when
// the connection breaks between a write and its acknowledgement. Of a full store those with
// a put return store.ErrFull, as etcd does for the write that crosses its quota.
func (s *Store) LoseAnswers(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = n
}

// Compact forgets the history up to and with revision rev; at most all there is. Watches
// that are behind it end with store.ErrCompacted.
func (s *Store) Compact(rev uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compact(min(rev, s.head))
	s.tell()
}

// compact expects s.mu held.
func (s *Store) compact(rev uint64) {
	if rev <= s.compacted {
		return
	}
	s.compacted = rev
	s.history = slices.DeleteFunc(s.history, func(b store.Batch) bool { return b.Revision <= rev })
}
