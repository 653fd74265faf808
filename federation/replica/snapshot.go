package replica

import (
	"cmp"
	"time"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// begin starts a snapshot: of everything, of some buckets, or of the rows that it names.
func (r *Replica) begin(f Frame) Effects {
	if at := (api.Version{Region: r.origin, Epoch: f.Epoch, Revision: f.To}); r.older(at) {
		return r.drop(RefusedStale, "a snapshot at %s, we hold %s", at, r.version)
	}
	r.delta = nil
	r.head = max(r.head, f.To) // so that it shows how far behind we are
	base := r.truth
	if r.told != nil {
		base = r.loads.fit(r.told)
	}
	p := &pending{edit: newEdit(base), from: f.From, to: f.To, answer: r.told != nil, patch: f.Patch}
	if !f.Patch {
		p.set = f.Buckets
		p.edit.clear(f.Buckets)
	} else {
		p.edit.drop(f.Drops, f.Buckets)
	}
	r.snapshot = p
	return Effects{}
}

func (r *Replica) chunk(f Frame) Effects {
	p := r.snapshot
	if p == nil {
		return r.drop(RefusedOrder, "a chunk outside of a snapshot")
	}
	var eff Effects
	for _, row := range f.Rows {
		key, e, err := readRow(r.origin, row)
		switch {
		case err != nil:
			return r.drop(RefusedMalformed, "%s", err)
		case p.rows > 0 && r.compare(key, p.last) <= 0:
			return r.drop(RefusedOrder, "the rows of a snapshot are not in order")
		case !p.set.Holds(key):
			return r.drop(RefusedOrder, "a row outside of the buckets that the snapshot replaces")
		}
		p.rows++
		if d := r.put(p, key, e, len(row.Body), &eff); d.Err != nil {
			return d
		}
	}
	if p.patch {
		// What is meant to go, goes from where the reader stands, and nowhere else; no relay knows it.
		planned := !r.hearsay() && p.from != 0 && p.from == r.version.Revision && f.Epoch == r.version.Epoch
		if err := p.names(f, planned); err != nil {
			return r.drop(RefusedMalformed, "%s", err)
		}
		if p.remembered() > maxNames {
			return r.drop(RefusedLimit, "a snapshot of over %d names", maxNames)
		}
	}
	return eff
}

// compare is the order of rows in a snapshot: by bucket since version 2 of the protocol, so
// that one that was cut off goes on where it ended.
func (r *Replica) compare(a, b api.ServiceKey) int {
	if r.proto < 2 {
		return CompareKeys(a, b)
	}
	return CompareBuckets(a, b)
}

// CompareKeys orders rows by namespace and service.
func CompareKeys(a, b api.ServiceKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service))
}

// CompareBuckets orders rows by bucket, then by key.
func CompareBuckets(a, b api.ServiceKey) int {
	return cmp.Or(cmp.Compare(summary.BucketOf(a), summary.BucketOf(b)), CompareKeys(a, b))
}

// put adds a row to what is pending, within bounds.
func (r *Replica) put(p *pending, key api.ServiceKey, e *Entry, size int, eff *Effects) Effects {
	p.bytes += size
	p.last = key
	r.loads.onto(key, e)
	if e.Quarantined != "" {
		r.refused[RefusedRow]++
		eff.Refused = RefusedRow
		r.nack(key, e)
		if len(eff.Quarantined) < MaxNacks {
			eff.Quarantined = append(eff.Quarantined, Nack{Key: FormatKey(key), Hash: e.Hash, Reason: cut(e.Quarantined)})
		}
		if old := r.truth.Get(key); old != nil {
			e.Summary, e.size = old.Summary, max(e.size, old.size) // the last good one goes on being used
		}
	}
	p.edit.put(key, e)
	// Many small steps may not lead beyond what one may, either.
	if t := p.edit.t; t.count > MaxRows || max(p.bytes, t.bytes) > MaxSnapshotBytes {
		return r.drop(RefusedLimit, "over %d rows or %d bytes", MaxRows, MaxSnapshotBytes)
	}
	return Effects{}
}

func (r *Replica) end(f Frame, now time.Time) Effects {
	p := r.snapshot
	if p == nil || p.to != f.To {
		return r.drop(RefusedOrder, "the end of a snapshot that did not begin")
	}
	r.snapshot, r.staged, r.told = nil, nil, nil
	next := p.edit.done()
	if (next.Len() != f.Count || next.Digest() != f.Digest) && !r.off.Join {
		eff := r.resync(RefusedDigest, "%d rows with digest %s after a snapshot, the origin says %d and %s", next.Len(), next.Digest(), f.Count, f.Digest)
		if p.answer {
			r.want = wantEverything // comparing did not help
		}
		return eff
	}
	if r.forged(f, next) {
		return r.drop(RefusedSignature, "the rows of a snapshot are not those that %s signed", r.origin)
	}
	if r.strange(f, next) {
		return r.renew(f)
	}
	eff := r.apply(p, next, api.Version{Region: r.origin, Epoch: f.Epoch, Revision: f.To}, now)
	eff.Snapshot = true
	r.sealed(f)
	return eff
}
