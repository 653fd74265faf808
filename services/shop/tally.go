package shop

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/nearside/nearside/sdk/api"
)

const (
	// maxTickErrors bounds the different errors that a line tells.
	maxTickErrors = 3
	// maxMoves bounds the moves that a line tells.
	maxMoves = 64
	// maxLatency that is told apart from longer ones.
	maxLatency = time.Minute
)

// Tick is a line of the load report: what became of the calls that ended in one second,
// or, with Summary set, in all of the run. Latencies count from the moment a call was to
// start, so that they include the wait for a program that was busy or paused.
type Tick struct {
	Time     time.Time  `json:"t"` // end of the second
	Region   api.Region `json:"region"`
	Requests int64      `json:"requests"`
	Failed   int64      `json:"failed"` // no answer in time, or a status of 500 and more
	// Safe counts the calls that may be repeated: GETs, and POSTs with an idempotency key.
	// The shoppers here make no others.
	Safe       int64 `json:"safe"`
	SafeFailed int64 `json:"safe_failed"`
	// Refused counts answers of 400 to 499. Shoppers ask for nothing that should be
	// refused, so any is a bug, but not one of availability.
	Refused int64 `json:"refused,omitempty"`
	// Skipped counts calls never made because too many others were under way, or because
	// this program was paused.
	Skipped int64 `json:"skipped,omitempty"`
	// Unfinished counts calls that were cut because the run ended.
	Unfinished int64 `json:"unfinished,omitempty"`

	P50MS float64 `json:"p50_ms"` // of all requests, failed ones too
	P99MS float64 `json:"p99_ms"`
	MaxMS float64 `json:"max_ms"`

	Kinds        map[string]Count     `json:"kinds"`         // by the Kind constants
	PaymentsFrom map[api.Region]int64 `json:"payments_from"` // where payments was served
	ServedFrom   map[api.Region]int64 `json:"served_from"`   // where storefront was served
	Errors       []string             `json:"errors"`        // the first few different ones
	// Moves lists the changes of the region that served payments, in order, to at most 64;
	// the first one of a run says where it was served at first. The last line repeats none.
	Moves []Move `json:"moves,omitempty"`

	*Summary // nil except in the last line
}

// Move tells that from this moment on payments was served from another region.
type Move struct {
	Time time.Time  `json:"t"` // end of the first call that To served
	To   api.Region `json:"to"`
}

// Count is the outcome of one kind of call.
type Count struct {
	Requests int64 `json:"requests"`
	Failed   int64 `json:"failed"`
}

// Summary is what only the last line says.
type Summary struct {
	Final   bool    `json:"final"` // true
	Seconds float64 `json:"seconds"`
	// LongestGapMS is the longest time without a success, from the start of counting to
	// the end of the run.
	LongestGapMS float64 `json:"longest_gap_ms"`
	Seed         uint64  `json:"seed"`
	// The warm-up is in no other figure.
	WarmupMS       float64 `json:"warmup_ms"`
	WarmupRequests int64   `json:"warmup_requests"`
	WarmupFailed   int64   `json:"warmup_failed"`
}

// outcome is what became of one call.
type outcome struct {
	kind         string
	safe         bool
	end          time.Time
	latency      time.Duration
	status       int    // 0 without an answer
	err          string // "" unless failed
	unfinished   bool   // cut by the end of the run
	servedFrom   api.Region
	paymentsFrom api.Region // "" unless payments was asked
}

func (o outcome) failed() bool { return o.err != "" }

// tally counts outcomes. It reads no clock and is not for concurrent use.
type tally struct {
	region      api.Region
	begun       time.Time // zero during the warm-up
	second, all *sums
	lastSuccess time.Time // at first, begun
	longestGap  time.Duration
	payments    api.Region // that served payments last
}

type sums struct {
	tick    Tick // without the fields that line fills in
	latency *hdrhistogram.Histogram
}

func newSums(region api.Region) *sums {
	return &sums{
		tick: Tick{
			Region: region, Kinds: map[string]Count{}, Errors: []string{},
			PaymentsFrom: map[api.Region]int64{}, ServedFrom: map[api.Region]int64{},
		},
		latency: hdrhistogram.New(1, maxLatency.Microseconds(), 3),
	}
}

func newTally(region api.Region, begun time.Time) *tally {
	return &tally{region: region, begun: begun, lastSuccess: begun, second: newSums(region), all: newSums(region)}
}

// add counts o.
func (t *tally) add(o outcome) {
	t.second.add(o)
	t.all.add(o)
	if !o.failed() && !o.unfinished && o.end.After(t.lastSuccess) {
		t.longestGap = max(t.longestGap, o.end.Sub(t.lastSuccess))
		t.lastSuccess = o.end
	}
	if o.failed() || o.unfinished || o.paymentsFrom == "" || o.paymentsFrom == t.payments {
		return
	}
	t.payments = o.paymentsFrom
	if moves := &t.second.tick.Moves; len(*moves) < maxMoves {
		*moves = append(*moves, Move{Time: o.end.UTC(), To: o.paymentsFrom})
	}
}

// skip counts n calls that were never made.
func (t *tally) skip(n int64) {
	t.second.tick.Skipped += n
	t.all.tick.Skipped += n
}

// tick returns the line of the time since the last one, and starts anew.
func (t *tally) tick(now time.Time) Tick {
	line := t.second.line(now)
	t.second = newSums(t.region)
	return line
}

// quiet reports whether there is nothing to say since the last tick.
func (t *tally) quiet() bool {
	s := &t.second.tick
	return s.Requests+s.Skipped+s.Unfinished == 0
}

// final returns the line of the whole run.
func (t *tally) final(now time.Time, about Summary) Tick {
	line := t.all.line(now)
	about.Final = true
	about.Seconds = math.Round(now.Sub(t.begun).Seconds()*1000) / 1000
	about.LongestGapMS = milliseconds(max(t.longestGap, now.Sub(t.lastSuccess)))
	line.Summary = &about
	return line
}

func (s *sums) add(o outcome) {
	t := &s.tick
	if o.unfinished {
		t.Unfinished++
		return
	}
	count := t.Kinds[o.kind]
	t.Requests++
	count.Requests++
	if o.safe {
		t.Safe++
	}
	switch {
	case o.failed():
		t.Failed++
		count.Failed++
		if o.safe {
			t.SafeFailed++
		}
		if len(t.Errors) < maxTickErrors && !slices.Contains(t.Errors, o.err) {
			t.Errors = append(t.Errors, o.err)
		}
	case o.status >= 400:
		t.Refused++
	}
	t.Kinds[o.kind] = count
	if o.servedFrom != "" {
		t.ServedFrom[o.servedFrom]++
	}
	if o.paymentsFrom != "" {
		t.PaymentsFrom[o.paymentsFrom]++
	}
	// Within the range by the clamp, so that it can't fail.
	_ = s.latency.RecordValue(min(max(o.latency.Microseconds(), 1), maxLatency.Microseconds()))
}

// line returns the sums as of now; what it returns is not changed by later adds.
func (s *sums) line(now time.Time) Tick {
	t := s.tick
	t.Time = now.UTC().Truncate(time.Millisecond)
	t.P50MS = s.quantile(50)
	t.P99MS = s.quantile(99)
	t.MaxMS = float64(s.latency.Max()) / 1000
	t.Kinds, t.Errors, t.Moves = maps.Clone(t.Kinds), slices.Clone(t.Errors), slices.Clone(t.Moves)
	t.PaymentsFrom, t.ServedFrom = maps.Clone(t.PaymentsFrom), maps.Clone(t.ServedFrom)
	return t
}

func (s *sums) quantile(q float64) float64 { return float64(s.latency.ValueAtQuantile(q)) / 1000 }
