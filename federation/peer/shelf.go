package peer

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// maxBooks bounds the reader regions that are remembered; those with a stream are never
// forgotten, and Server.MaxReaders bounds the streams.
const maxBooks = 64

// maxPassed bounds the reader regions whose bytes are remembered without a book.
const maxPassed = 256

// book is what is known of one reader region.
type book struct {
	*origin.Book
	reader api.Region
	bytes  atomic.Uint64 // sent to this region, over all streams
	places chan struct{} // of the server's for many rows, as many as one region may hold
	queued atomic.Int64  // streams of this region that wait for a place

	signing     sync.Mutex
	signedBytes string // the last statement that was signed, and by whom
	signedBy    string
	signed      *replica.Signed

	// Owned by shelf.
	streams int
	used    time.Time
	key     bookKey
}

// bookKey names a book: of our own rows, or of those that a relay has. A relay's books end with
// their last stream.
type bookKey struct {
	reader api.Region
	relay  Relay
}

// shelf keeps the books.
type shelf struct {
	places  int  // of each book
	sealing bool // what we tell is signed
	mu      sync.Mutex
	books   map[bookKey]*book
	// passed are bytes of relays' books that ended.
	passed map[api.Region]uint64
}

// open returns the book of a reader region and counts one more stream on it.
func (s *shelf) open(reader api.Region, relay Relay, now time.Time) *book {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := bookKey{reader, relay}
	b := s.books[key]
	if b == nil {
		s.forgetOldestLocked()
		b = &book{reader: reader, key: key, Book: origin.NewBook(reader), places: make(chan struct{}, s.places)}
		if s.sealing && relay == nil {
			b.KeepSeal()
		}
		s.books[key] = b
	}
	b.streams++
	b.used = now
	return b
}

func (s *shelf) close(b *book, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.streams--
	b.used = now
	if b.streams == 0 && b.key.relay != nil {
		if _, known := s.passed[b.reader]; known || len(s.passed) < maxPassed {
			s.passed[b.reader] += b.bytes.Load()
		}
		delete(s.books, b.key)
	}
	if len(s.books) > maxBooks {
		s.forgetOldestLocked()
	}
}

// forgetOldestLocked forgets books without a stream until there is room for one more.
func (s *shelf) forgetOldestLocked() {
	for len(s.books) >= maxBooks {
		var oldest *book
		for _, b := range s.books {
			if b.streams == 0 && (oldest == nil || b.used.Before(oldest.used)) {
				oldest = b
			}
		}
		if oldest == nil {
			return
		}
		delete(s.books, oldest.key)
	}
}

// sent returns the bytes sent per reader region.
func (s *shelf) sent() map[api.Region]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := maps.Clone(s.passed)
	for k, b := range s.books {
		out[k.reader] += b.bytes.Load()
	}
	return out
}
