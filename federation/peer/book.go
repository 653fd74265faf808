package peer

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// book knows what our rows for one reader region look like at the newest version: only
// their hashes, so it is small. It is what makes a delta small and a digest cheap, and it
// outlives connections, so that a reader that comes back costs only what changed.
type book struct {
	reader api.Region
	bytes  atomic.Uint64 // sent to this region, over all streams

	// mu is held while rows are built, never while a frame is written.
	mu      sync.Mutex
	version api.Version
	rows    map[api.ServiceKey]bookRow
	digest  summary.Digest

	// Owned by shelf.
	streams int
	used    time.Time
}

type bookRow struct {
	hash summary.Hash
	// since is the revision at which the content became what it is.
	since uint64
}

// page is the state of a book at one version.
type page struct {
	image   Image
	version api.Version
	rows    int
	digest  summary.Digest
}

// page brings the book up to the newest image.
func (b *book) page(src Source) page {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pageLocked(src)
}

func (b *book) pageLocked(src Source) page {
	// Taken under the lock, images only get newer from one call to the next.
	img := src.Image()
	v := img.Version()
	if v != b.version {
		keys, ok := src.ChangedSince(b.version)
		if !ok || b.version.Epoch != v.Epoch {
			b.rows, b.digest = make(map[api.ServiceKey]bookRow), 0
			keys = img.Services()
		}
		for _, k := range keys {
			b.updateLocked(img, k)
		}
		b.version = v
	}
	return page{image: img, version: v, rows: len(b.rows), digest: b.digest}
}

func (b *book) updateLocked(img Image, k api.ServiceKey) {
	old, had := b.rows[k]
	row, hash, ok := b.row(img, k)
	switch {
	case ok && had && old.hash == hash:
		return
	case ok:
		b.rows[k] = bookRow{hash: hash, since: row.Revision}
		b.digest = b.digest.Add(hash)
	default:
		delete(b.rows, k)
	}
	if had {
		b.digest = b.digest.Remove(old.hash)
	}
}

// row builds the wire row of a service; false when the service has no instance.
func (b *book) row(img Image, k api.ServiceKey) (replica.Row, summary.Hash, bool) {
	instances, revision := img.Service(k)
	if len(instances) == 0 {
		return replica.Row{}, 0, false
	}
	body, hash := summary.Encode(summary.Build(k, instances, revision, b.reader))
	return replica.Row{Revision: revision, Body: body}, hash, true
}

// delta returns the frames that lead a reader from a version to the newest one, without
// SentMS. No frames and true: it is there already. false: it needs a snapshot.
func (b *book) delta(src Source, from api.Version) ([]replica.Frame, page, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pageLocked(src)
	switch {
	case p.version == from:
		return nil, p, true
	case p.version.Epoch != from.Epoch, p.version.Revision < from.Revision:
		return nil, p, false
	}
	keys, ok := src.ChangedSince(from)
	if !ok {
		return nil, p, false
	}
	keys = slices.Clone(keys)
	slices.SortFunc(keys, compareKeys)
	pack := packer{base: replica.Frame{Kind: replica.Delta, Epoch: p.version.Epoch, From: from.Revision, To: p.version.Revision}}
	for _, k := range slices.Compact(keys) {
		known, ok := b.rows[k]
		switch {
		case !ok:
			pack.remove(k)
		case known.since > from.Revision:
			if row, _, ok := b.row(p.image, k); ok {
				pack.add(row)
			}
		}
	}
	frames := pack.finish()
	for i := range frames {
		frames[i].More = i < len(frames)-1
	}
	frames[len(frames)-1].Digest = p.digest
	return frames, p, true
}

// packer divides rows over frames within the bounds of package replica.
type packer struct {
	base replica.Frame
	cur  *replica.Frame
	size int
	out  []replica.Frame
}

func (p *packer) room(size int) {
	if p.cur != nil && (len(p.cur.Rows)+len(p.cur.Deletes) >= replica.ChunkRows || p.size+size > replica.ChunkBytes) {
		p.out = append(p.out, *p.cur)
		p.cur = nil
	}
	if p.cur == nil {
		f := p.base
		p.cur, p.size = &f, 0
	}
	p.size += size
}

func (p *packer) add(r replica.Row) {
	p.room(len(r.Body))
	p.cur.Rows = append(p.cur.Rows, r)
}

func (p *packer) remove(k api.ServiceKey) {
	p.room(len(k.Namespace) + len(k.Service) + 4)
	p.cur.Deletes = append(p.cur.Deletes, replica.FormatKey(k))
}

// finish returns all frames, at least one.
func (p *packer) finish() []replica.Frame {
	if p.cur != nil || len(p.out) == 0 {
		p.room(0)
		p.out = append(p.out, *p.cur)
	}
	return p.out
}

// chunker makes the chunks of a snapshot one by one: a snapshot may be far larger than what
// should be in memory at once.
type chunker struct {
	book  *book
	image Image
	keys  []api.ServiceKey
	epoch api.Epoch
	spare *replica.Row // did not fit into the last chunk
}

// next returns the next chunk; false at the end.
func (c *chunker) next() (replica.Frame, bool) {
	f := replica.Frame{Kind: replica.SnapshotChunk, Epoch: c.epoch}
	size := 0
	if c.spare != nil {
		f.Rows, size, c.spare = append(f.Rows, *c.spare), len(c.spare.Body), nil
	}
	for len(c.keys) > 0 && len(f.Rows) < replica.ChunkRows {
		row, _, ok := c.book.row(c.image, c.keys[0])
		c.keys = c.keys[1:]
		if !ok {
			continue
		}
		if size += len(row.Body); size > replica.ChunkBytes && len(f.Rows) > 0 {
			c.spare = &row
			break
		}
		f.Rows = append(f.Rows, row)
	}
	return f, len(f.Rows) > 0
}

// maxBooks bounds the reader regions that are remembered; those with a stream are never
// forgotten, and Server.MaxReaders bounds the streams.
const maxBooks = 64

// shelf keeps the books.
type shelf struct {
	mu    sync.Mutex
	books map[api.Region]*book
}

// open returns the book of a reader region and counts one more stream on it.
func (s *shelf) open(reader api.Region, now time.Time) *book {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.books[reader]
	if b == nil {
		s.forgetOldestLocked()
		b = &book{reader: reader, rows: make(map[api.ServiceKey]bookRow)}
		s.books[reader] = b
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
}

func (s *shelf) forgetOldestLocked() {
	if len(s.books) < maxBooks {
		return
	}
	var oldest *book
	for _, b := range s.books {
		if b.streams == 0 && (oldest == nil || b.used.Before(oldest.used)) {
			oldest = b
		}
	}
	if oldest != nil {
		delete(s.books, oldest.reader)
	}
}

// sent returns the bytes sent per reader region.
func (s *shelf) sent() map[api.Region]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[api.Region]uint64, len(s.books))
	for r, b := range s.books {
		out[r] = b.bytes.Load()
	}
	return out
}
