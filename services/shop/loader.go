package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/readyfile"
)

const (
	// shopperTimeout ends a shopper's call with all of its repeats.
	shopperTimeout = 5 * time.Second
	// stopGrace is how long calls under way may go on after an interruption.
	stopGrace = 500 * time.Millisecond
	// maxUnderWay bounds concurrent calls; within it the bound is what the rate can fill in
	// shopperTimeout, so that only a program too slow for its rate ever skips a call.
	maxUnderWay = 4096
)

// loader is one run of Load. Its loop owns pace, plan and out; calls report to it under
// the mutex.
type loader struct {
	cfg    LoadConfig
	client *http.Client
	out    io.Writer
	plan   *plan
	slots  chan struct{} // a token per call under way
	calls  sync.WaitGroup

	mu     sync.Mutex
	tally  *tally          // nil during the warm-up
	unseen map[string]bool // kinds that have not succeeded yet
	warm   chan struct{}   // closed when unseen is empty
	about  Summary
}

func newLoader(cfg LoadConfig, transport http.RoundTripper, out io.Writer) *loader {
	l := &loader{
		cfg:    cfg,
		client: &http.Client{Transport: transport, Timeout: shopperTimeout},
		out:    out,
		plan:   newPlan(cfg.Seed, string(cfg.Region)+"-"+strconv.FormatUint(rand.Uint64(), 36)),
		slots:  make(chan struct{}, int(min(maxUnderWay, 64+math.Ceil(cfg.Rate*shopperTimeout.Seconds())))),
		unseen: map[string]bool{},
		warm:   make(chan struct{}),
		about:  Summary{Seed: cfg.Seed},
	}
	for _, k := range kinds() {
		l.unseen[k] = true
	}
	return l
}

func (l *loader) run(ctx context.Context) error {
	// Calls outlive ctx by a moment: cutting them at once would look like failures.
	callCtx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer l.calls.Wait()
	defer cut()

	start := time.Now()
	arrivals := pace{next: start, every: time.Duration(float64(time.Second) / l.cfg.Rate)}
	arrive := time.NewTimer(0)
	defer arrive.Stop()
	warmup := time.NewTimer(max(l.cfg.Warmup, 0))
	defer warmup.Stop()

	var seconds *time.Ticker          // of the report, once counting began
	var second, end <-chan time.Time  // nil before
	var warm <-chan struct{} = l.warm // nil after
	begin := func() error {
		warmup.Stop()
		warm = nil
		seconds = time.NewTicker(time.Second)
		second = seconds.C
		if l.cfg.Duration > 0 {
			end = time.After(l.cfg.Duration)
		}
		return l.begin(start)
	}
	defer func() {
		if seconds != nil {
			seconds.Stop()
		}
	}()
	if l.cfg.Warmup < 0 {
		if err := begin(); err != nil {
			return err
		}
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return l.finish(stopGrace, cut)
		case <-end:
			return l.finish(shopperTimeout, cut)
		case <-warm:
			err = begin()
		case <-warmup.C:
			err = begin()
		case now := <-second:
			err = l.write(l.take(now))
		case <-arrive.C:
			starts, skipped := arrivals.due(time.Now())
			for _, at := range starts {
				if !l.launch(callCtx, at) {
					skipped++
				}
			}
			l.skip(skipped)
			arrive.Reset(time.Until(arrivals.next))
		}
		if err != nil {
			return err
		}
	}
}

// begin ends the warm-up.
func (l *loader) begin(start time.Time) error {
	now := time.Now()
	l.mu.Lock()
	l.tally = newTally(l.cfg.Region, now)
	l.about.WarmupMS = milliseconds(now.Sub(start))
	l.mu.Unlock()
	return readyfile.Write(l.cfg.ReadyFile, struct {
		PID int `json:"pid"`
	}{os.Getpid()})
}

// launch starts the call that was to start at the given time; false = too many are under
// way. It is counted if it was launched after the warm-up.
func (l *loader) launch(ctx context.Context, at time.Time) bool {
	select {
	case l.slots <- struct{}{}:
	default:
		return false
	}
	l.mu.Lock()
	counted := l.tally
	l.mu.Unlock()
	var call shopperCall
	if counted != nil {
		call = l.plan.next()
	} else { // each kind in turn, to be through with all of them soon
		all := kinds()
		call = l.plan.draw(all[l.plan.drawn%len(all)])
	}
	l.calls.Go(func() {
		o := l.shop(ctx, call, at)
		l.mu.Lock()
		defer l.mu.Unlock()
		<-l.slots
		if counted != nil {
			counted.add(o)
			return
		}
		l.about.WarmupRequests++
		if o.failed() {
			l.about.WarmupFailed++
		} else if delete(l.unseen, o.kind); len(l.unseen) == 0 && l.warm != nil {
			close(l.warm)
			l.warm = nil
		}
	})
	return true
}

// shop makes one call and says what became of it.
func (l *loader) shop(ctx context.Context, call shopperCall, at time.Time) outcome {
	o := outcome{kind: call.kind, safe: call.method == http.MethodGet || call.key != ""}
	detail, err := l.ask(ctx, call, &o)
	o.end = time.Now()
	o.latency = o.end.Sub(at)
	switch {
	case err != nil && ctx.Err() != nil:
		o.unfinished = true
	case err != nil:
		o.err = clipError(fmt.Sprintf("%s: %v", call.kind, err))
	case o.status >= 500:
		o.err = clipError(fmt.Sprintf("%s: %d %s", call.kind, o.status, detail))
	}
	return o
}

func (l *loader) ask(ctx context.Context, call shopperCall, o *outcome) (detail string, err error) {
	ctx = withAttempt(ctx, quickAttempt(Storefront, call.target))
	req, err := http.NewRequestWithContext(ctx, call.method, "http://"+Storefront+call.target, bytes.NewReader(call.body))
	if err != nil {
		return "", err
	}
	if call.key != "" {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(HeaderIdempotencyKey, call.key)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return "", cause(err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing to do about it after reading
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBody))
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	o.status = resp.StatusCode
	o.servedFrom = api.Region(resp.Header.Get(HeaderRegion))
	o.paymentsFrom = api.Region(resp.Header.Get(HeaderPaymentsRegion))
	if resp.StatusCode >= 500 {
		var p problem
		_ = json.Unmarshal(body, &p) // not JSON: the status says it all
		detail = p.Detail
	}
	return detail, nil
}

func (l *loader) skip(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tally != nil && n > 0 {
		l.tally.skip(n)
	}
}

func (l *loader) take(now time.Time) Tick {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tally.tick(now)
}

// finish waits for the calls under way, cuts those that take longer than grace, and writes
// the last lines.
func (l *loader) finish(grace time.Duration, cut context.CancelFunc) error {
	timer := time.AfterFunc(grace, cut)
	l.calls.Wait()
	timer.Stop()
	now := time.Now()
	l.mu.Lock()
	if l.tally == nil { // interrupted in the warm-up: a summary of nothing
		l.tally = newTally(l.cfg.Region, now)
	}
	quiet, rest, all := l.tally.quiet(), l.tally.tick(now), l.tally.final(now, l.about)
	l.mu.Unlock()
	if !quiet {
		if err := l.write(rest); err != nil {
			return err
		}
	}
	return l.write(all)
}

// write writes a line, in one go, so that whoever follows the report never sees half.
func (l *loader) write(t Tick) error {
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if _, err := l.out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// clipError cuts a chain of errors to what a line of the report can hold.
func clipError(s string) string {
	const most = 240
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
