package verdict

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// Link is whether somebody reaches a region's federation.
type Link string

// The links. On the wire of peers, see replica.Standing.
const (
	LinkUnknown Link = "" // has not tried for long enough to say
	LinkUp      Link = "up"
	LinkDown    Link = "down"
)

// Probes is what a region's endpoints did when somebody tried to connect to some.
type Probes string

// The outcomes of probes.
const (
	ProbesNone   Probes = "" // not tried, or not often enough to say
	ProbesAnswer Probes = "answer"
	ProbesSilent Probes = "silent"
)

// Word is what one region says of another.
type Word struct {
	By     api.Region
	Link   Link
	Probes Probes
}

// agrees reports whether the word is that the region is away altogether, as far as it goes.
func (w Word) agrees() bool { return w.Link == LinkDown && w.Probes != ProbesAnswer }

// Evidence is all that is known about one region at a moment.
type Evidence struct {
	Own Word
	// Peers are the words of other regions that are heard now. A word without a link is of
	// somebody who cannot know, and does not count.
	Peers []Word
	// Heard is how many regions other than the one in question are heard now, and Unheard how
	// many are not although they should be.
	Heard, Unheard int
	// Network: an endpoint of some other region answered us lately, so our own network works.
	Network bool
}

// Verdict says whether a region is down, and how that came out.
type Verdict struct {
	Down bool
	// Agree of Of regions that could know say that it is away; Needed would be enough.
	Agree, Of, Needed int
	Why               string // one sentence
}

// Needed returns k for n: how many of n must agree.
func Needed(n int) int {
	if n <= 1 {
		return 1
	}
	return n/2 + 1
}

// Judge decides.
func Judge(e Evidence) Verdict {
	v := Verdict{}
	var accusers, defenders []string
	for _, w := range append([]Word{e.Own}, e.Peers...) {
		switch {
		case w.Link == LinkUnknown:
			continue
		case w.agrees():
			v.Agree++
			accusers = append(accusers, string(w.By))
		default:
			defenders = append(defenders, string(w.By))
		}
		v.Of++
	}
	v.Needed = Needed(v.Of)
	slices.Sort(accusers)
	slices.Sort(defenders)
	switch {
	case e.Own.Link == LinkUp:
		v.Why = "its federation answers"
	case e.Own.Link == LinkUnknown:
		v.Why = "whether its federation answers is not known here yet"
	case e.Own.Probes == ProbesAnswer:
		v.Why = "its federation does not answer, its endpoints do"
	case e.Own.Probes == ProbesNone:
		v.Why = "its federation does not answer; whether its endpoints do is not known"
	case v.Agree < v.Needed:
		v.Why = fmt.Sprintf("neither its federation nor its endpoints answer here, but only %d of %d say so and %d are needed; %s",
			v.Agree, v.Of, v.Needed, spoken(defenders, "reaches it", "reach it"))
	case e.Heard == 0 && e.Unheard > 0 && !e.Network:
		v.Why = "neither its federation nor its endpoints answer here, but nobody else does: this region may be the one that is cut off"
	default:
		v.Down = true
		v.Why = fmt.Sprintf("%s, %d of %d with %d needed, and its endpoints do not answer",
			spoken(accusers, "does not reach it", "do not reach it"), v.Agree, v.Of, v.Needed)
	}
	return v
}

// spoken says who does what.
func spoken(who []string, one, several string) string {
	switch len(who) {
	case 0:
		return "nobody " + one
	case 1:
		return who[0] + " " + one
	}
	return strings.Join(who[:len(who)-1], ", ") + " and " + who[len(who)-1] + " " + several
}
