package mesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/federation/relay"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/verdict"
	"github.com/nearside/nearside/sdk/api"
)

const (
	judgeInterval = 250 * time.Millisecond
	// unreachableAfter is how long a link must be down before we say so: a node that is
	// restarted is back sooner.
	unreachableAfter = 3 * time.Second
	// probeAfter is how long it must be down before its region's endpoints are probed.
	probeAfter = time.Second
	// wordHolds is how long a peer's last word counts.
	wordHolds = 5 * time.Second
)

// ErrNotProbed is wrapped by the errors of Config.Probe that say nothing about the endpoint:
// this node must not connect to its address.
var ErrNotProbed = errors.New("not probed")

// Probe connects to an endpoint of a region that is unreachable, and closes the connection.
type Probe func(ctx context.Context, e api.Endpoint) error

// heard is what a peer last said of the regions that it reads.
type heard struct {
	standings []replica.Standing
	at        time.Time
}

// say returns what was said of a region.
func (h *heard) say(region api.Region) (replica.Standing, bool) {
	for _, s := range h.standings {
		if s.Region == region {
			return s, true
		}
	}
	return replica.Standing{}, false
}

// judge finds out which regions are down. It owns the inquiries; what it finds is published
// in the links.
type judge struct {
	mesh      *Mesh
	inquiries map[api.Region]*inquiry
	probed    chan probed
}

// inquiry is about one region, for as long as its federation does not answer.
type inquiry struct {
	link   *link
	tally  verdict.Tally
	next   time.Time // of the next probe
	asking bool      // one is under way
	recent []string  // the targets tried last
	down   bool
	since  time.Time
	at     time.Time // wall clock of since
}

type probed struct {
	region api.Region
	err    error
}

func newJudge(m *Mesh) *judge {
	j := &judge{mesh: m, inquiries: make(map[api.Region]*inquiry), probed: make(chan probed)}
	return j
}

// inquiry returns that of a link.
func (j *judge) inquiry(l *link) *inquiry {
	q := j.inquiries[l.peer]
	if q == nil {
		q = &inquiry{link: l}
		j.inquiries[l.peer] = q
	}
	return q
}

// run judges until ctx ends.
func (j *judge) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(judgeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-j.probed:
			q := j.inquiries[p.region]
			q.asking = false
			if s := q.link.state.Load(); !s.connected && !errors.Is(p.err, ErrNotProbed) && ctx.Err() == nil {
				q.tally.Note(p.err == nil, time.Now())
				q.link.probed(p.err == nil)
			}
		case <-tick.C:
		}
		now := time.Now()
		for _, l := range j.mesh.all() {
			q := j.inquiry(l)
			if l.state.Load().connected {
				q.tally.Reset()
				q.recent = nil
			} else {
				j.probe(ctx, &wg, q, now)
			}
			l.probes.Store(q.tally.State(now))
		}
		for _, l := range j.mesh.all() {
			j.decide(j.inquiry(l), now)
		}
	}
}

// probe begins to connect to an endpoint of the region, when one is due.
func (j *judge) probe(ctx context.Context, wg *sync.WaitGroup, q *inquiry, now time.Time) {
	s := q.link.state.Load()
	if j.mesh.cfg.Probe == nil || q.asking || now.Before(q.next) || now.Sub(s.since) < probeAfter {
		return
	}
	e, ok := q.target(&s.view)
	if !ok {
		return
	}
	// Spread, so that the nodes of all regions do not knock in step.
	q.asking, q.next = true, now.Add(verdict.ProbeEvery+rand.N(verdict.ProbeEvery/5))
	wg.Go(func() {
		within, cancel := context.WithTimeout(ctx, verdict.ProbeTimeout)
		defer cancel()
		err := j.mesh.cfg.Probe(within, e)
		select {
		case j.probed <- probed{q.link.peer, err}:
		case <-ctx.Done():
		}
	})
}

// target picks an endpoint out of the region's own rows, at random, if possible one that was
// not tried just before.
func (q *inquiry) target(v *replica.View) (best api.Endpoint, ok bool) {
	rows := v.Table.Summaries()
	if len(rows) == 0 {
		return best, false
	}
	score := -1
	for range 16 {
		endpoints := rows[rand.N(len(rows))].Endpoints
		if len(endpoints) == 0 {
			continue
		}
		e := endpoints[rand.N(len(endpoints))]
		s := 0
		if e.Status.Usable() && !e.Overdue {
			s += 2
		}
		if !slices.Contains(q.recent, address(e)) {
			s++
		}
		if s > score {
			best, score = e, s
		}
		if s == 3 {
			break
		}
	}
	if score < 0 {
		return best, false
	}
	if q.recent = append(q.recent, address(best)); len(q.recent) >= verdict.SilentAfter {
		q.recent = q.recent[1:]
	}
	return best, true
}

// decide judges one region and publishes what came out.
func (j *judge) decide(q *inquiry, now time.Time) {
	l := q.link
	own := l.word(now)
	if own.Link == verdict.LinkUp {
		j.lift(q, api.BecauseLinkAnswers, "its federation answers")
		l.verdict.Store(nil)
		return
	}
	e := verdict.Evidence{Own: own}
	for _, p := range j.mesh.all() {
		if p == l {
			continue
		}
		if time.Since(j.inquiry(p).tally.Answered()) < verdict.AnswerHolds {
			e.Network = true
		}
		if !p.state.Load().connected {
			e.Unheard++
			continue
		}
		e.Heard++
		if h := p.heard.Load(); h != nil && now.Sub(h.at) < wordHolds {
			if s, ok := h.say(l.peer); ok {
				e.Peers = append(e.Peers, verdict.Word{By: p.peer, Link: verdict.Link(s.Link), Probes: verdict.Probes(s.Probes)})
			}
		}
	}
	v := verdict.Judge(e)
	switch {
	case v.Down && !q.down:
		q.down, q.since, q.at = true, now, time.Now().Round(0)
		l.log.Warn("the region is down", "why", v.Why)
		l.notice(api.EventRegionDown, api.BecauseAgreed, "%s", v.Why)
	case !v.Down && own.Probes == verdict.ProbesAnswer:
		j.lift(q, api.BecauseProbeAnswers, v.Why)
	case !v.Down && own.Probes != verdict.ProbesSilent || !v.Down && v.Of > 1:
		j.lift(q, api.BecauseNotAgreed, v.Why)
	}
	info := &api.RegionVerdict{
		Down: q.down, Agree: v.Agree, Of: v.Of, Needed: v.Needed, Probed: q.tally.Tried, Failed: q.tally.Failed, Why: v.Why,
	}
	if q.down {
		info.Since = &q.at
	}
	for _, w := range append([]verdict.Word{own}, e.Peers...) {
		info.Says = append(info.Says, api.RegionWord{By: w.By, Link: string(w.Link), Probes: string(w.Probes)})
	}
	before := l.verdict.Swap(info)
	if q.down != (before != nil && before.Down) {
		j.mesh.announce()
	}
}

// lift ends a region's being down.
func (j *judge) lift(q *inquiry, cause, why string) {
	if !q.down {
		return
	}
	took := time.Since(q.since).Round(100 * time.Millisecond)
	q.down = false
	q.link.log.Info("the region is no longer down", "why", why, "after", took)
	q.link.notice(api.EventRegionUp, cause, "%s; it was down for %s", why, took)
	if before := q.link.verdict.Load(); before != nil && before.Down {
		after := *before
		after.Down, after.Since = false, nil
		q.link.verdict.Store(&after)
		j.mesh.announce()
	}
}

// word is what we say of the link's region.
func (l *link) word(now time.Time) verdict.Word {
	w := verdict.Word{By: l.mesh.cfg.Region, Probes: l.probes.Load().(verdict.Probes)}
	switch s := l.state.Load(); {
	case s.connected:
		w.Link, w.Probes = verdict.LinkUp, verdict.ProbesNone
	case len(l.mesh.cfg.Near.Only) > 0 && !s.farAway:
		// Our own federation process does not answer, which says nothing of the region.
	case s.attempts > 0 && now.Sub(s.since) >= unreachableAfter:
		w.Link = verdict.LinkDown
	}
	return w
}

// standings is what heartbeats to every reader say.
func (m *Mesh) standings() []replica.Standing {
	now := time.Now()
	out := make([]replica.Standing, 0, len(m.all()))
	for _, l := range m.all() {
		v, w := &l.state.Load().view, l.word(now)
		o := v.Origin(now)
		say := replica.Standing{
			Region: l.peer, Epoch: o.Epoch, Revision: o.Revision, AgeMS: o.AgeMS, Link: string(w.Link), Probes: string(w.Probes),
		}
		if relay.Lacks(v, m.cfg.VerifyOrigin != nil, now) == "" {
			say.Relay, say.Via = v.Depth+1, v.Via
		}
		out = append(out, say)
	}
	return out
}

// probeCounts counts the probes of one region for the metrics.
type probeCounts struct{ answered, failed atomic.Uint64 }

func (l *link) probed(ok bool) {
	if ok {
		l.probeCounts.answered.Add(1)
	} else {
		l.probeCounts.failed.Add(1)
	}
}

func address(e api.Endpoint) string {
	return net.JoinHostPort(e.Address, strconv.Itoa(e.Port))
}
