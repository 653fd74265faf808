package replica

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// change takes a delta: rows that changed between two versions of one history, or, when it
// names the epoch that it comes from, between the last version of one history and another.
func (r *Replica) change(f Frame, now time.Time) Effects {
	from := f.Epoch
	if !f.FromEpoch.IsZero() {
		from = f.FromEpoch
	}
	held := r.version
	switch {
	case r.snapshot != nil:
		return r.drop(RefusedOrder, "a delta inside a snapshot")
	case f.Epoch == held.Epoch && f.To <= held.Revision:
		return r.ignore(RefusedStale) // said twice
	case r.off.Join:
	case from != held.Epoch, f.From > held.Revision, from != f.Epoch && f.From != held.Revision:
		return r.resync(RefusedGap, "a delta from %s/%d, we hold %s", from, f.From, held)
	}
	p := r.delta
	if p == nil || p.from != f.From || p.to != f.To {
		p = &pending{edit: newEdit(r.truth), from: f.From, to: f.To, touched: []api.ServiceKey{}, patch: true}
		r.delta = p
	}
	var eff Effects
	for _, row := range f.Rows {
		key, e, err := readRow(r.origin, row)
		if err != nil {
			return r.drop(RefusedMalformed, "%s", err)
		}
		p.touched = append(p.touched, key)
		if d := r.put(p, key, e, len(row.Body), &eff); d.Err != nil {
			return d
		}
	}
	if err := p.names(f, from == f.Epoch && !r.hearsay()); err != nil {
		return r.drop(RefusedMalformed, "%s", err)
	}
	if p.remembered() > maxNames {
		return r.drop(RefusedLimit, "a delta of over %d names", maxNames)
	}
	if f.More {
		r.head = max(r.head, f.To) // so that it shows how far behind we are
		return eff
	}
	r.delta = nil
	next := p.edit.done()
	if next.Digest() != f.Digest && !r.off.Join {
		return r.resync(RefusedDigest, "digest %s after a delta, the origin says %s", next.Digest(), f.Digest)
	}
	if r.forged(f, next) {
		return r.drop(RefusedSignature, "the rows after a delta are not those that %s signed", r.origin)
	}
	if r.strange(f, next) {
		return r.renew(f)
	}
	refused, quarantined := eff.Refused, eff.Quarantined
	eff = r.apply(p, next, api.Version{Region: r.origin, Epoch: f.Epoch, Revision: f.To}, now)
	eff.Refused, eff.Quarantined = refused, quarantined
	r.sealed(f)
	if f.To >= r.head {
		r.head = f.To
		r.confirm(f, now)
		eff.Confirmed = true
	}
	return eff
}

// maxNames bounds what is remembered of a change that takes several frames: an origin that
// replaces all its rows names each twice.
const maxNames = 2 * MaxRows

// remembered is how many names are kept until the change is complete.
func (p *pending) remembered() int { return max(len(p.touched), len(p.planned)) }

// names takes what a frame names without a row: deletes, and what was planned when that counts.
func (p *pending) names(f Frame, planned bool) error {
	for _, d := range f.Deletes {
		key, err := ParseKey(d)
		if err != nil {
			return err
		}
		if p.touched != nil {
			p.touched = append(p.touched, key)
		}
		p.edit.remove(key)
	}
	if !planned {
		return nil
	}
	for _, d := range f.Planned {
		key, err := ParseKey(d)
		if err != nil {
			return err
		}
		if p.planned == nil {
			p.planned = make(map[api.ServiceKey]struct{})
		}
		p.planned[key] = struct{}{}
	}
	return nil
}

// heartbeat takes the origin's word of where it stands. A version that changed none of its
// rows comes as a heartbeat only: when the digest fits, we hold that version too.
func (r *Replica) heartbeat(f Frame, now time.Time) Effects {
	at := f.To // where the digest stands, which the stream has led to
	behind := r.snapshot != nil || r.delta != nil || f.Epoch != r.version.Epoch
	switch {
	case r.proto >= 2 && behind && !r.off.Join:
		return r.resync(RefusedGap, "it has led to %s/%d, we hold %s and the rest was lost", f.Epoch, at, r.version)
	case r.proto < 2:
		// The first version tells only where the origin is; we may be on our way to it.
		at = r.version.Revision
		if f.Head > at || behind {
			r.head = max(r.head, f.Head)
			return Effects{} // the age goes on growing
		}
	}
	r.compareLoads(f)
	switch {
	case at < r.version.Revision || f.Head < at:
		return r.ignore(RefusedStale)
	case f.Digest != r.truth.Digest() && !r.off.Join:
		return r.resync(RefusedDigest, "digest %s at %s, the origin says %s at %d", r.truth.Digest(), r.version, f.Digest, at)
	}
	if r.forged(f, r.truth) {
		return r.drop(RefusedSignature, "the rows at %s are not those that it signed", r.version)
	}
	if r.strange(f, r.truth) {
		return r.renew(f)
	}
	r.head = max(r.head, f.Head)
	r.version.Revision = at
	r.sealed(f)
	var eff Effects
	r.wish(f, &eff)
	if r.head > at {
		return eff
	}
	r.confirm(f, now)
	eff.Confirmed = true
	if f.DueMS > 0 && f.DueMS <= f.WireMS && r.via == "" { // a relay's canary is not the origin's
		r.due, r.dueAt = f.DueMS, now
		if r.rtt > 0 {
			// What it waited in the origin by the origin's clock, and then the way: the
			// quickest took a round trip at most.
			way := r.path.observe(time.Duration(f.WireMS)*time.Millisecond, now)
			eff.Canary = time.Duration(f.WireMS-f.DueMS)*time.Millisecond + way + r.rtt
		}
	}
	return eff
}

// confirm notes that the origin, or a relay on the strength of an older word of it, says that
// what we hold is its newest. What was confirmed before stays when it is younger: versions
// only rise, so what was the newest at a time was so at every later one that we heard of.
func (r *Replica) confirm(f Frame, now time.Time) {
	relayed := r.via != ""
	r.carried = time.Duration(f.AgeMS) * time.Millisecond
	slack := r.delay.observe(time.Duration(f.SentMS)*time.Millisecond, now) + r.carried
	if (relayed || r.relayed || f.AgeMS > 0) && !r.confirmed.IsZero() && slack+r.way(relayed) > now.Sub(r.confirmed)+r.slack+r.way(r.relayed) {
		return
	}
	r.confirmed, r.slack, r.relayed = now, slack, relayed
}

// way is the round trip that a word took at most.
func (r *Replica) way(relayed bool) time.Duration {
	if relayed {
		return r.hop
	}
	return r.rtt
}
