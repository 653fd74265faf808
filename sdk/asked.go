package nearside

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Instances that ask for a pause: an answer 503 with Retry-After (RFC 9110, 10.2.3).
//
// No repeat goes to such an instance before its time, of no call: the repeat goes to one that
// did not ask, and where all did the answer is the caller's, as it is. First attempts pass it
// over too, as long as half of the region's usable instances are left; else all get their turns
// as before, one attempt each: it may be one path that is not served, not the instances. If its
// breaker opens meanwhile, the first trial waits for that time.
//
// 429 is a word to the caller about its own rate (RFC 6585), for all we know about one
// user of many: it is never repeated, and moves nobody else's calls.
const maxAsked = 30 * time.Second // a mistaken Retry-After must not keep an instance away for a day

// retryAfter returns how long an answer asks to be left alone; 0 = it does not. now is the
// caller's wall clock, for dates in answers that do not tell theirs.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if n, err := strconv.ParseUint(v, 10, 64); err == nil {
		return time.Duration(min(n, uint64(maxAsked/time.Second))) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	// The answer's own date, so that two clocks which differ do no harm.
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent
	}
	return min(max(at.Sub(now), 0), maxAsked)
}

// asks notes that the instance asked to be left alone for d.
func (in *instance) asks(d time.Duration) {
	in.asked.Store(int64(in.clock() + d))
	if !in.passed.Load() && in.region.leave() {
		in.passed.Store(true)
	}
}

// waits reports whether the call passes the instance over because it asked for a pause.
func (in *instance) waits(c *call) bool {
	until := in.asked.Load()
	if until <= int64(in.clock()) {
		if in.asked.CompareAndSwap(until, 0) {
			in.passed.Store(false)
		}
		return false
	}
	return in.passed.Load() || len(c.tried) > 0
}

// pausing reports that the instance asked for a pause that is not over.
func (in *instance) pausing() bool {
	until := in.asked.Load()
	return until != 0 && until > int64(in.clock())
}
