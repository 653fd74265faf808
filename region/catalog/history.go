package catalog

import (
	"slices"
	"sort"

	"github.com/nearside/nearside/sdk/api"
)

// MaxHistoryBytes bounds what one History keeps alive by itself: about 60,000 changes of
// ordinary instances, or 2,000 of the largest.
const MaxHistoryBytes = 32 << 20

// History is a bounded memory of the most recent changes of one epoch. It is not safe for
// concurrent use.
type History struct {
	ring  []Change // capacity is fixed; used from start, size entries
	start int
	size  int
	bytes int // of the instances in the ring, as weigh tells; at most MaxHistoryBytes
	// floor: every change after this revision, up to last, is in the ring.
	// Invariant: floor <= last.
	floor, last uint64
}

// NewHistory returns an empty history of at most capacity changes (at least 1) that knows
// nothing of what happened up to revision.
func NewHistory(capacity int, revision uint64) *History {
	return &History{ring: make([]Change, max(capacity, 1)), floor: revision, last: revision}
}

// Append adds the changes of one revision, which must be above all earlier ones. changes
// may be empty: then revision is known to have none.
func (h *History) Append(revision uint64, changes []Change) {
	if revision <= h.last {
		return
	}
	h.last = revision
	weight := 0
	for i := range changes {
		weight += weigh(changes[i].Instance)
	}
	if len(changes) > len(h.ring) || weight > MaxHistoryBytes {
		// Too big to remember, and half a revision must never be replayed (P5).
		h.drop(h.size)
		h.floor = revision
		return
	}
	h.makeRoom(len(changes), weight)
	h.bytes += weight
	for _, c := range changes {
		h.ring[(h.start+h.size)%len(h.ring)] = c
		h.size++
	}
}

// makeRoom forgets whole revisions, oldest first, until n more of this weight fit.
func (h *History) makeRoom(n, weight int) {
	for len(h.ring)-h.size < n || h.bytes+weight > MaxHistoryBytes {
		revision := h.at(0).Revision
		k := 0
		for k < h.size && h.at(k).Revision == revision {
			k++
		}
		h.drop(k)
		h.floor = revision
	}
}

func (h *History) drop(n int) {
	for range n {
		h.bytes -= weigh(h.ring[h.start].Instance)
		h.ring[h.start] = Change{} // let go of the instance
		h.start = (h.start + 1) % len(h.ring)
		h.size--
	}
}

// weigh returns about how many bytes of memory an instance takes. Strings and maps that two
// records of an instance share are counted twice: each decoded record has its own.
func weigh(in *api.Instance) int {
	const (
		fixed  = 512 // the struct, and its short strings
		header = 48  // a map or slice entry beside its text
	)
	if in == nil {
		return 0
	}
	const check = 256 // a rule or a result, and its short strings
	n := fixed + len(in.StatusNote)
	for i := range in.Checks {
		n += check + len(in.Checks[i].Path)
	}
	for i := range in.CheckResults {
		n += check + len(in.CheckResults[i].Note)
	}
	for _, set := range [...]*api.SetStatus{in.Set, in.BeforeDrain} {
		if set != nil {
			n += header + len(set.Note)
		}
	}
	for _, t := range in.Tags {
		n += header + len(t)
	}
	for k, v := range in.Metadata {
		n += header + len(k) + len(v)
	}
	return n + len(in.Ports)*2*header
}

func (h *History) at(i int) *Change { return &h.ring[(h.start+i)%len(h.ring)] }

// Floor returns the revision after which every change is known.
func (h *History) Floor() uint64 { return h.floor }

// Last returns the newest revision known.
func (h *History) Last() uint64 { return h.last }

// page is how many changes Since looks at in one call, more only when one revision has
// more: a bound on what each reader holds, and on how long it keeps the others out.
const page = 256

// Since looks at the next changes after revision, whole revisions at a time, and returns
// copies of those that want accepts (nil accepts all), in order. upTo is the revision up to
// which it looked: call again with it until it is Last. ok is false when some of the changes
// after revision are forgotten, or when revision is not reached yet.
func (h *History) Since(revision uint64, want func(*Change) bool) (changes []Change, upTo uint64, ok bool) {
	if revision < h.floor && brown != "ignore-compaction" || revision > h.last {
		return nil, 0, false
	}
	from := h.after(revision)
	for i := from; i < h.size; i++ {
		c := h.at(i)
		if i-from >= page && c.Revision != h.at(i-1).Revision {
			return changes, h.at(i - 1).Revision, true
		}
		if want == nil || want(c) {
			changes = append(changes, *c)
		}
	}
	return changes, h.last, true
}

// after returns the place of the first change after revision.
func (h *History) after(revision uint64) int {
	return sort.Search(h.size, func(i int) bool { return h.at(i).Revision > revision })
}

// KeysSince returns the services that changed after revision, sorted; ok as for Since.
func (h *History) KeysSince(revision uint64) (keys []api.ServiceKey, ok bool) {
	if revision < h.floor || revision > h.last {
		return nil, false
	}
	for i := h.after(revision); i < h.size; i++ {
		keys = append(keys, h.at(i).Key())
	}
	slices.SortFunc(keys, CompareKeys)
	return slices.Compact(keys), true
}

// PlannedSince returns the services that lost instances after revision, all of them as
// planned; none when some of the changes after revision are forgotten.
func (h *History) PlannedSince(revision uint64) map[api.ServiceKey]struct{} {
	if revision < h.floor || revision > h.last {
		return nil
	}
	out, others := map[api.ServiceKey]struct{}{}, map[api.ServiceKey]struct{}{}
	for i := h.after(revision); i < h.size; i++ {
		switch c := h.at(i); {
		case c.Op != api.OpDelete:
		case c.Cause == api.CausePlanned:
			out[c.Key()] = struct{}{}
		default:
			others[c.Key()] = struct{}{}
		}
	}
	for k := range others {
		delete(out, k)
	}
	return out
}
