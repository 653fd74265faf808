package registry

import (
	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// bundle is a commit being put together of the proposals of several callers.
type bundle struct {
	members []*proposal
	ops     []store.Op
	size    int
	at      map[string]int // by key, the place in ops
}

// newBundle returns a bundle of members that were in one bundle before.
func newBundle(members ...*proposal) *bundle {
	b := &bundle{at: map[string]int{}}
	for _, p := range members {
		b.add(p)
	}
	return b
}

// add takes p into the bundle; false, and nothing is changed, when it does not fit: too
// many operations or bytes, or a key that another member writes. Departure records of one
// service and cause are put together: all who leave a service can leave at once.
func (b *bundle) add(p *proposal) bool {
	n, size := len(b.ops), b.size
	var joined [][]byte // for the keys that are there already, in the order of p.ops
	for _, op := range p.ops {
		i, twice := b.at[op.Key]
		if !twice {
			n++
			size += len(op.Key) + len(op.Value)
			continue
		}
		value, ok := join(b.ops[i], op)
		if !ok {
			return false
		}
		size += len(value) - len(b.ops[i].Value)
		joined = append(joined, value)
	}
	if n > store.MaxOps || size > store.MaxBytes {
		return false
	}
	for _, op := range p.ops {
		if i, twice := b.at[op.Key]; twice {
			b.ops[i].Value, joined = joined[0], joined[1:]
			continue
		}
		b.at[op.Key] = len(b.ops)
		b.ops = append(b.ops, op)
	}
	b.members = append(b.members, p)
	b.size = size
	return true
}

// join returns the value of one departure record that says what both say.
func join(a, b store.Op) ([]byte, bool) {
	if a.Check && b.Check {
		return nil, a.If == b.If // both depend on the same
	}
	if a.Delete || b.Delete || a.Check || b.Check || a.Guarded || b.Guarded {
		return nil, false
	}
	if _, ok := catalog.DepartedService(a.Key); !ok {
		return nil, false
	}
	if brown == "lose-tombstone" {
		return a.Value, true
	}
	return catalog.JoinDepartures(a.Value, b.Value)
}

// maxLead bounds a lead; beyond it everything is forgotten, which costs only a refusal by
// the store where one of ours would have done.
const maxLead = 4096

// lead is what was committed and is not published yet: whoever decided on a head that does
// not show it is outdated, and the store need not be asked.
type lead struct {
	epoch     api.Epoch         // that the head had when it was last looked at
	revisions map[string]uint64 // by key
	newest    uint64            // revision noted
}

func newLead() *lead { return &lead{revisions: map[string]uint64{}} }

// note remembers the guarded keys of a commit.
func (l *lead) note(ops []store.Op, revision uint64) {
	if len(l.revisions) > maxLead {
		clear(l.revisions)
	}
	l.newest = revision
	for _, op := range ops {
		if op.Guarded && !op.Check {
			l.revisions[op.Key] = revision
		}
	}
}

// forget drops what is published. In another epoch revisions begin anew, and nothing
// holds that was known.
func (l *lead) forget(shown api.Version) {
	if shown.Epoch != l.epoch {
		clear(l.revisions)
		l.epoch = shown.Epoch
		return
	}
	for key, revision := range l.revisions {
		if revision <= shown.Revision {
			delete(l.revisions, key)
		}
	}
}

// outdates reports whether ops were decided without knowing of a commit.
func (l *lead) outdates(ops []store.Op) bool {
	for _, op := range ops {
		if _, ok := l.revisions[op.Key]; ok && op.Guarded {
			return true
		}
	}
	return false
}
