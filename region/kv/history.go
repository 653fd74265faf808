package kv

import "sort"

const (
	// historyChanges and historyBytes bound what is remembered for watches that resume. Values
	// that were replaced live on here, so bytes count as well.
	historyChanges = 16_384
	historyBytes   = 16 << 20
)

// history is a bounded memory of the most recent changes of one epoch, in order. It is not
// safe for concurrent use.
type history struct {
	changes []Change
	bytes   int
	// floor: every change after this revision is in changes.
	floor uint64
}

func cost(c Change) int { return len(c.Entry.path) + len(c.Entry.Value) }

// add appends the changes of one revision, and forgets whole revisions, oldest first,
// until the bounds hold again: half a revision must never be replayed (P5).
func (h *history) add(changes []Change) {
	for _, c := range changes {
		h.changes = append(h.changes, c)
		h.bytes += cost(c)
	}
	drop := 0
	for drop < len(h.changes) && (len(h.changes)-drop > historyChanges || h.bytes > historyBytes) {
		h.floor = h.changes[drop].Revision
		for drop < len(h.changes) && h.changes[drop].Revision == h.floor {
			h.bytes -= cost(h.changes[drop])
			drop++
		}
	}
	clear(h.changes[:drop]) // let go of the entries; append moves the rest when it must grow
	h.changes = h.changes[drop:]
}

// sinceBytes is how much since returns at once: a watch whose client is slow keeps it from
// the collector.
const sinceBytes = 256 << 10

// since returns a copy of the changes after revision, in whole revisions; ok is false when
// some are forgotten, rest tells that there are more than it returns at once.
func (h *history) since(revision uint64) (changes []Change, rest, ok bool) {
	if revision < h.floor {
		return nil, false, false
	}
	later := h.changes[sort.Search(len(h.changes), func(i int) bool { return h.changes[i].Revision > revision }):]
	bytes := 0
	for i, c := range later {
		if bytes > sinceBytes && c.Revision != later[i-1].Revision {
			return append(changes, later[:i]...), true, true
		}
		bytes += cost(c)
	}
	return append(changes, later...), false, true
}
