package origin

import (
	"slices"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// packer divides rows over frames within the bounds of package replica.
type packer struct {
	base replica.Frame
	cur  *replica.Frame
	size int
	out  []replica.Frame
}

func (p *packer) room(size int) {
	if p.cur != nil && (len(p.cur.Rows)+len(p.cur.Deletes)+len(p.cur.Planned) >= replica.ChunkRows || p.size+size > replica.ChunkBytes) {
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

func (p *packer) plan(k api.ServiceKey) {
	p.room(len(k.Namespace) + len(k.Service) + 4)
	p.cur.Planned = append(p.cur.Planned, replica.FormatKey(k))
}

// finish returns all frames, at least one; digest goes into the last.
func (p *packer) finish(digest summary.Digest) []replica.Frame {
	if p.cur != nil || len(p.out) == 0 {
		p.room(0)
		p.out = append(p.out, *p.cur)
	}
	for i := range p.out {
		p.out[i].More = i < len(p.out)-1
	}
	p.out[len(p.out)-1].Digest = digest
	return p.out
}

// chunker makes the chunks of a snapshot one by one: a snapshot may be far larger than what
// should be in memory at once.
type chunker struct {
	book  *Book
	page  Page
	first replica.Frame
	keys  []api.ServiceKey
	// names of services to delete, and of those that were meant to lose what they lost.
	deletes, planned []string

	spare *replica.Row // did not fit into the last chunk
	begun bool
}

// newChunker takes the rows of some buckets in the order of the protocol's version.
func newChunker(b *Book, p Page, set *summary.BucketSet, proto int) *chunker {
	keys := p.Image.Services()
	order := replica.CompareKeys
	if proto >= 2 {
		order = replica.CompareBuckets
	}
	if set != nil {
		keys = slices.DeleteFunc(slices.Clone(keys), func(k api.ServiceKey) bool { return !set.Holds(k) })
	}
	if !slices.IsSortedFunc(keys, order) {
		keys = slices.SortedFunc(slices.Values(keys), order)
	}
	return &chunker{book: b, page: p, keys: keys, first: replica.Frame{Kind: replica.SnapshotBegin, Buckets: set}}
}

// newPatcher takes rows that are named.
func newPatcher(b *Book, p Page, x patch) *chunker {
	slices.SortFunc(x.keys, replica.CompareBuckets)
	return &chunker{book: b, page: p, keys: x.keys, deletes: x.deletes, planned: x.planned, first: replica.Frame{
		Kind: replica.SnapshotBegin, Patch: true, From: x.from, Buckets: x.set, Drops: x.drops,
	}}
}

// next returns the next frame; last tells that none follows.
func (c *chunker) next() (f replica.Frame, last bool) {
	epoch, to := c.page.Version.Epoch, c.page.Version.Revision
	if !c.begun {
		c.begun = true
		c.first.Epoch, c.first.To = epoch, to
		return c.first, false
	}
	if f, ok := c.chunk(); ok {
		f.Epoch = epoch
		return f, false
	}
	return replica.Frame{Kind: replica.SnapshotEnd, Epoch: epoch, To: to, Count: c.page.Rows, Digest: c.page.Digest}, true
}

func (c *chunker) chunk() (replica.Frame, bool) {
	f := replica.Frame{Kind: replica.SnapshotChunk}
	if f.Deletes, c.deletes = names(c.deletes); f.Deletes != nil {
		return f, true
	}
	if f.Planned, c.planned = names(c.planned); f.Planned != nil {
		return f, true
	}
	size := 0
	if c.spare != nil {
		f.Rows, size, c.spare = append(f.Rows, *c.spare), len(c.spare.Body), nil
	}
	for len(c.keys) > 0 && len(f.Rows) < replica.ChunkRows {
		row, _, ok := c.book.Row(c.page.Image, c.keys[0])
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

// names takes the next frame's share of names.
func names(all []string) (share, rest []string) {
	n := min(len(all), replica.MaxFrameRows)
	if n == 0 {
		return nil, nil
	}
	return all[:n:n], all[n:]
}
