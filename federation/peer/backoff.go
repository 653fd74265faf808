package peer

import (
	"math/rand/v2"
	"time"
)

// Bounds of the wait between two attempts to connect.
const (
	backoffBase = 200 * time.Millisecond
	// backoffAway caps the wait for a region that does not answer. It is low on purpose: a
	// region that comes back should be linked again within two seconds even after hours, and
	// an attempt costs one packet.
	backoffAway = 1500 * time.Millisecond
	// backoffOffended caps the wait for one that answers wrongly: nothing gets better soon,
	// and each attempt costs both sides work.
	backoffOffended = 15 * time.Second
)

// Backoff waits longer after each failure, with decorrelated jitter: every wait is drawn
// between the base and three times the last one, so that nodes which lost a peer together do
// not come back together. The zero value is ready. Not safe for concurrent use.
type Backoff struct{ last time.Duration }

// Next returns how long to wait after err.
func (b *Backoff) Next(err error) time.Duration {
	most := backoffAway
	if Offended(err) {
		most = backoffOffended
	}
	high := min(max(b.last*3, 2*backoffBase), most)
	b.last = backoffBase + rand.N(high-backoffBase)
	return b.last
}

// Reset starts over, after a success.
func (b *Backoff) Reset() { b.last = 0 }
