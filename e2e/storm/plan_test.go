package storm

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const (
	us = api.Region("us-east")
	eu = api.Region("eu-west")
	ap = api.Region("ap-south")
)

var (
	regions = []api.Region{us, eu, ap}
	copies  = []string{"a", "b", "c"}
)

// kind is what happens.
type kind string

const (
	killInstance kind = "kill -9 of an instance"
	stopInstance kind = "an instance stands still"
	killRegistry kind = "kill -9 of a registry"
	stopRegistry kind = "a registry stands still"
	cutOneWay    kind = "nothing arrives, one way"
	cutBothWays  kind = "nothing arrives, both ways"
	badLink      kind = "a slow link that loses packets"
	resetLink    kind = "all connections reset"
	drainRegion  kind = "a drain in steps"
	loseRegion   kind = "kill -9 of a whole region"
	darkRegion   kind = "a whole region goes dark, its programs too"
)

// fault is one thing that happens, from at to until.
type fault struct {
	kind      kind
	at, until time.Duration
	region    api.Region
	copyName  string     // of an instance
	to        api.Region // the other end of a link
	percent   float64    // of a drain
}

func (f fault) String() string {
	what := fmt.Sprintf("%4.1f-%4.1fs %s: %s", f.at.Seconds(), f.until.Seconds(), f.kind, f.region)
	switch {
	case f.copyName != "":
		what += "/" + f.copyName
	case f.to != "":
		what += " -> " + string(f.to)
	case f.percent > 0:
		what += fmt.Sprintf(" to %.0f %%", f.percent)
	}
	return what
}

func (f fault) lost() bool { return f.kind == loseRegion || f.kind == darkRegion }

// cuts reports whether the fault leaves nothing between two regions, in one direction at least.
func (f fault) cuts(a, b api.Region) bool {
	switch f.kind {
	case cutOneWay, cutBothWays:
		return (f.region == a && f.to == b) || (f.region == b && f.to == a)
	case darkRegion:
		return a != b && (f.region == a || f.region == b)
	}
	return false
}

// deafens reports whether it keeps a region's registry from hearing, or telling, about another's.
func (f fault) deafens(a, b api.Region) bool {
	switch f.kind {
	case killRegistry, stopRegistry, loseRegion, darkRegion:
		return f.region == a || f.region == b
	case badLink, resetLink:
		return (f.region == a && f.to == b) || (f.region == b && f.to == a)
	}
	return f.cuts(a, b)
}

// settle is how long whatever was away must be back before it counts as there, so that those who are
// to know of it do.
const settle = 3 * time.Second

// plan is a storm, in the order of its begins.
type plan []fault

func (p plan) String() string {
	var s strings.Builder
	for _, f := range p {
		s.WriteString("\n  " + f.String())
	}
	return s.String()
}

// back returns when what f took away in region r is known to be there again by callers in region c: it
// settles only while nothing keeps them from hearing of it.
func (p plan) back(f fault, r, c api.Region) time.Duration {
	end := f.until + settle
	for again := true; again; {
		again = false
		for _, o := range p {
			if o.deafens(r, c) && o.at < end && o.until+settle > end {
				end, again = o.until+settle, true
			}
		}
	}
	return end
}

// way returns nil if callers in region c have an instance to call in region r at a time: it is not
// concerned by any fault, nor was a moment ago, and the way there is open. back is when each fault's
// victims are there again for these callers.
func (p plan) way(c, r api.Region, at time.Duration, back []time.Duration) error {
	up := len(copies)
	var gone []string
	for i, f := range p {
		if f.at > at {
			continue
		}
		switch {
		case f.cuts(c, r) && at < f.until+settle:
			return fmt.Errorf("the way from %s to %s: %s", c, r, f)
		case f.region != r:
		case f.lost() && at < back[i]:
			return errors.New(f.String())
		case f.copyName != "" && !slices.Contains(gone, f.copyName) && at < back[i]:
			gone = append(gone, f.copyName)
			up--
		}
	}
	if up == 0 {
		return fmt.Errorf("all instances of %s", r)
	}
	return nil
}

// fair returns nil if every service that callers in any region may call has an instance for them at
// all times from one on. Of a service that is local only this is asked while its region is not lost. In a
// region that is dark there are no callers either.
func (p plan) fair(from time.Duration) error {
	for _, c := range regions {
		back := map[api.Region][]time.Duration{}
		for _, r := range regions {
			for _, f := range p {
				back[r] = append(back[r], p.back(f, r, c))
			}
		}
		for _, f := range p { // a way closes only when something begins
			if f.at < from || p.gone(c, f.at, darkRegion) {
				continue
			}
			for _, s := range services {
				err := fmt.Errorf("%s may be called nowhere", s.name)
				for _, r := range regions {
					if s.may(c, r) && err != nil {
						err = p.way(c, r, f.at, back[r])
					}
				}
				if err != nil && (!s.localOnly || !p.gone(c, f.at, loseRegion)) {
					return fmt.Errorf("%s of callers in %s at %s: %w", s.name, c, f.at, err)
				}
			}
		}
	}
	return nil
}

// gone reports whether a region is lost in one way, or was a moment ago.
func (p plan) gone(r api.Region, at time.Duration, how kind) bool {
	return slices.ContainsFunc(p, func(f fault) bool { return f.kind == how && f.region == r && f.at <= at && at < p.back(f, r, r) })
}

// clashes reports whether both faults are about the same thing at the same time.
func (f fault) clashes(o fault) bool {
	if f.until+settle <= o.at || o.until+settle <= f.at {
		return false
	}
	of := func(x fault) []string {
		link := func(a, b api.Region) string { return string(min(a, b)) + "/" + string(max(a, b)) }
		switch x.kind {
		case killInstance, stopInstance:
			return []string{string(x.region) + "/" + x.copyName}
		case killRegistry, stopRegistry:
			return []string{string(x.region)}
		case drainRegion: // it is told to the registry
			return []string{string(x.region), "drain"}
		case loseRegion, darkRegion:
			out := []string{string(x.region), "lost"}
			for _, c := range copies {
				out = append(out, string(x.region)+"/"+c)
			}
			for _, r := range regions {
				if r != x.region && x.kind == darkRegion {
					out = append(out, link(x.region, r))
				}
			}
			return out
		}
		return []string{link(x.region, x.to)}
	}
	theirs := of(o)
	return slices.ContainsFunc(of(f), func(t string) bool { return slices.Contains(theirs, t) })
}

// makePlan draws a storm of a length: two lanes of trouble with instances, one with registries, one with
// links and one of drains, all at once, and once a region goes. The same seed makes the same storm.
func makePlan(seed uint64, length time.Duration) plan {
	dice := rand.New(rand.NewPCG(seed, 5))
	between := func(a, b time.Duration) time.Duration {
		return a + time.Duration(dice.Int64N(int64(b-a)/int64(100*time.Millisecond)+1))*100*time.Millisecond
	}
	anyOf := func(kinds ...kind) kind { return kinds[dice.IntN(len(kinds))] }
	var p plan
	try := func(f fault) bool {
		if f.until > length || slices.ContainsFunc(p, f.clashes) {
			return false
		}
		next := append(p[:len(p):len(p)], f)
		if next.fair(f.at) != nil {
			return false
		}
		p = next
		return true
	}
	for range 20 {
		at := between(length/6, length/2)
		if try(fault{kind: anyOf(loseRegion, darkRegion), region: regions[dice.IntN(3)], at: at, until: at + length/6}) {
			break
		}
	}
	const second = time.Second
	lanes := []func(at time.Duration) fault{
		func(at time.Duration) fault {
			return fault{kind: drainRegion, at: at, until: at + between(6*second, 9*second), region: regions[dice.IntN(3)], percent: []float64{50, 80, 100}[dice.IntN(3)]}
		},
		func(at time.Duration) fault {
			return fault{kind: anyOf(killRegistry, stopRegistry), at: at, until: at + between(second, 7*second), region: regions[dice.IntN(3)]}
		},
		func(at time.Duration) fault {
			i := dice.IntN(3)
			return fault{kind: anyOf(cutOneWay, cutBothWays, badLink, resetLink), at: at, until: at + between(second, 7*second), region: regions[i], to: regions[(i+1+dice.IntN(2))%3]}
		},
	}
	instances := func(at time.Duration) fault {
		return fault{kind: anyOf(killInstance, stopInstance), at: at, until: at + between(second/2, 8*second), region: regions[dice.IntN(3)], copyName: copies[dice.IntN(3)]}
	}
	for _, draw := range append(lanes, instances, instances) {
		for at := between(0, 2*second); at < length; {
			done := false
			for range 10 {
				f := draw(at)
				if done = try(f); done {
					at = f.until + between(second/5, second)
					break
				}
			}
			if !done {
				at += second
			}
		}
	}
	slices.SortStableFunc(p, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
	return p
}
