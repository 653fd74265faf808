// Package memstore is a store.Store in memory: for tests, and for a region that need not
// survive its process. It keeps a bounded history, so that watchers that fall too far
// behind get store.ErrCompacted as they do from etcd.
//
// It starts no goroutine and waits on channels and tickers only, so it works inside a
// testing/synctest bubble.
package memstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// MaxHistory is how many batches are kept, at the least, for watchers that resume.
const MaxHistory = 10_000

// pulse is how often a quiet watch tells its progress.
const pulse = time.Second

var _ store.Store = (*Store)(nil)

// Store implements store.Store. Make one with New.
type Store struct {
	region api.Region

	mu      sync.Mutex
	closed  bool
	down    bool // SetUnavailable
	lose    int  // LoseAnswers: commits left
	full    bool // SetFull
	epoch   api.Epoch
	raised  []uint64 // revisions that RaiseEpoch took, rising
	head    uint64
	records map[string]store.Record
	history []store.Batch // rising revisions, all above compacted; batches are never changed
	// compacted is the newest revision a watch can no longer start before: history holds
	// every batch after it.
	compacted uint64
	changed   chan struct{} // closed and replaced at every change of the fields above
}

// New returns an empty store of region, at revision 1 of a first epoch.
func New(region api.Region) (*Store, error) {
	if err := api.CheckRegion(string(region)); err != nil {
		return nil, err
	}
	nonce, err := newNonce()
	if err != nil {
		return nil, err
	}
	return &Store{
		region:  region,
		epoch:   api.Epoch{Generation: 1, Nonce: nonce},
		head:    1, // the epoch's own write, as in etcd
		records: make(map[string]store.Record),
		changed: make(chan struct{}),
	}, nil
}

func newNonce() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("random nonce of an epoch: %w", err)
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

// Region returns the region the store belongs to.
func (s *Store) Region() api.Region { return s.region }

// tell wakes the watches; s.mu is held.
func (s *Store) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// usable returns why nothing can be done now; s.mu is held.
func (s *Store) usable(ctx context.Context) error {
	switch {
	case s.closed:
		return store.ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	case s.down:
		return store.ErrUnavailable
	default:
		return nil
	}
}

// Load implements store.Store.
func (s *Store) Load(ctx context.Context) (store.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return store.Image{}, err
	}
	img := store.Image{Epoch: s.epoch, Revision: s.head, Records: make([]store.Record, 0, len(s.records))}
	for _, r := range s.records {
		img.Records = append(img.Records, r)
	}
	slices.SortFunc(img.Records, func(a, b store.Record) int { return strings.Compare(a.Key, b.Key) })
	return img, nil
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, ops []store.Op) (uint64, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	for _, op := range ops {
		if op.Guarded && s.records[op.Key].Revision != op.If {
			return 0, store.ErrConflict
		}
	}
	refused := s.full && store.Puts(ops)
	if refused && s.lose == 0 {
		return 0, store.ErrFull
	}
	b := store.Batch{Revision: s.head + 1}
	for _, op := range ops {
		switch _, exists := s.records[op.Key]; {
		case op.Check:
		case !op.Delete:
			r := store.Record{Key: op.Key, Value: slices.Clone(op.Value), Revision: b.Revision}
			s.records[op.Key] = r
			b.Events = append(b.Events, store.Event{Record: r})
		case exists:
			delete(s.records, op.Key)
			b.Events = append(b.Events, store.Event{Delete: true, Record: store.Record{Key: op.Key, Revision: b.Revision}})
		}
	}
	if len(b.Events) > 0 {
		slices.SortFunc(b.Events, func(x, y store.Event) int { return strings.Compare(x.Record.Key, y.Record.Key) })
		s.head = b.Revision
		s.history = append(s.history, b)
		// A quarter at a time, or a full history would be moved at every commit.
		if over := len(s.history) - MaxHistory; over > MaxHistory/4 {
			s.compact(s.history[over-1].Revision)
		}
		s.tell()
	}
	if s.lose > 0 {
		s.lose--
		if refused {
			return 0, store.ErrFull
		}
		return 0, store.ErrUnavailable
	}
	return s.head, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, from uint64, apply func(store.Batch) error, progress func(revision uint64)) error {
	var beat <-chan time.Time // never, for those who do not care for progress
	if progress != nil {
		t := time.NewTicker(pulse)
		defer t.Stop()
		beat = t.C
	}
	seen, told := from, uint64(0)
	for {
		s.mu.Lock()
		if err := s.usable(ctx); err != nil {
			s.mu.Unlock()
			if ctx.Err() != nil && !errors.Is(err, store.ErrClosed) {
				return ctx.Err()
			}
			return err
		}
		if seen < s.compacted || seen > s.head {
			err := fmt.Errorf("%w: revision %d was asked, and the store has %d to %d", store.ErrCompacted, seen, s.compacted, s.head)
			s.mu.Unlock()
			return err
		}
		i, _ := slices.BinarySearchFunc(s.history, seen+1, func(b store.Batch, rev uint64) int {
			switch {
			case b.Revision < rev:
				return -1
			case b.Revision > rev:
				return 1
			default:
				return 0
			}
		})
		todo := slices.Clone(s.history[i:]) // compaction may move the slice meanwhile
		head, changed, raised := s.head, s.changed, uint64(0)
		if k, _ := slices.BinarySearch(s.raised, seen+1); k < len(s.raised) {
			raised = s.raised[k]
		}
		s.mu.Unlock()

		for _, b := range todo {
			if raised > 0 && b.Revision > raised {
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := apply(b); err != nil {
				return err
			}
			seen, told = b.Revision, b.Revision
		}
		if raised > 0 {
			if progress != nil {
				progress(raised)
			}
			return store.ErrEpochRaised
		}
		if len(todo) > 0 {
			continue // there may be more by now
		}
		seen = head // there is no batch between the two
		if progress != nil && head > told {
			told = head
			progress(head)
		}
		select {
		case <-changed:
		case <-beat:
			told = 0
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Barrier implements store.Store.
func (s *Store) Barrier(ctx context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	return s.head, nil
}

// Epoch implements store.Store.
func (s *Store) Epoch(ctx context.Context) (api.Epoch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return api.Epoch{}, err
	}
	return s.epoch, nil
}

// RaiseEpoch implements store.Store.
func (s *Store) RaiseEpoch(ctx context.Context, above uint64) (api.Epoch, error) {
	if above == ^uint64(0) {
		return api.Epoch{}, errors.New("no epoch is above the highest")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return api.Epoch{}, err
	}
	if s.epoch.Generation > above {
		return s.epoch, nil
	}
	if s.full {
		return api.Epoch{}, store.ErrFull
	}
	nonce, err := newNonce()
	if err != nil {
		return api.Epoch{}, err
	}
	s.epoch = api.Epoch{Generation: above + 1, Nonce: nonce}
	s.head++ // as in etcd: every write takes a revision
	s.raised = append(s.raised, s.head)
	s.tell()
	return s.epoch, nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.tell()
	}
	return nil
}
