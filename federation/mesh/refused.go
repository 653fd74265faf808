package mesh

import (
	"fmt"
	"sync"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// refusedQuiet is the time between two notices of the same cause.
const refusedQuiet = 30 * time.Second

// refusals counts who was refused for not being who it says, and tells of it now and then.
type refusals struct {
	mu    sync.Mutex
	cause map[string]*refusal
}

type refusal struct {
	count, untold uint64
	told          time.Time
}

// note counts one more; tell is true when that is due to be told, with how many it is about.
func (r *refusals) note(cause string, now time.Time) (untold uint64, tell bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause == nil {
		r.cause = make(map[string]*refusal)
	}
	x := r.cause[cause]
	if x == nil {
		x = &refusal{}
		r.cause[cause] = x
	}
	x.count++
	x.untold++
	if !x.told.IsZero() && now.Sub(x.told) < refusedQuiet {
		return 0, false
	}
	untold, x.untold, x.told = x.untold, 0, now
	return untold, true
}

// counts returns how many were refused, by cause.
func (r *refusals) counts() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]uint64, len(peer.Refusals))
	for _, cause := range peer.Refusals {
		if out[cause] = 0; r.cause[cause] != nil {
			out[cause] = r.cause[cause].count
		}
	}
	return out
}

// refused takes that a reader is not who it says. One that calls itself by our own name is another region of
// that name, or a node of ours that was told to read its own region.
func (m *Mesh) refused(x peer.Refusal) {
	n, tell := m.refusals.note(x.Cause, time.Now())
	if !tell {
		return
	}
	kind, proved := api.EventReaderRefused, ""
	if x.Cause == api.BecauseOurName {
		kind = api.EventDuplicate
	}
	if x.Proved != "" {
		proved = ", its certificate is of " + string(x.Proved)
	}
	detail := fmt.Sprintf("from %s, which calls itself %s%s: %s", x.From, api.Quote(string(x.Claimed)), proved, api.Quote(x.Err.Error()))
	if n > 1 {
		detail += fmt.Sprintf("; %d times since the last word of it", n)
	}
	m.log.Warn("a reader was refused: it is not who it says", "cause", x.Cause, "detail", detail)
	m.notice(Notice{Kind: kind, Region: m.cfg.Region, Cause: x.Cause, Detail: detail})
}

// namesake takes that whoever answers at a peer's address calls itself by our own name.
func (m *Mesh) namesake(at string, from api.Region) {
	m.refused(peer.Refusal{
		Cause: api.BecauseOurName, From: at, Claimed: m.cfg.Region, Err: fmt.Errorf("it answers at an address of %s", from),
	})
}

func (m *Mesh) notice(n Notice) {
	if m.cfg.OnNotice != nil {
		m.cfg.OnNotice(n)
	}
}
