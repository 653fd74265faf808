package replica

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Ages at which the states begin, see api.AgeState.
const (
	StaleAfter   = 5 * time.Second
	SuspectAfter = 30 * time.Second
	ExpiredAfter = 15 * time.Minute
)

// StateOf grades an age.
func StateOf(age time.Duration) api.AgeState {
	switch {
	case age < StaleAfter:
		return api.AgeFresh
	case age < SuspectAfter:
		return api.AgeStale
	case age < ExpiredAfter:
		return api.AgeSuspect
	}
	return api.AgeExpired
}

// atLeastSuspect returns s, or suspect when s is better.
func atLeastSuspect(s api.AgeState) api.AgeState {
	if s == api.AgeFresh || s == api.AgeStale {
		return api.AgeSuspect
	}
	return s
}

// delayWindow is how long a baseline of the quickest frame is kept. Two clocks that drift
// apart by 100 parts per million differ by at most 60 ms over two windows.
const delayWindow = 5 * time.Minute

// delay measures how much longer than the quickest one a frame was on its way. Frames that
// queued up behind a slow link, or in our own socket while we were suspended, look new when
// they are read; adding this keeps an age an upper bound. It compares differences on two
// monotonic clocks, never the clocks.
type delay struct {
	began     time.Time     // of the stream, ours
	window    time.Time     // when cur began
	cur, prev time.Duration // smallest offset in this window and the one before
	hasCur    bool
	hasPrev   bool
}

func (d *delay) observe(sent time.Duration, now time.Time) time.Duration {
	offset := now.Sub(d.began) - sent
	if !d.hasCur || now.Sub(d.window) > delayWindow {
		d.prev, d.hasPrev = d.cur, d.hasCur
		d.cur, d.hasCur, d.window = offset, true, now
	}
	d.cur = min(d.cur, offset)
	base := d.cur
	if d.hasPrev {
		base = min(base, d.prev)
	}
	return offset - base
}
