package liveness

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// never is a deadline that does not come: 200 years.
const never = 200 * 365 * 24 * time.Hour

// Condemn says that the instance's checks failed for as long as its owner allowed: it
// counts as overdue from now on, and leaves as the brake permits, whatever its heartbeats
// say. Pardon takes it back, and so does a registration, or a pause of this process (what
// was seen before it proves nothing). A revision other than that of the record at hand is
// ignored: the evidence is older than the record.
func (l *Ledger) Condemn(now time.Duration, key api.InstanceKey, revision uint64) {
	e := l.entries[key]
	if e == nil || e.condemned || e.Revision != revision || l.decided[key] != nil {
		return
	}
	e.condemned = true
	e.deadline, e.credit = min(l.overdueAt(e), now), l.credit
	e.spare = 0
	l.due = min(l.due, now) // the next tick looks
}

// Pardon takes a Condemn back that is not decided yet: the instance has a full TTL again.
func (l *Ledger) Pardon(now time.Duration, key api.InstanceKey) {
	if e := l.entries[key]; e != nil && e.condemned && l.decided[key] == nil {
		e.condemned = false
		l.heard(now, e)
	}
}
