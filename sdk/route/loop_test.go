package route

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// loop is a small world, second by second: callers of home with a demand, in percent of what
// home can take, and regions that are as busy as what they get makes them. What decisions are
// told of that is late.
type loop struct {
	policy  Policy
	regions []*busy // home, r0, first
	demand  func(second int) float64
	// late is how old a load is when it is told, in seconds; of every seconds, and in classes.
	late, every int
	classes     bool
	callers     []*decider // share the demand evenly; one when there is none
	between     func(l *loop, second int)
	now         int
}

// busy is one region of a loop.
type busy struct {
	name   string
	size   int                      // instances; home's are the measure of demand
	others func(second int) float64 // what it has to do besides, in percent
	load   []float64                // by second
	told   int
}

// decider is a caller that goes by its last decision.
type decider struct {
	d Decision
	// forgets makes it remember of that what many callers of one registry share.
	forgets bool
}

func (c *decider) share(r string) float64 {
	if len(c.d.Tiers) > 0 {
		return regionShare(c.d, api.Region(r))
	}
	if r == "r0" {
		return 1
	}
	return 0
}

// tick is what a loop was like in one second.
type tick struct {
	home  float64   // share
	loads []float64 // of the regions, as they are
}

func (l *loop) share(r string) (sum float64) {
	for _, c := range l.callers {
		sum += c.share(r) / float64(len(l.callers))
	}
	return sum
}

// second lets one pass.
func (l *loop) second() (t tick) {
	if len(l.callers) == 0 {
		l.callers = []*decider{{}}
	}
	v := View{}
	for i, r := range l.regions {
		load := l.share(r.name) * l.demand(l.now) * float64(l.regions[0].size) / float64(r.size)
		if r.others != nil {
			load += r.others(l.now)
		}
		r.load = append(r.load, load)
		t.loads = append(t.loads, load)
		if l.now%l.every == 0 {
			then := r.load[max(0, l.now-l.late)]
			if r.told = int(math.Round(then)); l.classes {
				r.told = api.LoadClass(r.told, then)
			}
		}
		rv := of(r.name, int64(20*i), r.size, r.size)
		rv.Load = float64(r.told)
		v.Regions = append(v.Regions, rv)
	}
	t.home = l.share("r0")
	for _, c := range l.callers {
		memory := c.d.Memory
		if c.forgets {
			memory = memory.Loads()
		}
		c.d = Decide(v, l.policy, Caller{Region: "r0", Memory: memory, Elapsed: time.Second}, nil)
	}
	if l.between != nil {
		l.between(l, l.now)
	}
	l.now++
	return t
}

func (l *loop) run(seconds int) (out []tick) {
	for range seconds {
		out = append(out, l.second())
	}
	return out
}

func constant(x float64) func(int) float64 { return func(int) float64 { return x } }

// turns counts how often the share of home turned about, by more than a hair.
func turns(ticks []tick) (n int) {
	way := 0.0
	for i := 1; i < len(ticks); i++ {
		step := ticks[i].home - ticks[i-1].home
		if math.Abs(step) < 1e-4 {
			continue
		}
		if way*step < 0 {
			n++
		}
		way = step
	}
	return n
}

// P8, and the spill formula of the design: with whatever demand, other work, delay and classes
// the share that home keeps settles, without swinging, and home ends within the thresholds when
// there is room elsewhere. A registry that answers many settles likewise.
func TestSpillByLoadSettles(t *testing.T) {
	r, scarce := seeded(t), 0
	for n := range 150 {
		l := &loop{late: r.IntN(20), every: 1 + r.IntN(5), classes: r.IntN(4) > 0, callers: []*decider{{forgets: r.IntN(2) == 0}}}
		if n%3 == 0 {
			l.late, l.every, l.classes = 5, 5, true
		}
		l.late = min(l.late, 20-l.every)
		demand, others := 10+200*r.Float64(), 0.0
		if r.IntN(2) == 0 {
			others = 40 * r.Float64()
		}
		l.demand = constant(demand)
		l.regions = []*busy{{name: "r0", size: 4, others: constant(others)}, {name: "r1", size: 4 + r.IntN(12), others: constant(30 * r.Float64())}}
		ticks := l.run(300)
		last := ticks[len(ticks)-1]
		title := fmt.Sprintf("run %d: demand %.0f %%, others %.0f %%, told every %d s, %d s late, classes %v; ends with %.3f at %.1f %%",
			n, demand, others, l.every, l.late, l.classes, last.home, last.loads)
		for _, x := range ticks[250:] {
			if math.Abs(x.home-last.home) > 1e-3 {
				t.Fatalf("%s, and had %.3f", title, x.home)
			}
		}
		size := float64(l.regions[1].size) / 4
		room := (75 - l.regions[1].others(0)) * size // in percent of home
		enough := demand+others-75 < 0.9*room
		switch swings := turns(ticks); {
		case swings > 1, swings == 1 && enough:
			t.Fatalf("%s: turned about %d times", title, swings)
		case swings == 1: // the other region was as busy as home, once
			scarce++
		}
		if enough && last.loads[0] > 83 || last.loads[1] > 83 {
			t.Fatalf("%s: overloaded, with room for %.0f %%", title, room)
		}
		if demand+others < 78 && last.home < 1 {
			t.Fatalf("%s: spills without need", title)
		}
	}
	t.Logf("%d turned about once, where the room elsewhere is too small", scarce)
}

// A step of demand is followed by no more than 20 points a second, and home is well again as soon
// as the load has told of it; what was spilled comes back by the ramp when the step is over.
func TestSpillFollowsAStepOfDemand(t *testing.T) {
	for _, forgets := range []bool{false, true} {
		l := &loop{late: 5, every: 5, classes: true, callers: []*decider{{forgets: forgets}}, demand: func(s int) float64 {
			if s >= 60 && s < 200 {
				return 140
			}
			return 50
		}}
		l.regions = []*busy{{name: "r0", size: 10}, {name: "r1", size: 10, others: constant(10)}}
		ticks := l.run(300)
		for i := 1; i < len(ticks); i++ {
			step := ticks[i-1].home - ticks[i].home
			if step > spillRate+rounding || step < -1.0/30-rounding {
				t.Errorf("second %d: from %.3f to %.3f", i, ticks[i-1].home, ticks[i].home)
			}
		}
		if n := turns(ticks); n != 1 { // there and back
			t.Errorf("turned about %d times", n)
		}
		for i, x := range ticks {
			switch {
			case (i <= 60 || i > 270) && x.home != 1:
				t.Errorf("second %d: home has %.3f at a demand of 50 %%", i, x.home)
			case i > 60+11 && i < 200 && (x.loads[0] < 63 || x.loads[0] > 83 || x.loads[1] > 83):
				t.Errorf("second %d: loads %.1f %%", i, x.loads)
			}
		}
	}
}

// Regions that do not know of each other spill to the same one: it is too busy once, and then as
// busy as it may be, and nobody swings.
func TestManyRegionsSpillToOne(t *testing.T) {
	const homes = 6
	loops := make([]*loop, homes)
	for i := range loops {
		loops[i] = &loop{late: 5, every: 5, classes: true, demand: constant(85 + 5*float64(i))}
		loops[i].regions = []*busy{{name: "r0", size: 5}, {name: "far", size: 10, others: func(int) float64 {
			sum := 20.0
			for j, l := range loops {
				if j != i && len(l.callers) > 0 {
					sum += l.share("far") * l.demand(0) * 5 / 10
				}
			}
			return sum
		}}}
	}
	ticks := make([][]tick, homes)
	for range 400 {
		for i, l := range loops {
			ticks[i] = append(ticks[i], l.second())
		}
	}
	for i := range ticks {
		last := ticks[i][len(ticks[i])-1]
		if n := turns(ticks[i]); n > 1 || last.loads[1] > 83 || last.loads[1] < 63 {
			t.Errorf("home %d: turned about %d times, ends with %.3f at %.1f %%", i, n, last.home, last.loads)
		}
		for _, x := range ticks[i][300:] {
			if math.Abs(x.home-last.home) > 1e-3 {
				t.Fatalf("home %d does not settle: %.3f, then %.3f", i, x.home, last.home)
			}
		}
	}
}

// Callers come and go, and a new one remembers nothing: it begins with all of its traffic at
// home. The others make room for it.
func TestNewcomersDoNotUndoASpill(t *testing.T) {
	r := seeded(t)
	l := &loop{late: 5, every: 5, classes: true, demand: constant(150)}
	for range 20 {
		l.callers = append(l.callers, &decider{})
	}
	l.between = func(l *loop, second int) {
		if second%30 == 0 {
			*l.callers[r.IntN(20)] = decider{}
		}
	}
	l.regions = []*busy{{name: "r0", size: 10}, {name: "r1", size: 20}}
	for i, x := range l.run(600) {
		if i > 20 && (x.loads[0] > 90 || x.loads[0] < 60) {
			t.Errorf("second %d: home is used to %.1f %%", i, x.loads[0])
		}
	}
}

// A load that is told no more leaves the spill as it is: at once nothing moves, and while the region
// itself is not heard of nothing moves at all (P10). A region that goes on without telling is
// decided for as one that never told.
func TestALoadThatIsToldNoMore(t *testing.T) {
	decide := func(memory Memory, load float64, age time.Duration) Decision {
		v := View{Regions: []RegionView{of("a", 0, 10, 10), of("b", 20, 10, 10)}}
		v.Regions[0].Load, v.Regions[0].Origin.AgeMS = load, age.Milliseconds()
		return Decide(v, Policy{}, Caller{Region: "a", Memory: memory, Elapsed: time.Second}, nil)
	}
	spilling := decide(Memory{}, 150, 0)
	if got := shares(spilling, "a", "b"); got[0] != 50 {
		t.Fatal(got)
	}
	for name, c := range map[string]struct {
		load float64
		age  time.Duration
		back int // after how many seconds some comes back; 0 = never
	}{
		"not told":                    {0, 0, 31},
		"not told, and not heard of":  {0, time.Minute, 0},
		"as it was, and not heard of": {150, time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			memory := spilling.Memory
			for second := 1; second <= 120; second++ {
				d := decide(memory, c.load, c.age)
				memory = d.Memory
				if back := shares(d, "a")[0] > 50; back != (c.back > 0 && second >= c.back) {
					t.Fatalf("second %d: %v %s", second, shares(d, "a"), d.Detail)
				}
			}
		})
	}
}

// A load does not know yet of what was lost a moment ago: half of a busy region is taken for
// busier at once. Where half is enough nothing moves.
func TestLossBeforeTheLoadTellsOfIt(t *testing.T) {
	for load, want := range map[float64]float64{60: 70, 30: 100} {
		v := View{Regions: []RegionView{of("a", 0, 10, 10), of("b", 20, 10, 10)}}
		v.Regions[0].Load = load
		d := Decide(v, Policy{}, Caller{Region: "a"}, nil)
		if got := shares(d, "a"); got[0] != 100 {
			t.Fatalf("at %v %%: %v", load, got)
		}
		v.Regions[0] = of("a", 0, 5, 10)
		v.Regions[0].Load = load
		for range 3 {
			d = Decide(v, Policy{}, Caller{Region: "a", Memory: d.Memory, Elapsed: time.Second}, nil)
		}
		if got := shares(d, "a"); got[0] != want {
			t.Errorf("at %v %% with half of it: %v, want %v (%s)", load, got, want, d.Detail)
		}
	}
}
