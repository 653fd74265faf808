package demo

import (
	"bufio"
	"encoding/json"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/shop"
)

// report gathers what the load generators saw. Safe for concurrent use.
type report struct {
	mu      sync.Mutex
	callers map[api.Region]*caller
	faults  []*fault
	moves   []Move
	onMove  func(Move) // called without the lock; may be nil
}

// caller is what the shoppers of one region saw.
type caller struct {
	last     shop.Tick // the latest second
	fresh    bool      // last has not been printed yet
	totals   Totals
	payments api.Region // where payments was served from last
}

// fault is one kill of a region, and how long the callers that used it took to leave it
// and to come home.
type fault struct {
	region           api.Region
	killed, restored time.Time
	users            map[api.Region]*moveTimes
}

type moveTimes struct{ away, home time.Duration }

// Totals of one calling region, or of all.
type Totals struct {
	Requests   int64 `json:"requests"`
	Failed     int64 `json:"failed"`
	Safe       int64 `json:"safe"`
	SafeFailed int64 `json:"safe_failed"`
	// LongestGap is the longest time between two successful calls.
	LongestGap api.Duration `json:"longest_gap"`
	Errors     []string     `json:"errors,omitempty"` // the first few
}

// Move is a change of the region that serves payments to a calling region.
type Move struct {
	At     time.Time  `json:"at"`
	Caller api.Region `json:"caller"`
	From   api.Region `json:"from"`
	To     api.Region `json:"to"`
}

func newReport() *report {
	r := &report{callers: map[api.Region]*caller{}}
	for _, region := range regions {
		r.callers[region] = &caller{}
	}
	return r
}

// read takes a load generator's lines until it ends.
func (r *report) read(region api.Region, lines io.Reader) {
	s := bufio.NewScanner(lines)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var t shop.Tick
		if json.Unmarshal(s.Bytes(), &t) == nil {
			r.add(region, t)
		}
	}
	_, _ = io.Copy(io.Discard, lines) // a line too long must not block the child
}

func (r *report) add(region api.Region, t shop.Tick) {
	var moved []Move
	r.mu.Lock()
	c := r.callers[region]
	if t.Summary != nil {
		c.totals.LongestGap = max(c.totals.LongestGap, api.Duration(t.LongestGapMS*float64(time.Millisecond)))
	} else {
		c.last, c.fresh = t, true
		c.totals.Requests += t.Requests
		c.totals.Failed += t.Failed
		c.totals.Safe += t.Safe
		c.totals.SafeFailed += t.SafeFailed
		for _, e := range t.Errors {
			if len(c.totals.Errors) < 5 {
				c.totals.Errors = append(c.totals.Errors, e)
			}
		}
	}
	for _, m := range t.Moves {
		if m.To == c.payments {
			continue
		}
		move := Move{At: m.Time, Caller: region, From: c.payments, To: m.To}
		c.payments = m.To
		r.settle(move)
		if move.From != "" {
			moved = append(moved, move)
			r.moves = append(r.moves, move)
		}
	}
	r.mu.Unlock()
	if r.onMove != nil {
		for _, m := range moved {
			r.onMove(m)
		}
	}
}

// settle notes how long after a kill or a restore a caller moved.
func (r *report) settle(m Move) {
	for _, f := range r.faults {
		u := f.users[m.Caller]
		switch {
		case u == nil:
		case m.To != f.region && u.away == 0 && m.At.After(f.killed):
			u.away = m.At.Sub(f.killed)
		case m.To == f.region && u.home == 0 && !f.restored.IsZero() && m.At.After(f.restored):
			u.home = m.At.Sub(f.restored)
		}
	}
}

// killed notes a kill: callers elsewhere that are served from the region must move.
func (r *report) killed(region api.Region, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &fault{region: region, killed: at, users: map[api.Region]*moveTimes{}}
	for name, c := range r.callers {
		if name == region {
			c.payments = "" // its shoppers are gone; they start anew
		} else if c.payments == region {
			f.users[name] = &moveTimes{}
		}
	}
	r.faults = append(r.faults, f)
}

func (r *report) restored(region api.Region, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range slices.Backward(r.faults) {
		if f.region == region {
			f.restored = at
			return
		}
	}
}

// line returns each region's newest second, marked read; nil for one that sent none.
func (r *report) line() map[api.Region]*shop.Tick {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[api.Region]*shop.Tick{}
	for name, c := range r.callers {
		if c.fresh {
			t := c.last
			out[name], c.fresh = &t, false
		}
	}
	return out
}

// Summary is the final report.
type Summary struct {
	Duration  api.Duration          `json:"duration"`
	All       Totals                `json:"all"`
	Surviving Totals                `json:"surviving"` // regions that were never killed
	Callers   map[api.Region]Totals `json:"callers"`
	Faults    []FaultSummary        `json:"faults"`
	Moves     []Move                `json:"moves"`
}

// FaultSummary is one kill.
type FaultSummary struct {
	Region   api.Region `json:"region"`
	Killed   time.Time  `json:"killed"`
	Restored *time.Time `json:"restored,omitempty"`
	// FailOver and FailBack give the times per calling region that used the killed one for
	// payments: from the kill to the first call served elsewhere, and from the restart's
	// beginning to the first call served at home again. 0 = did not happen.
	FailOver map[api.Region]api.Duration `json:"fail_over"`
	FailBack map[api.Region]api.Duration `json:"fail_back"`
}

func (r *report) summary(took time.Duration) Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Summary{Duration: api.Duration(took.Round(time.Millisecond)), Callers: map[api.Region]Totals{}, Moves: slices.Clone(r.moves)}
	wasKilled := map[api.Region]bool{}
	for _, f := range r.faults {
		wasKilled[f.region] = true
		fs := FaultSummary{Region: f.region, Killed: f.killed, FailOver: map[api.Region]api.Duration{}, FailBack: map[api.Region]api.Duration{}}
		if !f.restored.IsZero() {
			at := f.restored
			fs.Restored = &at
		}
		for name, u := range f.users {
			fs.FailOver[name], fs.FailBack[name] = api.Duration(u.away), api.Duration(u.home)
		}
		s.Faults = append(s.Faults, fs)
	}
	for name, c := range r.callers {
		s.Callers[name] = c.totals
		s.All.include(c.totals)
		if !wasKilled[name] {
			s.Surviving.include(c.totals)
		}
	}
	return s
}

func (t *Totals) include(o Totals) {
	t.Requests += o.Requests
	t.Failed += o.Failed
	t.Safe += o.Safe
	t.SafeFailed += o.SafeFailed
	t.LongestGap = max(t.LongestGap, o.LongestGap)
	t.Errors = append(t.Errors, o.Errors...)
}
