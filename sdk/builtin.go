package nearside

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
)

// BuiltIn is a Balancer without settings: [RoundRobin] or [LeastRequest]. A program's own
// Balancer may call its Prepare for a part of the candidates.
type BuiltIn int

const (
	// RoundRobin takes instances in turn, by weight, each one's turns spread evenly over the
	// round. The default, and the cheapest.
	RoundRobin BuiltIn = iota
	// LeastRequest takes two instances at random, by weight, and of these the one with
	// fewer calls of this client running for its weight ("power of two choices", Mitzenmacher
	// 2001). Better when calls differ much in cost.
	LeastRequest
)

// String returns the balancer's name.
func (b BuiltIn) String() string {
	switch b {
	case RoundRobin:
		return "round robin"
	case LeastRequest:
		return "least request"
	}
	return fmt.Sprintf("balancer %d", int(b))
}

// Prepare returns the balancer's picker.
func (b BuiltIn) Prepare(t Candidates) Picker { return prepare(b, t) }

func (b BuiltIn) prepare(t Candidates, turn *atomic.Uint64, _ Picker) Picker {
	if b == LeastRequest {
		return newLeastRequest(t)
	}
	return newTurns(t, turn)
}

func (b BuiltIn) check() error {
	if b != RoundRobin && b != LeastRequest {
		return fmt.Errorf("%s is not known: use RoundRobin, LeastRequest, PeakEWMA{} or ConsistentHash{}", b)
	}
	return nil
}

// prepare is the Prepare of all balancers of this package, for a program's own that calls it. So
// nothing is taken for granted: a weight that is none counts as 1, and of nobody -1 is chosen.
func prepare(b ours, t Candidates) Picker {
	if len(t.List) == 0 {
		return nobody{}
	}
	wrong := func(c Candidate) bool { return !(c.Weight > 0) || math.IsInf(c.Weight, 1) }
	t.lots = nil // of the list as it was: the program may have changed it
	if slices.ContainsFunc(t.List, wrong) {
		t.List = slices.Clone(t.List)
		for i := range t.List {
			if wrong(t.List[i]) {
				t.List[i].Weight = 1
			}
		}
	}
	return b.prepare(t, new(atomic.Uint64), nil)
}

// nobody is the picker of no candidates.
type nobody struct{}

// Pick returns a place that does not exist.
func (nobody) Pick(PickInfo) int { return -1 }

// ours is a balancer of this package. Its pickers are made with the answer and not guarded.
type ours interface {
	Balancer
	check() error
	// prepare returns the picker of a tier. turn outlives answers where only one tier takes
	// traffic; before is the picker of the same tier in the answer before, or nil.
	prepare(t Candidates, turn *atomic.Uint64, before Picker) Picker
}
