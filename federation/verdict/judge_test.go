package verdict

import (
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

func up(by api.Region) Word      { return Word{By: by, Link: LinkUp} }
func down(by api.Region) Word    { return Word{By: by, Link: LinkDown} }
func silent(by api.Region) Word  { return Word{By: by, Link: LinkDown, Probes: ProbesSilent} }
func answers(by api.Region) Word { return Word{By: by, Link: LinkDown, Probes: ProbesAnswer} }
func unknown(by api.Region) Word { return Word{By: by} }

// Unreachable is not down: each case is one situation of region R as region A sees it.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		e    Evidence
		down bool
		why  string
	}{
		"all is well":                                 {Evidence{Own: up("a"), Peers: []Word{up("b")}, Heard: 1}, false, "its federation answers"},
		"just started":                                {Evidence{Own: unknown("a"), Peers: []Word{silent("b")}, Heard: 1}, false, "is not known here yet"},
		"link lost, not probed yet":                   {Evidence{Own: down("a"), Peers: []Word{silent("b")}, Heard: 1}, false, "is not known"},
		"link lost, endpoints answer":                 {Evidence{Own: answers("a"), Peers: []Word{answers("b")}, Heard: 1}, false, "its endpoints do"},
		"all agree":                                   {Evidence{Own: silent("a"), Peers: []Word{silent("b")}, Heard: 1}, true, "a and b do not reach it, 2 of 2 with 2 needed"},
		"all agree, one has not probed":               {Evidence{Own: silent("a"), Peers: []Word{down("b")}, Heard: 1}, true, "2 of 2"},
		"one-way street: only we do not reach it":     {Evidence{Own: silent("a"), Peers: []Word{up("b")}, Heard: 1}, false, "only 1 of 2 say so and 2 are needed; b reaches it"},
		"one-way street: its endpoints answer b":      {Evidence{Own: silent("a"), Peers: []Word{answers("b")}, Heard: 1}, false, "only 1 of 2"},
		"a liar accuses, we reach it":                 {Evidence{Own: up("a"), Peers: []Word{silent("b")}, Heard: 1}, false, "its federation answers"},
		"a liar accuses, its endpoints answer us":     {Evidence{Own: answers("a"), Peers: []Word{silent("b")}, Heard: 1}, false, "its endpoints do"},
		"a liar defends in a federation of three":     {Evidence{Own: silent("a"), Peers: []Word{up("b")}, Heard: 1}, false, "only 1 of 2"},
		"a liar defends in a federation of four":      {Evidence{Own: silent("a"), Peers: []Word{up("b"), silent("c")}, Heard: 2}, true, "a and c do not reach it, 2 of 3 with 2 needed"},
		"half of four is not enough":                  {Evidence{Own: silent("a"), Peers: []Word{silent("b"), up("c"), up("d")}, Heard: 3}, false, "c and d reach it"},
		"three of four is":                            {Evidence{Own: silent("a"), Peers: []Word{silent("b"), silent("c"), up("d")}, Heard: 3}, true, "3 of 4 with 3 needed"},
		"who has not tried does not count":            {Evidence{Own: silent("a"), Peers: []Word{unknown("b"), silent("c")}, Heard: 2}, true, "2 of 2"},
		"the others do not know the region":           {Evidence{Own: silent("a"), Peers: []Word{unknown("b")}, Heard: 1}, true, "1 of 1"},
		"two regions: our own word and probes":        {Evidence{Own: silent("a")}, true, "a does not reach it, 1 of 1"},
		"two regions, endpoints answer":               {Evidence{Own: answers("a")}, false, "its endpoints do"},
		"we hear nobody: are we cut off?":             {Evidence{Own: silent("a"), Unheard: 1}, false, "may be the one that is cut off"},
		"we hear nobody, yet our network works":       {Evidence{Own: silent("a"), Unheard: 1, Network: true}, true, "1 of 1"},
		"two die of four, and the third confirms":     {Evidence{Own: silent("a"), Peers: []Word{silent("b")}, Heard: 1, Unheard: 1}, true, "2 of 2"},
		"no endpoint is known, so none can be silent": {Evidence{Own: down("a"), Peers: []Word{down("b")}, Heard: 1}, false, "is not known"},
	} {
		v := Judge(c.e)
		if v.Down != c.down || !strings.Contains(v.Why, c.why) {
			t.Errorf("%s: %+v, want down %v and %q", name, v, c.down, c.why)
		}
	}
}

// Every combination of words of up to four regions: down needs our own link down and our own
// probes silent, and more than half of those who could know; no single peer can bring a
// region down, or up for everyone else, in a federation of four and more.
func TestEveryCombination(t *testing.T) {
	words := []func(api.Region) Word{up, down, silent, answers, unknown}
	count := 0
	for n := range 4 {
		total := 1
		for range n {
			total *= len(words)
		}
		for _, own := range words {
			for combination := range total {
				e := Evidence{Own: own("a"), Heard: n}
				for rest, i := combination, 0; i < n; i++ {
					e.Peers = append(e.Peers, words[rest%len(words)](api.Region("p"+string(rune('0'+i)))))
					rest /= len(words)
				}
				v := Judge(e)
				count++
				could, agree := 0, 0
				for _, w := range append([]Word{e.Own}, e.Peers...) {
					if w.Link != LinkUnknown {
						could++
					}
					if w.Link == LinkDown && w.Probes != ProbesAnswer {
						agree++
					}
				}
				want := e.Own.Link == LinkDown && e.Own.Probes == ProbesSilent && agree*2 > could
				if v.Down != want || v.Of != could || v.Agree != agree {
					t.Fatalf("%+v: %+v, want down %v", e, v, want)
				}
				if v.Down && could >= 2 && v.Needed < 2 {
					t.Fatalf("%+v: one word was enough: %+v", e, v)
				}
			}
		}
	}
	t.Logf("%d combinations", count)
}

func TestTally(t *testing.T) {
	now := time.Unix(0, 0)
	var c Tally
	fail := func(n int) {
		for range n {
			now = now.Add(ProbeEvery)
			c.Note(false, now)
		}
	}
	want := func(p Probes) {
		t.Helper()
		if got := c.State(now); got != p {
			t.Fatalf("%q after %+v, want %q", got, c, p)
		}
	}
	want(ProbesNone)
	fail(SilentAfter - 1)
	want(ProbesNone)
	fail(1)
	want(ProbesSilent)
	c.Note(true, now)
	want(ProbesAnswer)
	fail(SilentAfter - 1)
	want(ProbesAnswer)
	fail(1)
	want(ProbesSilent)
	c.Note(true, now)
	now = now.Add(AnswerHolds)
	want(ProbesNone)
	c.Reset()
	want(ProbesNone)
	if c.Tried != 0 || !c.Answered().IsZero() {
		t.Fatalf("%+v", c)
	}
}
