package nearside

import "math/rand/v2"

// leastRequest takes two candidates by weight, and of these the less busy one.
type leastRequest struct {
	lots []uint32 // places in list, each as often as its weight says
	list []Candidate
}

func newLeastRequest(t Candidates) *leastRequest {
	return &leastRequest{lots: t.round(), list: t.List}
}

// Pick draws twice.
func (l *leastRequest) Pick(PickInfo) int {
	x, y := two(l.lots)
	a, b := &l.list[x], &l.list[y]
	// Busy for its weight: one of three times the weight may have three times the calls.
	// Where both are idle the first one drawn gets it, so that weights hold.
	if float64(b.Running())*a.Weight < float64(a.Running())*b.Weight {
		return int(y)
	}
	return int(x)
}

// two draws two different lots; they may be of the same candidate if it has several.
func two(lots []uint32) (x, y uint32) {
	n := uint64(len(lots))
	if n == 1 {
		return lots[0], lots[0]
	}
	i := rand.Uint64N(n)
	j := rand.Uint64N(n - 1)
	if j >= i {
		j++
	}
	return lots[i], lots[j]
}
