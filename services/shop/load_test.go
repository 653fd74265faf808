package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// fakeShop answers shoppers in memory, so that the clock of a synctest bubble rules.
type fakeShop struct {
	delay  time.Duration
	answer func(*http.Request, time.Duration) (status int, err error) // at a time since the start

	mu    sync.Mutex
	start time.Time
	seen  int
	keys  map[string]bool
}

func (f *fakeShop) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.seen++
	if k := r.Header.Get(HeaderIdempotencyKey); k != "" {
		if f.keys[k] {
			f.mu.Unlock()
			return nil, errors.New("key used twice")
		}
		f.keys[k] = true
	}
	since := time.Since(f.start)
	f.mu.Unlock()
	if r.URL.Host != Storefront || (r.Method == http.MethodPost) != (r.URL.Path == "/checkout") {
		return nil, errors.New("unexpected " + r.Method + " " + r.URL.String())
	}
	select {
	case <-time.After(f.delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	status, err := 200, error(nil)
	if f.answer != nil {
		status, err = f.answer(r, since)
	}
	if err != nil {
		return nil, err
	}
	h := http.Header{}
	h.Set(HeaderRegion, "eu-west")
	if r.URL.Path == "/quote" || r.URL.Path == "/checkout" {
		h.Set(HeaderPaymentsRegion, "us-east")
	}
	return &http.Response{
		StatusCode: status, Header: h, Request: r,
		Body: io.NopCloser(strings.NewReader(`{"error":"downstream","detail":"payments is away"}`)),
	}, nil
}

// shopFor runs the load against f in a bubble and returns the lines and the last one.
func shopFor(t *testing.T, ctx context.Context, cfg LoadConfig, f *fakeShop) (ticks []Tick, final Tick) {
	t.Helper()
	cfg.Region, cfg.Registry = "eu-west", []string{"http://127.0.0.1:1"}
	cfg, err := cfg.normalize()
	if err != nil {
		t.Fatal(err)
	}
	f.start, f.keys = time.Now(), map[string]bool{}
	var out bytes.Buffer
	if err := newLoader(cfg, f, &out).run(ctx); err != nil {
		t.Fatal(err)
	}
	ticks = parseLines[Tick](t, out.Bytes())
	if len(ticks) == 0 || ticks[len(ticks)-1].Summary == nil || !ticks[len(ticks)-1].Final {
		t.Fatalf("no final line in %s", out.Bytes())
	}
	final, ticks = ticks[len(ticks)-1], ticks[:len(ticks)-1]
	var sum Tick
	for _, tick := range ticks {
		if tick.Summary != nil {
			t.Error("two final lines")
		}
		sum.Requests += tick.Requests
		sum.Failed += tick.Failed
		sum.SafeFailed += tick.SafeFailed
	}
	if sum.Requests != final.Requests || sum.Failed != final.Failed || sum.SafeFailed != final.SafeFailed {
		t.Errorf("lines sum up to %+v, the last one says %+v", sum, final)
	}
	return ticks, final
}

// The rate is kept, the mix is the one promised, every call is counted once.
func TestLoadCountsEveryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ticks, final := shopFor(t, t.Context(), LoadConfig{Rate: 100, Duration: 20 * time.Second, Seed: 7}, &fakeShop{delay: 3 * time.Millisecond})
		if len(ticks) < 20 || len(ticks) > 21 {
			t.Errorf("%d lines for 20 s", len(ticks))
		}
		if final.Requests < 1995 || final.Requests > 2001 || final.Failed+final.Skipped+final.Unfinished != 0 {
			t.Errorf("final %+v", final)
		}
		if final.Safe != final.Requests {
			t.Errorf("%d of %d safe; all are", final.Safe, final.Requests)
		}
		for kind, percent := range map[string]int64{KindHome: 45, KindProduct: 25, KindQuote: 20, KindCheckout: 10} {
			got := final.Kinds[kind].Requests
			if want := final.Requests * percent / 100; got < want*8/10 || got > want*12/10 {
				t.Errorf("%s: %d of %d calls, want about %d %%", kind, got, final.Requests, percent)
			}
		}
		if final.PaymentsFrom["us-east"] != final.Kinds[KindQuote].Requests+final.Kinds[KindCheckout].Requests {
			t.Errorf("payments from %v", final.PaymentsFrom)
		}
		if final.ServedFrom["eu-west"] != final.Requests || len(final.ServedFrom) != 1 {
			t.Errorf("served from %v", final.ServedFrom)
		}
		if final.P50MS < 2.9 || final.P50MS > 3.1 || final.MaxMS > 3.1 {
			t.Errorf("p50 %v, max %v of calls of 3 ms", final.P50MS, final.MaxMS)
		}
		if final.Seed != 7 || final.Seconds < 20 || final.LongestGapMS > 50 {
			t.Errorf("summary %+v", final.Summary)
		}
	})
}

// A cold start is not counted, but told: counting begins once every kind of call worked.
func TestLoadWarmsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeShop{answer: func(r *http.Request, since time.Duration) (int, error) {
			if since < 2*time.Second && r.URL.Path == "/quote" {
				return 502, nil
			}
			return 200, nil
		}}
		_, final := shopFor(t, t.Context(), LoadConfig{Duration: 3 * time.Second}, f)
		if final.Failed != 0 || final.Requests < 119 || final.Requests > 121 {
			t.Errorf("final %+v", final)
		}
		if final.WarmupMS < 2000 || final.WarmupMS > 2300 || final.WarmupFailed < 15 {
			t.Errorf("warm-up %+v", final.Summary)
		}
	})
}

// A shop that never works is counted as failing, after the warm-up.
func TestLoadCountsAShopThatNeverWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeShop{answer: func(*http.Request, time.Duration) (int, error) { return 0, errors.New("connection refused") }}
		ticks, final := shopFor(t, t.Context(), LoadConfig{Rate: 10, Duration: 5 * time.Second, Warmup: 2 * time.Second}, f)
		if final.Requests < 49 || final.Failed != final.Requests || final.SafeFailed != final.Requests {
			t.Errorf("final %+v", final)
		}
		if final.LongestGapMS < 5000 || final.WarmupMS != 2000 {
			t.Errorf("summary %+v", final.Summary)
		}
		if e := ticks[0].Errors; len(e) == 0 || len(e) > maxTickErrors || !strings.Contains(e[0], "connection refused") || strings.Contains(e[0], "http://") {
			t.Errorf("errors %q", e)
		}
	})
}

// An outage is seen by those who would have come: failures by kind, the reason, the gap.
func TestLoadSeesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeShop{answer: func(_ *http.Request, since time.Duration) (int, error) {
			if since > 3*time.Second && since < 5*time.Second {
				return 502, nil
			}
			return 200, nil
		}}
		ticks, final := shopFor(t, t.Context(), LoadConfig{Rate: 50, Duration: 8 * time.Second, Warmup: -1}, f)
		if final.Failed < 98 || final.Failed > 101 || final.SafeFailed != final.Failed {
			t.Errorf("failed %d", final.Failed)
		}
		if final.LongestGapMS < 1990 || final.LongestGapMS > 2050 {
			t.Errorf("longest gap %v", final.LongestGapMS)
		}
		if e := ticks[4].Errors; len(e) == 0 || !strings.Contains(e[0], "502 payments is away") {
			t.Errorf("errors %q", e)
		}
		if final.WarmupMS != 0 || final.WarmupRequests != 0 {
			t.Errorf("summary %+v", final.Summary)
		}
	})
}

// A call without an answer fails after 5 s and keeps nobody else from calling.
func TestLoadIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeShop{delay: time.Hour}
		_, final := shopFor(t, t.Context(), LoadConfig{Rate: 40, Duration: 10 * time.Second, Warmup: -1}, f)
		if final.Requests < 399 || final.Failed != final.Requests || final.Skipped != 0 {
			t.Errorf("final %+v", final)
		}
		if final.P50MS < 4900 || final.P50MS > 5100 {
			t.Errorf("p50 %v", final.P50MS)
		}
	})
}

// More than can be under way is told as skipped, not hidden.
func TestLoadTellsWhatItSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeShop{delay: time.Hour}
		_, final := shopFor(t, t.Context(), LoadConfig{Rate: 2000, Duration: 4 * time.Second, Warmup: -1}, f)
		if final.Requests != maxUnderWay || final.Skipped < 3900 || final.Requests+final.Skipped < 7999 {
			t.Errorf("requests %d, skipped %d", final.Requests, final.Skipped)
		}
	})
}

// An interruption ends it at once, and what it cut is not called a failure.
func TestLoadInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begun := time.Now()
		f := &fakeShop{delay: 2 * time.Second}
		_, final := shopFor(t, ctx, LoadConfig{Rate: 10, Warmup: -1}, f)
		if took := time.Since(begun); took != 3*time.Second+stopGrace {
			t.Errorf("took %s", took)
		}
		if final.Failed != 0 || final.Unfinished == 0 || final.Requests+final.Unfinished != int64(f.seen) {
			t.Errorf("final %+v of %d calls", final, f.seen)
		}
	})
}

func TestLoadInterruptedInWarmup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f := &fakeShop{answer: func(*http.Request, time.Duration) (int, error) { return 503, nil }}
		ticks, final := shopFor(t, ctx, LoadConfig{}, f)
		if len(ticks) != 0 || final.Requests != 0 || final.WarmupFailed < 39 {
			t.Errorf("final %+v", final.Summary)
		}
	})
}

// Load against the real services: the report file is appended to, the ready file comes
// when counting begins and goes at the end.
func TestLoadAgainstTheShop(t *testing.T) {
	n := newTown(t)
	open(t, n, Config{})
	dir := t.TempDir()
	cfg := LoadConfig{
		Region: "eu-west", Registry: []string{"http://127.0.0.1:1"}, Rate: 200, Duration: 1200 * time.Millisecond,
		Report: filepath.Join(dir, "load.ndjson"), ReadyFile: filepath.Join(dir, "ready.json"),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	torn := `{"t":"2026-`
	if err := os.WriteFile(cfg.Report, []byte(torn), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := load(t.Context(), cfg, n.dial); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(cfg.Report)
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := bytes.CutPrefix(data, []byte(torn+"\n"))
	if !ok {
		t.Fatalf("the report was not appended to: %.60q", data)
	}
	lines := parseLines[Tick](t, rest)
	final := lines[len(lines)-1]
	if final.Failed+final.Refused != 0 || final.Requests < 100 || final.PaymentsFrom["eu-west"] == 0 {
		t.Errorf("final %s", rest)
	}
	if _, err := os.Stat(cfg.ReadyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ready file is still there: %v", err)
	}
}

// Where payments is served from is followed to the call, and failures don't count.
func TestTallyFollowsPayments(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	tally := newTally("ap-south", at(0))
	for ms, from := range []api.Region{"eu-west", "eu-west", "", "us-east", "us-east", "eu-west"} {
		tally.add(outcome{kind: KindQuote, safe: true, end: at(ms), status: 200, paymentsFrom: from})
	}
	tally.add(outcome{kind: KindQuote, safe: true, end: at(7), status: 502, err: "x", paymentsFrom: "us-east"})
	want := []Move{{at(0).UTC(), "eu-west"}, {at(3).UTC(), "us-east"}, {at(5).UTC(), "eu-west"}}
	if got := tally.tick(at(1000)).Moves; !reflect.DeepEqual(got, want) {
		t.Errorf("moves %v, want %v", got, want)
	}
	tally.add(outcome{kind: KindQuote, end: at(1100), status: 200, paymentsFrom: "eu-west"})
	if got := tally.tick(at(2000)).Moves; len(got) != 0 {
		t.Errorf("moves %v in a quiet second", got)
	}
	if got := tally.final(at(2000), Summary{}).Moves; len(got) != 0 {
		t.Errorf("moves %v told twice", got)
	}
}

// The names that readers of the report rely on.
func TestTickOnTheWire(t *testing.T) {
	tally := newTally("eu-west", time.Unix(0, 0))
	data, err := json.Marshal(tally.tick(time.Unix(1, 0)))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"t":"1970-01-01T00:00:01Z","region":"eu-west","requests":0,"failed":0,"safe":0,"safe_failed":0,` +
		`"p50_ms":0,"p99_ms":0,"max_ms":0,"kinds":{},"payments_from":{},"served_from":{},"errors":[]}`
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
}
