package relay

import (
	"cmp"
	"slices"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// Patience is how long the direct way must have been out of use before another one is
	// taken: a node that is restarted is back sooner.
	Patience = 2 * time.Second
	// Margin is how much younger than ours a relay's knowledge must be. When the origin itself is
	// gone all regions' knowledge is about as old, and to change who tells it would be of no use.
	Margin = time.Second
	// Change is how much younger another relay's knowledge must be than what comes through the one in use.
	Change = 5 * time.Second
	// Home is how long the direct way must have answered without a break before it is taken
	// again. It doubles, up to MaxHome, each time that it then turns out to be no good.
	Home    = 3 * time.Second
	MaxHome = 2 * time.Minute
	// quantum is what differences in age are worth less than a shorter way.
	quantum = time.Second
)

// Offer is what a peer says that it could pass on of an origin, as of now.
type Offer struct {
	By      api.Region
	Version api.Version
	Age     time.Duration // of the origin's word, with the way from By to us
	Depth   int           // relays that there would be between the origin and us, By included
	Via     api.Region    // from whom By has it; "" = from the origin
	RTT     time.Duration // to By
}

// State is how we stand with an origin.
type State struct {
	Self, Origin api.Region
	Held         api.Version
	Age          time.Duration
	// Via is the relay in use, "" = none: the direct way is used or tried.
	Via api.Region
	// Down is how long the direct way has been down, 0 = it is up. Of use without a relay.
	Down time.Duration
	// Answers is how long the direct way has answered again, 0 = it does not, and Home how long it
	// has to. Of use with a relay.
	Answers, Home time.Duration
}

// Choose returns from whom to take the origin's rows: a region among the offers, or "" for
// the origin itself.
func Choose(s State, offers []Offer) api.Region {
	usable := make([]Offer, 0, len(offers))
	for _, o := range offers {
		if s.allows(o) {
			usable = append(usable, o)
		}
	}
	slices.SortFunc(usable, compare)
	if s.Via == "" {
		if s.Down == 0 && s.Age < replica.StaleAfter || s.Down > 0 && s.Down < Patience {
			return ""
		}
		for _, o := range usable {
			// A newer version whose age we can not tell is no gain: the age is what decides.
			if o.Age+Margin < s.Age {
				return o.By
			}
		}
		return ""
	}
	if s.Answers > 0 && s.Answers >= max(s.Home, Home) {
		return ""
	}
	current := slices.IndexFunc(usable, func(o Offer) bool { return o.By == s.Via })
	if current < 0 {
		if len(usable) > 0 && usable[0].Age+Margin < s.Age {
			return usable[0].By
		}
		return ""
	}
	for _, o := range usable {
		if o.Age+Change < s.Age && o.Age+Change < usable[current].Age {
			return o.By
		}
	}
	return s.Via
}

// allows reports whether an offer could be taken at all.
func (s *State) allows(o Offer) bool {
	switch {
	case o.By == s.Self, o.By == s.Origin, s.Origin == s.Self:
		return false
	case o.Via == s.Self: // it would be our own knowledge that comes back
		return false
	case o.Depth < 1, o.Depth > replica.MaxDepth:
		return false
	case o.Age >= replica.ExpiredAfter:
		return false
	case o.By == s.Via:
		return true // what it said is older than what it has told us since
	case s.Held.IsZero():
		return !o.Version.IsZero()
	}
	order := o.Version.Compare(s.Held)
	return order == api.Newer || order == api.Same
}

// compare orders offers, the best first: the youngest, and among about equals the one with
// fewer relays, then the nearer one.
func compare(a, b Offer) int {
	return cmp.Or(
		cmp.Compare(a.Age/quantum, b.Age/quantum), cmp.Compare(a.Depth, b.Depth), cmp.Compare(a.RTT, b.RTT), cmp.Compare(a.By, b.By),
	)
}
