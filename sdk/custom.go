package nearside

import (
	"fmt"
	"sync/atomic"
)

// guarded is a program's own balancer for one tier of one answer: whatever it does, the call
// goes on. It is prepared by the first call that needs it, so outside all locks; calls that
// come meanwhile go round robin, and none waits for another.
type guarded struct {
	s        *service
	balancer Balancer
	tier     Candidates
	fallback *turns

	began  atomic.Bool
	picker atomic.Pointer[made]
}

// made is what Prepare returned.
type made struct {
	Picker
	observer Observer // nil when it does not want to know
}

// Pick asks the program's picker, and goes round robin where there is no good answer.
func (g *guarded) Pick(info PickInfo) int {
	if m := g.ready(); m != nil {
		if i, ok := g.ask(m, info); ok {
			return i
		}
	}
	return g.fallback.Pick(info)
}

// ready returns the picker, nil while there is none.
func (g *guarded) ready() *made {
	if g.s.distrust.Load() {
		return nil
	}
	if m := g.picker.Load(); m != nil {
		return m
	}
	if !g.began.CompareAndSwap(false, true) {
		return nil
	}
	p, ok := g.prepare()
	if !ok {
		return nil
	}
	if p == nil {
		g.wrong("its Prepare returned no Picker")
		return nil
	}
	m := &made{Picker: p}
	m.observer, _ = p.(Observer)
	g.picker.Store(m)
	return m
}

func (g *guarded) prepare() (p Picker, ok bool) {
	defer g.caught()
	return g.balancer.Prepare(g.tier), true
}

func (g *guarded) ask(m *made, info PickInfo) (i int, ok bool) {
	defer g.caught()
	i = m.Pick(info)
	if i < 0 || i >= len(g.tier.List) {
		g.wrong(fmt.Sprintf("its Pick returned %d, and there are %d candidates", i, len(g.tier.List)))
		return 0, false
	}
	return i, true
}

// observe tells the program's picker how an attempt ended, if it wants to know.
func (g *guarded) observe(o Outcome) {
	m := g.picker.Load()
	if m == nil || m.observer == nil || g.s.distrust.Load() {
		return
	}
	defer g.caught()
	m.observer.Observe(o)
}

// observes reports whether the picker wants to know how attempts end.
func (g *guarded) observes() bool {
	m := g.picker.Load()
	return m != nil && m.observer != nil
}

// caught ends a panic of the program's code. The service's calls go round robin from then on:
// a lock that the code held is held for ever.
func (g *guarded) caught() {
	if p := recover(); p != nil && !g.s.distrust.Swap(true) {
		g.s.c.log().Error("the balancer panicked; calls of the service go round robin until the program starts anew",
			"service", g.s.label, "balancer", fmt.Sprintf("%T", g.balancer), "panic", p)
	}
}

// wrong tells, once per service, of an answer that is none.
func (g *guarded) wrong(what string) {
	if !g.s.complained.Swap(true) {
		g.s.c.log().Error("the balancer gave no good answer; such calls go round robin",
			"service", g.s.label, "balancer", fmt.Sprintf("%T", g.balancer), "cause", what)
	}
}
