package owner

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Config holds the times of the election.
type Config struct {
	Self Node
	Run  string // random, of this process
	// Renew is how often an owner beats.
	Renew time.Duration
	// Probe is how often a follower confirms that it sees what the store has.
	Probe time.Duration
	// Patience is how long the beat must stand still, in time that this node ran and the store
	// answered, before another node may claim.
	Patience time.Duration
	// MaxGap between two confirmations; a longer one counts for nothing.
	MaxGap time.Duration
	// Hold is how long after the begin of its last good commit an owner acts as one.
	Hold time.Duration
	// Jitter spreads the claims of several nodes over 0 to this.
	Jitter time.Duration
}

// Default returns the times of the product for a node.
func Default(self Node, run string) Config {
	return Config{
		Self: self, Run: run, Renew: time.Second, Probe: 500 * time.Millisecond, Patience: 3 * time.Second,
		MaxGap: 2500 * time.Millisecond, Hold: 5 * time.Second, Jitter: 400 * time.Millisecond,
	}
}

// Kind of an Action.
type Kind int8

// The kinds.
const (
	None  Kind = iota
	Probe      // confirm with the store that everything up to now was seen; then Probed
	Take       // commit the claim; then Took
	Renew      // commit a beat; then Renewed
)

// Action is what to do now. Nothing else may be under way.
type Action struct {
	Kind Kind
	// ClaimIf is the claim's revision that every commit depends on. Of a Take, BeatIf is that of
	// the beat: a beat that is not seen yet must fail it.
	ClaimIf, BeatIf uint64
	Claim           Claim // of a Take; Since is the caller's to fill in
}

// Machine is one node's part in the election. It is not safe for concurrent use. All times
// are of one monotonic clock.
type Machine struct {
	cfg Config

	claim    Claim
	claimRev uint64
	beatRev  uint64
	loaded   bool // the records were shown once

	// silence is how long the beat stood still, in confirmed time; counting from confirmed
	// when that is set.
	silence   time.Duration
	confirmed time.Duration
	counting  bool

	nextProbe, nextRenew time.Duration
	claimAfter           time.Duration // not before: after a claim that failed, or jitter
	waiting              bool          // claimAfter was set for the present state

	// held is when the last commit that the store took under the present claim began; since
	// then for Hold the node may act as the owner.
	held   time.Duration
	holds  bool
	random func(n int64) int64
}

// New returns a machine that has seen nothing. random returns a number in [0, n).
func New(cfg Config, random func(n int64) int64) *Machine {
	return &Machine{cfg: cfg, random: random}
}

// Claim returns the present claim and its revision; 0 when there is no record.
func (m *Machine) Claim() (Claim, uint64) { return m.claim, m.claimRev }

// Owner reports whether the claim is this process's.
func (m *Machine) Owner() bool {
	return !m.claim.Released() && m.claim.Run == m.cfg.Run && m.claim.Node.Name == m.cfg.Self.Name
}

// Holds returns until when this process may act as the owner. It is in the past, or ok is
// false, when it may not.
func (m *Machine) Holds() (until time.Duration, ok bool) {
	return m.held + m.cfg.Hold, m.holds && m.Owner()
}

// SeeClaim tells what the store shows as the claim; revision 0: there is none. It returns
// whether that is another claim than before.
func (m *Machine) SeeClaim(now time.Duration, c Claim, revision uint64) (changed bool) {
	m.loaded = true
	if revision == m.claimRev && c.Run == m.claim.Run && c.Term == m.claim.Term {
		return false
	}
	m.claim, m.claimRev = c, revision
	m.fresh(now)
	m.holds = false // until a commit under this claim is known to have been taken
	m.nextRenew = now
	return true
}

// SeeBeat tells that the store shows a beat of this revision.
func (m *Machine) SeeBeat(now time.Duration, revision uint64) {
	if revision != m.beatRev {
		m.beatRev = revision
		m.fresh(now)
	}
}

// fresh begins to wait anew.
func (m *Machine) fresh(now time.Duration) {
	m.silence, m.counting, m.confirmed, m.waiting = 0, true, now, false
}

// Step returns what to do now. It is called a few times per Probe.
func (m *Machine) Step(now time.Duration) Action {
	switch {
	case !m.loaded:
		return Action{}
	case m.Owner():
		if now < m.nextRenew {
			return Action{}
		}
		return Action{Kind: Renew, ClaimIf: m.claimRev}
	case m.vacant() || m.silence >= m.cfg.Patience:
		if !m.waiting {
			m.waiting = true
			m.claimAfter = max(m.claimAfter, now+time.Duration(m.random(int64(m.cfg.Jitter)+1)))
		}
		if now >= m.claimAfter {
			return m.take()
		}
	}
	if now >= m.nextProbe {
		m.nextProbe = now + m.cfg.Probe
		return Action{Kind: Probe}
	}
	return Action{}
}

// vacant: nobody can be renewing the claim. An earlier process of this very node, at the same
// address, has ended.
func (m *Machine) vacant() bool { return m.claim.Released() || m.claim.Node == m.cfg.Self }

func (m *Machine) take() Action {
	cause := api.BecauseOwnerSilent
	switch {
	case m.claimRev == 0:
		cause = api.BecauseFirstStart
	case m.claim.Released():
		cause = api.BecauseOwnerStopped
	case m.vacant():
		cause = api.BecauseUncleanEnd
	}
	return Action{
		Kind: Take, ClaimIf: m.claimRev, BeatIf: m.beatRev,
		Claim: Claim{Term: m.claim.Term + 1, Node: m.cfg.Self, Run: m.cfg.Run, Cause: cause},
	}
}

// Probed tells how a Probe ended: ok means that the store answered after the Probe began,
// and that everything it had then has been shown.
func (m *Machine) Probed(now time.Duration, ok bool) {
	if !ok {
		m.doubt()
		return
	}
	if m.counting {
		if gap := now - m.confirmed; gap <= m.cfg.MaxGap {
			m.silence += gap
		} else {
			m.silence = 0 // this node did not run, or could not see
			m.waiting = false
		}
	}
	m.counting, m.confirmed = true, now
}

// doubt: the store was away or told of something unseen, so the owner may have had no
// chance either. It gets some time to show up.
func (m *Machine) doubt() {
	m.silence = min(m.silence, m.cfg.Patience/2)
	m.counting, m.waiting = false, false
}

// Took tells how a Take ended. Whether it happened shows in the store, not here.
func (m *Machine) Took(now time.Duration, ok bool) {
	if !ok {
		m.doubt()
		m.claimAfter = now + m.cfg.Renew/2 + time.Duration(m.random(int64(m.cfg.Jitter)+1))
	}
}

// Renewed tells how a Renew that began at began, under the claim of revision claimIf, ended:
// with ok the store has taken it.
func (m *Machine) Renewed(began time.Duration, claimIf uint64, ok bool) {
	if !m.Owner() || claimIf != m.claimRev {
		return // what it proves is past
	}
	if ok {
		m.held, m.holds = began, true
		m.nextRenew = began + m.cfg.Renew
	} else {
		m.nextRenew = began + m.cfg.Renew/4
	}
}

// Hurry makes the next Step renew at once: there is something to tell.
func (m *Machine) Hurry() { m.nextRenew = 0 }
