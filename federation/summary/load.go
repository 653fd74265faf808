package summary

import (
	"maps"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/nearside/nearside/sdk/api"
)

// How load is told. It changes all the time, so it is told coarsely and apart from the rows: a
// row's content and hash, and the digest of an origin, know nothing of it. The classes are those
// that a region tells its own callers.
const (
	LoadStep  = api.LoadStep
	LoadSlack = api.LoadSlack
	MaxLoad   = api.MaxLoadClass
)

// LoadClass is api.LoadClass.
func LoadClass(old int, percent float64) int { return api.LoadClass(old, percent) }

// Load is the class of one service; 0 = not known (any more).
type Load struct {
	Key     api.ServiceKey
	Percent int
}

// Hash returns the part of a load in the digest of loads; of an unknown load it is 0.
func (l Load) Hash() Hash {
	if l.Percent == 0 {
		return 0
	}
	b := make([]byte, 0, 128)
	b = append(append(append(b, l.Key.Namespace...), '/'), l.Key.Service...)
	return Hash(xxhash.Sum64(append(b, '=', byte(l.Percent), byte(l.Percent>>8))))
}

// Loads is the load of all services of an origin whose load is known, as of one moment. It never
// changes. The nil Loads knows none.
type Loads struct {
	rows   map[api.ServiceKey]int
	digest Digest
	// changes lead here from the loads whose mark is from.
	changes    []Load
	mark, from *byte
}

// Next returns the loads after utilisations in percent were measured. A service that is not among
// them is not known any more. It returns l itself when no class changed.
func (l *Loads) Next(percent map[api.ServiceKey]float64) *Loads {
	var changes []Load
	old := l.all()
	for k, v := range percent {
		if c := LoadClass(old[k], v); c != old[k] {
			changes = append(changes, Load{k, c})
		}
	}
	for k := range old {
		if _, still := percent[k]; !still {
			changes = append(changes, Load{k, 0})
		}
	}
	return l.after(changes)
}

// Take returns the loads after another region told these classes; those that are not among them are
// not known any more.
func (l *Loads) Take(classes map[api.ServiceKey]int) *Loads {
	var changes []Load
	old := l.all()
	for k, c := range classes {
		if c != old[k] {
			changes = append(changes, Load{k, c})
		}
	}
	for k := range old {
		if _, still := classes[k]; !still {
			changes = append(changes, Load{k, 0})
		}
	}
	return l.after(changes)
}

// after returns the loads after some changed; l itself when none did.
func (l *Loads) after(changes []Load) *Loads {
	if len(changes) == 0 {
		return l
	}
	old := l.all()
	slices.SortFunc(changes, compareLoads)
	next := &Loads{rows: maps.Clone(old), digest: l.Digest(), changes: changes, mark: new(byte)}
	if next.rows == nil {
		next.rows = make(map[api.ServiceKey]int, len(changes))
	}
	for _, c := range changes {
		next.digest = next.digest.Remove(Load{c.Key, old[c.Key]}.Hash()).Add(c.Hash())
		if c.Percent == 0 {
			delete(next.rows, c.Key)
		} else {
			next.rows[c.Key] = c.Percent
		}
	}
	if l != nil {
		next.from = l.mark
	}
	return next
}

func (l *Loads) all() map[api.ServiceKey]int {
	if l == nil {
		return nil
	}
	return l.rows
}

// Digest identifies the loads: the sum of their hashes.
func (l *Loads) Digest() Digest {
	if l == nil {
		return 0
	}
	return l.digest
}

// Len returns how many services' load is known.
func (l *Loads) Len() int { return len(l.all()) }

// Since returns what leads from other loads to l, in the order of keys.
func (l *Loads) Since(other *Loads) []Load {
	switch {
	case l == other:
		return nil
	case l != nil && other != nil && l.from == other.mark:
		return l.changes
	}
	var out []Load
	now, then := l.all(), other.all()
	for k, v := range now {
		if then[k] != v {
			out = append(out, Load{k, v})
		}
	}
	for k := range then {
		if _, still := now[k]; !still {
			out = append(out, Load{k, 0})
		}
	}
	slices.SortFunc(out, compareLoads)
	return out
}

func compareLoads(a, b Load) int {
	if c := strings.Compare(string(a.Key.Namespace), string(b.Key.Namespace)); c != 0 {
		return c
	}
	return strings.Compare(string(a.Key.Service), string(b.Key.Service))
}
