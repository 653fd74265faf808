package etcdchild

import (
	"errors"
	"strings"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdnode"
)

const (
	firstPause   = 200 * time.Millisecond
	longestPause = 10 * time.Second
	// stable is how long a child must have served for its end to be the first one again.
	stable = 10 * time.Second
)

// ending is how a child's life went.
type ending struct {
	err    error
	served time.Duration // since it was ready; 0 when it never was
}

// full reports that the disk had no room.
func (e ending) full() bool {
	return errors.Is(e.err, etcdnode.ErrNoSpace) || e.err != nil && strings.Contains(e.err.Error(), "no space left on device")
}

// incurable reports that the next start would fail in the same way.
func (e ending) incurable() bool {
	return errors.Is(e.err, etcdnode.ErrCorrupt) || errors.Is(e.err, etcdnode.ErrNotWritable) || errors.Is(e.err, store.ErrWrongRegion)
}

// pauseAfter is how long to wait after the end e before the next start. failures is how many children in a
// row ended before they were stable, e included.
func pauseAfter(e ending, failures int) time.Duration {
	switch {
	case e.incurable():
		return longestPause // somebody has to do something, and may do it at any time
	case failures == 0:
		return 0 // it worked for long: whatever it was, it is not the start
	}
	p := firstPause
	for range failures - 1 {
		if p *= 2; p >= longestPause {
			return longestPause
		}
	}
	return p
}

// roomFor reports whether the disk has room for a start after e. A disk that was full must have
// the whole reserve, or it would be full again at once.
func roomFor(e ending, free, reserve uint64, known bool) bool {
	return !known || !e.full() || free >= reserve
}
