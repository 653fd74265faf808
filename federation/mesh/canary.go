package mesh

import (
	"slices"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// canaryWindow is how many of the last canaries the percentiles are of.
const canaryWindow = 60

// canaries are the last measured propagation times of one origin. Owned by its link.
type canaries struct {
	last  []time.Duration // a ring
	next  int
	count uint64
}

// canaryState is what others may see of them: immutable.
type canaryState struct {
	last, p50, p99 time.Duration
	at             time.Time
	count          uint64
}

// note takes one measurement and returns the picture with it.
func (c *canaries) note(d time.Duration, now time.Time) *canaryState {
	if len(c.last) < canaryWindow {
		c.last = append(c.last, d)
	} else {
		c.last[c.next] = d
		c.next = (c.next + 1) % canaryWindow
	}
	c.count++
	sorted := slices.Sorted(slices.Values(c.last))
	at := func(share float64) time.Duration { return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)] }
	return &canaryState{last: d, p50: at(0.5), p99: at(0.99), at: now, count: c.count}
}

// info is the form of the API, rounded up.
func (s *canaryState) info(now time.Time) *api.Canary {
	if s == nil {
		return nil
	}
	up := func(d time.Duration) int64 { return int64((max(d, 0) + time.Millisecond - 1) / time.Millisecond) }
	return &api.Canary{LastMS: up(s.last), P50MS: up(s.p50), P99MS: up(s.p99), AgeMS: up(now.Sub(s.at)), Count: s.count}
}
