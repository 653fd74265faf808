package mesh

import (
	"fmt"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// Notice is a change of note of what is known of another region.
type Notice struct {
	Kind   api.EventKind
	Region api.Region
	Cause  string // one of the api.Because values
	Detail string // one sentence
}

// Coalescing of what could flood an event log.
const (
	stateQuiet = 30 * time.Second // between two notices of an origin's state
	rowQuiet   = 30 * time.Second // between two notices of quarantined rows
	// stateSettles is how long a link that just began may take to confirm what was on disk,
	// before its state is told.
	stateSettles = 10 * time.Second
)

// damper tells of changes of a value: the first one at once, and of those that follow within
// quiet only the last, with how many there were.
type damper struct {
	quiet   time.Duration
	told    string    // last told, or the first value
	at      time.Time // when
	seen    string
	changes int // since then
}

// observe takes the value as it is at now. When tell is true the change is due to be told:
// from from, after so many changes (one when nothing was swallowed).
func (d *damper) observe(now time.Time, value string) (from string, changes int, tell bool) {
	if value != d.seen {
		d.seen = value
		d.changes++
	}
	if d.changes == 0 || !d.at.IsZero() && now.Sub(d.at) < d.quiet {
		return "", 0, false
	}
	from, changes = d.told, d.changes
	d.told, d.at, d.changes = value, now, 0
	return from, changes, true
}

// notices is what a link remembers in order to tell of changes. Owned by the link.
type notices struct {
	state damper
	begun time.Time // zero until the state was looked at first
	fresh bool      // it was fresh once, or had its time for that
	held  int

	rowsAt  time.Time // of the last notice of quarantined rows
	rows    int       // since then
	rowName string    // the first of those
}

func (l *link) notice(kind api.EventKind, cause, format string, args ...any) {
	l.mesh.notice(Notice{Kind: kind, Region: l.peer, Cause: cause, Detail: fmt.Sprintf(format, args...)})
}

// watchState tells when the state of what is known changed. Called about once a second.
func (l *link) watchState(now time.Time) {
	n := &l.told
	v := l.replica.View()
	state := v.Origin(now).State
	if n.begun.IsZero() {
		n.begun = now
	}
	if !n.fresh {
		// What was on disk is old at first, and that is no news.
		n.fresh = state == api.AgeFresh || now.Sub(n.begun) >= stateSettles
		n.state = damper{quiet: stateQuiet, told: string(state), seen: string(state)}
	} else if from, changes, tell := n.state.observe(now, string(state)); tell {
		cause := api.BecauseAge
		switch {
		case state == api.AgeFresh:
			cause = api.BecauseConfirmed
		case v.Held > 0:
			cause = api.BecauseMassRemoval
		}
		detail := fmt.Sprintf("from %s to %s, %s old", from, state, v.Age(now).Round(100*time.Millisecond))
		if changes > 1 {
			detail += fmt.Sprintf("; it changed %d times in between", changes-1)
		}
		l.notice(api.EventOriginState, cause, "%s", detail)
	}
	if n.rows > 0 && now.Sub(n.rowsAt) >= rowQuiet {
		l.tellRows(now)
	}
	l.watchHeld(&v)
}

// watchHeld tells when services begin and cease to be held back.
func (l *link) watchHeld(v *replica.View) {
	was := l.told.held
	l.told.held = v.Held
	switch {
	case v.Held > 0 && was == 0:
		l.log.Warn("the peer lost many services at once; they are kept for a while", "services", v.Held, "for", replica.HoldFor)
		l.notice(api.EventRemovalHeld, api.BecauseMassRemoval, "it lost many services at once; %d are kept for up to %s", v.Held, replica.HoldFor)
	case v.Held == 0 && was > 0:
		l.notice(api.EventRemovalReleased, api.BecauseHoldOver, "%d services were kept; those that did not come back are removed now", was)
	}
}

// quarantined tells of rows that are not used: of the first at once, of more in a while.
func (l *link) quarantined(nacks []replica.Nack, now time.Time) {
	if len(nacks) == 0 {
		return
	}
	n := &l.told
	if n.rows == 0 {
		n.rowName = nacks[0].Key + ": " + nacks[0].Reason
	}
	n.rows += len(nacks)
	if n.rowsAt.IsZero() || now.Sub(n.rowsAt) >= rowQuiet {
		l.tellRows(now)
	}
}

func (l *link) tellRows(now time.Time) {
	n := &l.told
	more := ""
	if n.rows > 1 {
		more = fmt.Sprintf(", and %d more", n.rows-1)
	}
	l.log.Warn("a row of the peer is not valid and is not used; its last good form is", "row", n.rowName, "rows", n.rows)
	l.notice(api.EventRowQuarantined, api.BecauseBadRow, "%s%s; the last good form stays in use", n.rowName, more)
	n.rows, n.rowsAt = 0, now
}
