package check

import (
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// ward plays a node's checks against a Suspicion, a second at a time.
type ward struct {
	t      *testing.T
	s      *Suspicion
	now    time.Time
	checks []*one
}

type one struct {
	State
	rule  api.Check
	every int // seconds
	down  bool
}

func newWard(t *testing.T, n, every int) *ward {
	w := &ward{t: t, s: NewSuspicion(DefaultSuspicion()), now: t0}
	w.add(n, every)
	return w
}

func (w *ward) add(n, every int) {
	c := rule(api.RoleReadiness)
	for range n {
		w.checks = append(w.checks, &one{State: Resume(First(&c, w.now), w.now), rule: c, every: every})
	}
}

// run lets seconds go by; each check has its turn in its interval, evenly spread.
func (w *ward) run(seconds int) {
	for range seconds {
		w.now = w.now.Add(time.Second)
		tick := int(w.now.Sub(t0) / time.Second)
		for i, c := range w.checks {
			if (tick+i)%c.every != 0 {
				continue
			}
			r := Result{Success, "200"}
			if c.down {
				r = Result{Failure, "timeout"}
			}
			c.Step(&c.rule, Damping{}, r, w.now)
		}
		w.s.Review(w.now, func(yield func(*State) bool) {
			for _, c := range w.checks {
				if !yield(&c.State) {
					return
				}
			}
		})
	}
}

func (w *ward) down(from, to int, down bool) {
	for _, c := range w.checks[from:to] {
		c.down = down
	}
}

func (w *ward) want(on bool, when string) {
	w.t.Helper()
	if got, _ := w.s.On(); got != on {
		w.t.Errorf("%s: suspicion %v, want %v (%s)", when, got, on, w.s.Why())
	}
	if w.s.Why() == "" {
		w.t.Error("it does not say why")
	}
}

// P2: when most checks fail at once the node suspects itself before any of them is
// critical, for as long as it lasts, and no longer.
func TestMostFailingAtOnceIsSuspicious(t *testing.T) {
	w := newWard(t, 100, 10)
	w.run(60)
	w.want(false, "calm")
	w.down(0, 100, true)
	w.run(5)
	w.want(true, "half a round after a cut")
	if i := slices.IndexFunc(w.checks, func(c *one) bool { return c.Status != api.StatusPassing }); i >= 0 {
		t.Errorf("check %d is %s already", i, w.checks[i].Status)
	}
	w.run(300)
	w.want(true, "five minutes later")
	w.down(0, 100, false)
	w.run(10)
	w.want(false, "after the cut")
}

func TestFewFailingIsNotSuspicious(t *testing.T) {
	for _, tc := range []struct {
		name    string
		n, down int
		want    bool
	}{
		{"40 of 100", 100, 40, false},
		{"49 of 100", 100, 49, false},
		{"60 of 100", 100, 60, true},
		{"all of 4", 4, 4, false},
		{"all of 5", 5, 5, true},
		{"4 of 5", 5, 4, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWard(t, tc.n, 10)
			w.run(60)
			w.down(0, tc.down, true)
			w.run(25)
			w.want(tc.want, tc.name)
		})
	}
}

// Slow checks that had no turn yet do not outvote quick ones.
func TestSlowChecksAreNoEvidence(t *testing.T) {
	w := newWard(t, 10, 1)
	w.add(90, 60)
	w.run(180)
	w.down(0, 100, true)
	w.run(4)
	w.want(true, "four seconds after a cut")
}

// What failed already, or never passed, says nothing about this node.
func TestOldFailuresDoNotCount(t *testing.T) {
	w := newWard(t, 100, 10)
	w.run(20)
	for i := 0; i < 90; i += 5 { // one service after the other, each a minority of those left
		w.down(i, i+5, true)
		w.run(45)
		if i < 80 {
			w.want(false, "slow decay")
		}
	}
	w = newWard(t, 20, 10)
	w.down(0, 20, true)
	w.run(120)
	w.want(false, "none ever passed")
}

func TestSuspicionIsGivenUp(t *testing.T) {
	w := newWard(t, 20, 10)
	w.run(30)
	w.down(0, 15, true)
	w.run(30)
	w.want(true, "most are down")
	w.run(14*60 - 30)
	w.want(true, "14 minutes later")
	w.run(90)
	w.want(false, "after 15 minutes it is taken for true")
	w.run(600)
	w.want(false, "and stays so")
	w.down(0, 15, false)
	w.run(30)
	w.down(0, 15, true)
	w.run(15)
	w.want(true, "a second time")
}
