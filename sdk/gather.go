package nearside

import "time"

// A new service lists all services of the stream anew. Those that are asked for together share
// one listing, and a program that goes on asking for new names costs its registry no more than
// a few listings a second.
const (
	gatherFor    = 5 * time.Millisecond   // to see who else comes
	gatherBurst  = 100                    // listings that wait no longer: a program that starts
	gatherRefill = 200 * time.Millisecond // after which there is one more
)

// gathering paces the listings for new services. One goroutine uses it at a time.
type gathering struct {
	spent int // of the burst
	at    time.Time
}

// next takes a listing, and returns how long it has to wait.
func (g *gathering) next(now time.Time) time.Duration {
	if n := int(now.Sub(g.at) / gatherRefill); g.at.IsZero() || n >= g.spent {
		g.spent, g.at = 0, now
	} else if n > 0 {
		g.spent -= n
		g.at = g.at.Add(time.Duration(n) * gatherRefill)
	}
	if g.spent < gatherBurst {
		g.spent++
		return gatherFor
	}
	return max(gatherFor, g.at.Add(gatherRefill).Sub(now))
}

// wait returns true when the stream should be opened anew: a service came, the list that is on
// its way is here, and whoever else came has been waited for.
func (g *gathering) wait(grew, listed, stop <-chan struct{}) bool {
	for _, ch := range []<-chan struct{}{grew, listed} {
		select {
		case <-ch:
		case <-stop:
			return false
		}
	}
	timer := time.NewTimer(g.next(time.Now()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
		return false
	}
}
