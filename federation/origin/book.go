package origin

import (
	"maps"
	"slices"
	"sync"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Book knows what our rows for one reader region look like at the newest version: only
// their hashes, so it is small. It is what makes a delta small and a digest cheap, and it
// outlives streams, so that a reader that comes back costs only what changed. The pending
// work of a slow reader is therefore never a queue: it is everything since the version it
// has, worked out when it can be sent.
//
// Safe for concurrent use: several nodes of one region may read at the same time.
type Book struct {
	reader api.Region

	mu      sync.Mutex
	version api.Version
	rows    map[api.ServiceKey]bookRow
	digest  summary.Digest
	seal    *summary.Seal // of all rows; nil = nobody signs
	sum     summary.Sum   // of seal, at version
	// turn is the last step that history does not tell: to another epoch, or over a gap. A
	// stream that stands at its beginning needs only the rows that it changed.
	turn struct {
		from, to api.Version
		keys     []api.ServiceKey
	}

	// nackMu guards what follows; it is taken after mu, or alone: an ack does not wait for rows.
	nackMu      sync.Mutex
	quarantined map[api.ServiceKey]replica.Nack
	said        []replica.Nack // and not compared with the rows yet
}

type bookRow struct {
	hash summary.Hash
	sum  summary.Sum // when there is a seal
	// since is the revision at which the content became what it is.
	since uint64
}

// NewBook returns an empty book.
func NewBook(reader api.Region) *Book {
	return &Book{reader: reader, rows: make(map[api.ServiceKey]bookRow), quarantined: make(map[api.ServiceKey]replica.Nack)}
}

// KeepSeal makes an empty book keep what is signed of its rows.
func (b *Book) KeepSeal() *Book {
	b.seal = new(summary.Seal)
	return b
}

// Page is the state of a book at one version.
type Page struct {
	Image   Image
	Version api.Version
	Rows    int
	Digest  summary.Digest
	Seal    summary.Sum // when the book keeps it
}

// Page brings the book up to the newest version.
func (b *Book) Page(src Source) Page {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.page(src)
}

func (b *Book) page(src Source) Page {
	// Taken under the lock, images only get newer from one call to the next.
	img := src.Image()
	v := img.Version()
	if v != b.version {
		keys, ok := src.ChangedSince(b.version)
		if ok && b.version.Epoch == v.Epoch {
			for _, k := range keys {
				b.update(img, k)
			}
		} else {
			b.rebuild(img)
		}
		b.version = v
		if b.seal != nil {
			b.sum = b.seal.Sum()
		}
	}
	b.hear()
	return Page{Image: img, Version: v, Rows: len(b.rows), Digest: b.digest, Seal: b.sum}
}

// update brings one row up to date, and reports whether its content changed.
func (b *Book) update(img Image, k api.ServiceKey) bool {
	old, had := b.rows[k]
	row, hash, ok := b.Row(img, k)
	next := bookRow{hash: hash, since: row.Revision}
	if b.seal != nil && ok {
		next.sum = summary.SumOf(row.Body)
	}
	switch {
	case ok && had && old.hash == hash && old.sum == next.sum, !ok && !had:
		return false
	case ok:
		b.renewed(k)
		if b.seal != nil {
			b.seal.Add(next.sum)
		}
		b.rows[k] = next
		b.digest = b.digest.Add(hash)
	default:
		b.renewed(k)
		delete(b.rows, k)
	}
	if had {
		b.digest = b.digest.Remove(old.hash)
		if b.seal != nil {
			b.seal.Remove(old.sum)
		}
	}
	return true
}

// rebuild makes all rows anew and remembers which of them changed.
func (b *Book) rebuild(img Image) {
	b.turn.from, b.turn.to, b.turn.keys = b.version, img.Version(), nil
	gone := make(map[api.ServiceKey]struct{}, len(b.rows))
	for k := range b.rows {
		gone[k] = struct{}{}
	}
	for _, k := range img.Services() {
		delete(gone, k)
		if b.update(img, k) {
			b.turn.keys = append(b.turn.keys, k)
		} else if known, ok := b.rows[k]; ok {
			// The same content, but the numbers may be those of another history.
			_, known.since = img.Service(k)
			b.rows[k] = known
		}
	}
	for k := range gone {
		b.update(img, k)
		b.turn.keys = append(b.turn.keys, k)
	}
}

// Row builds the wire row of a service; false when the service has no instance.
func (b *Book) Row(img Image, k api.ServiceKey) (replica.Row, summary.Hash, bool) {
	if relay, ok := img.(Relay); ok {
		return relay.Row(k)
	}
	instances, revision := img.Service(k)
	if len(instances) == 0 {
		return replica.Row{}, 0, false
	}
	body, hash := summary.Encode(summary.Build(k, instances, revision, b.reader))
	return replica.Row{Revision: revision, Body: body}, hash, true
}

// changed returns the rows that lead from a version to the page, as far as the book knows;
// false when it does not.
func (b *Book) changed(from api.Version, src Source) (keys []api.ServiceKey, p Page, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.since(from, b.page(src), src)
}

func (b *Book) since(from api.Version, p Page, src Source) (keys []api.ServiceKey, _ Page, ok bool) {
	if p.Version == from {
		return nil, p, true
	}
	if from.Epoch == p.Version.Epoch && from.Revision <= p.Version.Revision {
		if keys, ok = src.ChangedSince(from); ok {
			keys = slices.DeleteFunc(slices.Clone(keys), func(k api.ServiceKey) bool {
				known, there := b.rows[k]
				return there && known.since <= from.Revision
			})
		}
	}
	if !ok && !from.IsZero() && from == b.turn.from {
		var more []api.ServiceKey
		if more, ok = src.ChangedSince(b.turn.to); ok {
			keys = append(slices.Clone(b.turn.keys), more...)
		}
	}
	slices.SortFunc(keys, replica.CompareKeys)
	return slices.Compact(keys), p, ok
}

// compare returns the buckets in which a reader with these digests differs from the newest
// version, and how many rows we have in those of them where the reader has rows too.
func (b *Book) compare(theirs summary.Sums, src Source) (set *summary.BucketSet, shared int, p Page) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p = b.page(src)
	ours := summary.NewSums(len(theirs))
	for k, r := range b.rows {
		ours.Add(k, r.hash)
	}
	set = ours.Differ(theirs)
	both := theirs.Differ(summary.NewSums(len(theirs))) // where the reader has rows
	for k := range b.rows {
		if set.Holds(k) && both.Holds(k) {
			shared++
		}
	}
	return set, shared, p
}

// patch is what leads a reader to a page, named one by one.
type patch struct {
	from    uint64             // where the reader stands; 0 = in several places
	set     *summary.BucketSet // where drops are
	drops   summary.Hashes     // rows of the reader that are not, or no longer, as they were
	deletes []string
	planned []string
	keys    []api.ServiceKey // rows to send
}

// divide sorts changed services into those that are, and those that are no more.
func divide(img Image, keys []api.ServiceKey) (p patch) {
	for _, k := range keys {
		if has(img, k) {
			p.keys = append(p.keys, k)
		} else {
			p.deletes = append(p.deletes, replica.FormatKey(k))
		}
	}
	return p
}

// has reports whether a service has a row.
func has(img Image, k api.ServiceKey) bool {
	if relay, ok := img.(Relay); ok {
		_, _, ok := relay.Row(k)
		return ok
	}
	instances, _ := img.Service(k)
	return len(instances) > 0
}

// patch returns what a reader lacks that was asked at version at for its rows in the buckets
// where it differed then: in those, the rows that it does not have, and of all others what
// changed since. ok is false when that is not known any more.
func (b *Book) patch(h *summary.Holding, at api.Version, src Source) (out patch, p Page, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p = b.page(src)
	changed, p, ok := b.since(at, p, src)
	if !ok {
		return out, p, false
	}
	out = divide(p.Image, slices.DeleteFunc(changed, h.Set.Holds))
	out.set = h.Set
	theirs := make(map[summary.Hash]bool, len(h.Rows)) // whether it is ours too
	for _, x := range h.Rows {
		theirs[x] = false
	}
	for k, r := range b.rows {
		if !h.Set.Holds(k) {
			continue
		}
		if _, has := theirs[r.hash]; has {
			theirs[r.hash] = true
		} else {
			out.keys = append(out.keys, k)
		}
	}
	for x, ours := range theirs {
		if !ours {
			out.drops = append(out.drops, x)
		}
	}
	slices.Sort(out.drops)
	return out, p, true
}

// maxQuarantined bounds what is remembered of rows that the reader does not use.
const maxQuarantined = 1000

// Nacked notes rows that the reader does not use, and returns those that are news. Nothing
// else is held up by them. What it says of rows that we do not have, or that are others by
// now, is forgotten: a reader may say anything.
func (b *Book) Nacked(nacks []replica.Nack) (news []replica.Nack) {
	if len(nacks) == 0 {
		return nil
	}
	b.nackMu.Lock()
	b.said = append(b.said, nacks[:min(len(nacks), maxQuarantined-len(b.said))]...)
	b.nackMu.Unlock()
	if !b.mu.TryLock() {
		return nil // rows are being made; who made them looks
	}
	defer b.mu.Unlock()
	return b.hear()
}

// hear compares what was said with the rows.
func (b *Book) hear() (news []replica.Nack) {
	b.nackMu.Lock()
	defer b.nackMu.Unlock()
	for _, n := range b.said {
		k, err := replica.ParseKey(n.Key)
		row, ok := b.rows[k]
		if _, known := b.quarantined[k]; err != nil || !ok || row.hash != n.Hash || known || len(b.quarantined) >= maxQuarantined {
			continue
		}
		b.quarantined[k] = n
		news = append(news, n)
	}
	b.said = nil
	return news
}

// renewed forgets what was said of a row that is another one now.
func (b *Book) renewed(k api.ServiceKey) {
	b.nackMu.Lock()
	defer b.nackMu.Unlock()
	delete(b.quarantined, k)
}

// Quarantined returns the rows that the reader does not use, of those that are still as they
// were then.
func (b *Book) Quarantined() []replica.Nack {
	b.nackMu.Lock()
	defer b.nackMu.Unlock()
	return slices.Collect(maps.Values(b.quarantined))
}
