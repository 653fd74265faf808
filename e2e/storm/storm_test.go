// Package storm holds one story: callers in three regions, and everything that goes wrong there at
// the same time.
package storm

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/wan"
)

// patience is for whatever has no other bound: a machine three times slower than most.
const patience = time.Minute

var length = flag.Duration("storm", time.Minute, "how long the storm lasts")

// weather is the world of the storm, and what happens to it.
type weather struct {
	*cluster.Cluster
	t     *testing.T
	roads *roads
	shops map[string]*cluster.Shop // region/copy

	mu     sync.Mutex
	now    []fault
	absent map[api.Region]kind // without any instance that is known, by what that is
}

func newWeather(t *testing.T) *weather {
	w := &weather{Cluster: cluster.New(t, regions...), t: t, shops: map[string]*cluster.Shop{}, absent: map[api.Region]kind{}}
	links := w.Link()
	homes := map[string]api.Region{}
	var names []string
	for _, s := range services {
		names = append(names, s.name)
	}
	for _, r := range regions {
		homes[w.Node(r).HTTP] = r
		for _, c := range copies {
			shop := w.SettledShop(r, c, names...)
			w.shops[string(r)+"/"+c] = shop
			for _, s := range services {
				homes[shop.Addr(s.name)] = r
			}
		}
	}
	w.roads = newRoads(t, links, homes)
	for i, a := range regions {
		for _, b := range regions[i+1:] {
			w.roads.both(a, b, calm(a, b))
		}
	}
	return w
}

// calm is good weather between two regions.
func calm(a, b api.Region) func(*wan.Direction) {
	return func(d *wan.Direction) { *d = wan.Direction{Delay: api.Duration(usual(a, b))} }
}

// start starts everything, and sets the policies of every region.
func (w *weather) start() {
	w.t.Helper()
	w.StartAll()
	for _, r := range regions {
		for _, c := range copies {
			w.shops[string(r)+"/"+c].Launch()
		}
	}
	ramp, local := api.Duration(5*time.Second), true
	for _, r := range regions {
		for name, p := range map[api.ServiceName]api.Policy{
			api.PolicyDefault: {FailbackRamp: &ramp},
			"users":           {Allowed: services[1].allowed},
			"payments":        {LocalOnly: &local},
		} {
			h := w.Node(r).Client()
			if _, err := h.Do(http.MethodPut, api.PathPolicy(name), p, nil); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	for _, r := range regions {
		w.awaitAll(r)
	}
}

// awaitAll waits until a region's registry lists every instance of the region as passing.
func (w *weather) awaitAll(r api.Region) {
	w.t.Helper()
	h := w.Node(r).Client()
	defer h.Close()
	cluster.Within(w.t, patience, "P1: "+string(r)+" has all its instances", func() error {
		for _, s := range services {
			l, err := h.Instances(s.name)
			if err != nil {
				return err
			}
			passing := 0
			for _, i := range l.Instances {
				if i.Status == api.StatusPassing {
					passing++
				}
			}
			if passing != len(copies) {
				return fmt.Errorf("%d of %s", passing, s.name)
			}
		}
		return nil
	})
}

func (w *weather) underWay() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s []string
	for _, f := range w.now {
		s = append(s, f.String())
	}
	return strings.Join(s, "; ")
}

func (w *weather) homeless(r api.Region) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.absent[r] != ""
}

func (w *weather) dark(r api.Region) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.absent[r] == darkRegion
}

// begin makes a fault happen.
func (w *weather) begin(f fault) {
	w.t.Helper()
	w.mu.Lock()
	w.now = append(w.now, f)
	if f.lost() {
		w.absent[f.region] = f.kind
	}
	w.mu.Unlock()
	dark := func(d *wan.Direction) { d.Blackhole = true }
	switch f.kind {
	case killInstance:
		w.shops[string(f.region)+"/"+f.copyName].Kill()
	case stopInstance:
		w.shops[string(f.region)+"/"+f.copyName].Signal(syscall.SIGSTOP)
	case killRegistry:
		w.Node(f.region).Kill()
	case stopRegistry:
		w.Node(f.region).Pause()
	case cutOneWay:
		w.roads.set(f.region, f.to, dark)
	case cutBothWays:
		w.roads.both(f.region, f.to, dark)
	case badLink:
		w.roads.both(f.region, f.to, func(d *wan.Direction) {
			d.Delay, d.Jitter, d.Loss = d.Delay+api.Duration(60*time.Millisecond), api.Duration(40*time.Millisecond), 0.05
		})
	case resetLink:
		w.roads.reset(f.region, f.to)
	case drainRegion:
		w.drain(f)
	case loseRegion, darkRegion:
		for _, r := range regions {
			if r != f.region && f.kind == darkRegion {
				w.roads.both(f.region, r, dark)
			}
		}
		w.Node(f.region).Kill()
		for _, c := range copies {
			w.shops[string(f.region)+"/"+c].Kill()
		}
	}
}

// drain asks a region to evacuate itself in steps, and to come back by itself.
func (w *weather) drain(f fault) {
	w.t.Helper()
	h := w.Node(f.region).Client()
	defer h.Close()
	until := time.Now().Add(f.until - f.at)
	_, err := h.Do(http.MethodPut, api.PathRegionDrain(f.region), api.DrainRequest{
		Percent: f.percent, Over: api.Duration((f.until - f.at) / 2), Steps: 3, Until: &until,
	}, nil)
	if err != nil {
		w.t.Errorf("%s: %v", f, err)
	}
}

// finish ends a fault.
func (w *weather) finish(f fault) {
	w.t.Helper()
	switch f.kind {
	case killInstance:
		w.shops[string(f.region)+"/"+f.copyName].Launch()
	case stopInstance:
		w.shops[string(f.region)+"/"+f.copyName].Signal(syscall.SIGCONT)
	case killRegistry:
		w.Node(f.region).Launch()
	case stopRegistry:
		w.Node(f.region).Resume()
	case cutOneWay, cutBothWays, badLink:
		w.roads.both(f.region, f.to, calm(f.region, f.to))
	case loseRegion, darkRegion:
		for _, r := range regions {
			if r != f.region && f.kind == darkRegion {
				w.roads.both(f.region, r, calm(f.region, r))
			}
		}
		w.Node(f.region).Launch()
		for _, c := range copies {
			w.shops[string(f.region)+"/"+c].Launch()
		}
	}
}

// settled waits until what a fault took away is there again, and takes it off the list.
func (w *weather) settled(f fault) {
	w.t.Helper()
	switch f.kind {
	case killInstance:
		w.shops[string(f.region)+"/"+f.copyName].AwaitReady()
	case killRegistry:
		w.Node(f.region).AwaitReady()
	case loseRegion, darkRegion:
		w.Node(f.region).AwaitReady()
		for _, c := range copies {
			w.shops[string(f.region)+"/"+c].AwaitReady()
		}
	}
}

// event is a moment of a fault.
type event struct {
	at time.Duration
	do func()
}

// rage makes a plan happen. Where something takes longer than planned, such as a start on a slow
// machine, everything after it happens later: the plan stays as fair as it is.
func (w *weather) rage(p plan) {
	w.t.Helper()
	var events []event
	for _, f := range p {
		over := max(p.back(f, f.region, f.region), f.until+settle)
		events = append(events,
			event{f.at, func() { w.begin(f) }},
			event{f.until, func() { w.finish(f) }},
			event{f.until + settle/2, func() { w.settled(f) }},
			event{over, func() { w.isOver(f) }},
		)
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.at - b.at) })
	last := time.Duration(0)
	for _, e := range events {
		pass(e.at - last)
		last = e.at
		e.do()
	}
}

// isOver says that a fault is over.
func (w *weather) isOver(f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = slices.DeleteFunc(w.now, func(o fault) bool { return o == f })
	if f.lost() {
		delete(w.absent, f.region)
	}
}

// P1, P3, P4, P7, P8, P10, P11: for a minute instances and registries are killed and stand still, links
// are cut, slow or lossy, regions are drained, and a whole one dies and returns, several of these
// at any time, as a seed draws them. Programs of three regions call three services meanwhile: one that
// everybody may serve, one that two regions may, and one that only their own may. No call that is safe to
// repeat fails, none is served where the policy forbids it, and every answer says where it comes from.
// Afterwards all is served at home again, and nothing is left of the callers. The long form is one storm
// after another, of seeds in a row.
func TestStorm(t *testing.T) {
	seed := cluster.Seed(t)
	w := newWeather(t)
	w.start()
	all := gather(t, w.Cluster, w.roads, w)
	pass(3 * time.Second) // steady
	w.calmShares(all)
	all.rules.weather(true)
	soak := cluster.SoakFor(t, *length)
	for began, round := time.Now(), uint64(0); round == 0 || time.Since(began) < soak; round++ {
		p := makePlan(seed+round, *length)
		t.Logf("the storm of seed %d:%s", seed+round, p)
		w.rage(p)
	}
	all.rules.weather(false)

	over := time.Now()
	for _, r := range regions {
		w.awaitAll(r)
	}
	all.rules.forget()
	cluster.Within(t, patience, "P3: everybody is served by the nearest region", func() error { return all.rules.home(all.programs) })
	t.Logf("all is served by the nearest region again %s after the storm", time.Since(over).Round(100*time.Millisecond))
	if err := all.end(); err != nil {
		t.Errorf("closing: %v", err)
	}
	cluster.Within(t, patience, "P8: nothing is left of the callers", func() error { return leftOver(t.Name()) })
	all.rules.verdict(t)
}

// calmShares lets one region be drained by 30 % in calm weather: there the shares are known.
func (w *weather) calmShares(all *crowd) {
	w.t.Helper()
	h := w.Node(eu).Client()
	defer h.Close()
	until := time.Now().Add(10 * time.Second)
	if _, err := h.Do(http.MethodPut, api.PathRegionDrain(eu), api.DrainRequest{Percent: 30, Until: &until}, nil); err != nil {
		w.t.Fatal(err)
	}
	pass(time.Until(until))
	all.rules.forget()
	cluster.Within(w.t, patience, "eu-west is no longer drained", func() error { return all.rules.home(all.programs) })
}

// leftOver returns nil if no goroutine is left that a program started.
func leftOver(test string) error {
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return err
	}
	var left []string
	for g := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(g, fmt.Sprintf("%q:%q", callerLabel, test)) {
			left = append(left, g)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("%d kinds of goroutines:\n%s", len(left), strings.Join(left, "\n\n"))
	}
	return nil
}

// pass lets time go by: what is waited for has no other sign.
func pass(d time.Duration) {
	t := time.NewTimer(max(d, 0))
	<-t.C
}
