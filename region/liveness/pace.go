package liveness

import (
	"fmt"
	"time"
)

// Figures of the pace. A node that is starved hears heartbeats late, so it must not judge
// by them; a busy one that is late by some ten milliseconds hears everyone in time.
const (
	paceWindow = 10 * time.Second
	slowFrom   = 0.25 // of the window lost: from here on the node does not judge
	slowUntil  = 0.10 // and judges again from here on down
)

// pace knows how late the ticks of the last paceWindow were: what this process lost of the
// time that it should have run. The zero pace is one that keeps time.
type pace struct {
	late []lateness // oldest first
	lost time.Duration
	slow bool
}

type lateness struct{ at, late time.Duration }

// tick notes, and returns the lateness of, a tick that came gap after the one before and should have come after every. One
// long pause counts as most at a time: it is dealt with by a full TTL for everyone.
func (p *pace) tick(now, gap, every, most time.Duration) (late time.Duration, changed bool) {
	if every <= 0 {
		return 0, false
	}
	n := 0
	for n < len(p.late) && p.late[n].at <= now-paceWindow {
		p.lost -= p.late[n].late
		n++
	}
	p.late = append(p.late[:0], p.late[n:]...)
	if late = max(0, min(gap-every, most)); late > 0 {
		p.late = append(p.late, lateness{now, late})
		p.lost += late
	}
	was := p.slow
	switch share := p.share(); {
	case share >= slowFrom:
		p.slow = true
	case share <= slowUntil:
		p.slow = false
	}
	return late, p.slow != was
}

// share is the part of the window that was lost, 0 to 1.
func (p *pace) share() float64 { return min(1, float64(p.lost)/float64(paceWindow)) }

func (p *pace) why() string {
	return fmt.Sprintf("this node is starved: it lost %.0f %% of the last %s, so heartbeats reach it late and nobody is evicted; "+
		"give it more processor time. It judges again below %.0f %%", 100*p.share(), paceWindow, 100*slowUntil)
}
