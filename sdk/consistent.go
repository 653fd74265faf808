package nearside

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// DefaultLoad is ConsistentHash's.
const DefaultLoad = 1.25

// ConsistentHash keeps the calls of one key (see [WithKey]) with one instance: caches stay
// warm, sessions stay where they are. Keys lie on a ring with the instances, and go to the
// next one along it (Karger et al. 1997). An instance that comes or goes moves only the keys
// that it gets or had. All clients that know the same instances choose the same.
//
// No instance gets more than Load times its share, by weight, of the calls that this client
// has running in the tier: a key whose instance is full goes on along the ring to the first
// that has room (Mirrokni, Thorup, Zadimoghaddam 2016: bounded loads). Calls that are chosen
// in the same moment may overshoot it by as many as they are. A failed call is repeated at the
// next instance along the ring.
//
// Calls without a key go round robin. Where several tiers take traffic, the key also says
// which; a key changes tiers only as far as the shares move. While an instance starts slowly
// (Config.SlowStart) it has its keys at once, and room for its part only.
type ConsistentHash struct {
	// Load is how much more than its share an instance may take, above 1; default
	// DefaultLoad. Nearer to 1 is more even, and moves more keys away from their instance;
	// math.Inf(1) is no bound.
	Load float64
}

// Prepare returns the balancer's picker.
func (b ConsistentHash) Prepare(t Candidates) Picker { return prepare(b, t) }

func (b ConsistentHash) prepare(t Candidates, turn *atomic.Uint64, before Picker) Picker {
	p := &consistent{list: t.List, load: b.Load, keyless: newTurns(t, turn)}
	if p.load == 0 {
		p.load = DefaultLoad
	}
	for i := range t.List {
		p.weight += t.List[i].Weight
	}
	var old *ring
	if o, ok := before.(*consistent); ok {
		old = o.ring
	}
	p.ring = newRing(t.List, old)
	return p
}

func (b ConsistentHash) check() error {
	if b.Load != 0 && !(b.Load > 1) {
		return fmt.Errorf("ConsistentHash.Load %v is not above 1: leave it out for %v", b.Load, DefaultLoad)
	}
	return nil
}

type consistent struct {
	*ring
	list    []Candidate
	weight  float64 // of all
	load    float64
	keyless *turns
}

// Pick returns the first candidate along the ring that has room.
func (p *consistent) Pick(info PickInfo) int {
	key, ok := info.Key()
	if !ok {
		return p.keyless.Pick(info)
	}
	if len(p.list) == 1 {
		return 0
	}
	at := p.find(xxhash.Sum64String(key))
	owner := p.owners[at]
	if p.list[owner].Running() == 0 {
		return int(owner) // a bound is never below one call
	}
	calls := p.running() + 1
	for k := range p.owners {
		if place := p.owners[(at+k)%len(p.owners)]; p.room(place, calls) {
			return int(place)
		}
	}
	return int(owner)
}

// longestWalk bounds how many points a repeated call walks along; the rest of the tier is
// looked at in order then.
const longestWalk = 4096

// walk shows try the candidates along the ring that have room, some more than once, until it
// takes one. It reports whether it did; a call without a key is nowhere on the ring.
func (p *consistent) walk(info PickInfo, try func(place int) bool) bool {
	key, ok := info.Key()
	if !ok {
		return false
	}
	at, calls := p.find(xxhash.Sum64String(key)), p.running()+1
	for k := range min(len(p.owners), longestWalk) {
		if place := p.owners[(at+k)%len(p.owners)]; p.room(place, calls) && try(int(place)) {
			return true
		}
	}
	return false
}

func (p *consistent) running() (calls int) {
	for i := range p.list {
		calls += p.list[i].Running()
	}
	return calls
}

// room reports whether the candidate may take one more when so many run in all.
func (p *consistent) room(place uint32, calls int) bool {
	c := &p.list[place]
	return float64(c.Running()) < math.Ceil(p.load*float64(calls)*c.Weight/p.weight)
}

// stickyTier is where a key lies among the shares of the tiers; ok is false for calls without.
func stickyTier(c *call) (at uint64, ok bool) {
	key, ok := PickInfo{Context: c.ctx}.Key()
	if !ok {
		return 0, false
	}
	return mix(xxhash.Sum64String(key)), true // mixed: else a tier would have but a part of its ring
}
