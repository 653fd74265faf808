package nearside

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// maxTurns bounds the turns of one schedule, or sixteen per instance where these are more.
const maxTurns = 4096

// turns is the round robin of one tier: a schedule and whose turn it is.
type turns struct {
	schedule []uint32 // places in Candidates.List
	turn     *atomic.Uint64
}

func newTurns(t Candidates, turn *atomic.Uint64) *turns {
	return &turns{schedule: t.round(), turn: turn}
}

// round returns the schedule of the candidates.
func (t *Candidates) round() []uint32 {
	if t.lots != nil {
		return t.lots
	}
	return schedule(t.List)
}

// Pick returns the candidate whose turn it is.
func (t *turns) Pick(PickInfo) int {
	n := uint64(len(t.schedule))
	if n == 1 {
		return int(t.schedule[0])
	}
	return int(t.schedule[t.turn.Add(1)%n])
}

// schedule lays out one round of the round robin of a tier: every candidate gets turns by its
// weight, spread evenly over the round. With equal weights that is simply one turn each.
func schedule(list []Candidate) []uint32 {
	least, total := list[0].Weight, 0.0
	for i := range list {
		least = min(least, list[i].Weight)
		total += list[i].Weight
	}
	// The smallest weight gets one turn if that fits; four make the steps fine enough
	// where weights are no multiples of each other.
	unit := least
	if !multiples(list, least) {
		unit = least / 4
	}
	unit = max(unit, total/float64(max(maxTurns, 16*len(list))))
	type turn struct {
		at    float64
		place uint32
	}
	var turns []turn
	for i := range list {
		n := max(1, int(list[i].Weight/unit+0.5))
		for k := range n {
			// The offset keeps instances of equal weight in their order.
			at := (float64(k) + (float64(i)+0.5)/float64(len(list))) / float64(n)
			turns = append(turns, turn{at, uint32(i)})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
	out := make([]uint32, len(turns))
	for i, t := range turns {
		out[i] = t.place
	}
	return out
}

// multiples reports whether all weights are multiples of the least.
func multiples(list []Candidate, least float64) bool {
	for i := range list {
		r := list[i].Weight / least
		if n := float64(int(r + 0.5)); r-n > 0.01 || n-r > 0.01 {
			return false
		}
	}
	return true
}
