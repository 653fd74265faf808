package compose

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// gate is set by `make e2e-compose`, which also builds the image: a plain `go test`
	// must not start nine containers.
	gate    = "NEARSIDE_COMPOSE"
	project = "nearside-e2e"

	startPatience  = 2 * time.Minute
	changePatience = time.Minute
	// quiet is how many seconds in a row must look right before a state is believed, and
	// how long the survivors are watched without the dead region.
	quiet   = 5
	survive = 20
)

var regions = []string{"us-east", "eu-west", "ap-south"}

// P3: killing every container of a region under load fails no call that is safe to repeat
// in the other regions, and the region's traffic comes home when it is back.
func TestARegionOfTheComposeFileDies(t *testing.T) {
	if os.Getenv(gate) == "" {
		t.Skip("starts nine containers, so it runs only by `make e2e-compose`")
	}
	ctx := t.Context()
	file, err := filepath.Abs("../../deploy/compose/three-regions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Port 0: any free one, so that a stack of the user's own is not in the way.
	s, err := NewStack(ctx, project, file, "NEARSIDE_US_EAST_PORT=0", "NEARSIDE_EU_WEST_PORT=0", "NEARSIDE_AP_SOUTH_PORT=0")
	if errors.Is(err, ErrNoEngine) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tearDown(t, s) })
	if err := s.Down(ctx); err != nil { // what an interrupted run left
		t.Fatal(err)
	}

	begin := time.Now()
	if err := s.Up(ctx); err != nil {
		t.Fatal(err)
	}
	waitHealthy(t, s)
	t.Logf("nine containers healthy after %s", time.Since(begin).Round(time.Second))

	steady := map[string][]Tick{}
	for _, r := range regions {
		steady[r] = waitTicks(t, s, r, time.Time{}, "traffic without failures", func(ts []Tick) bool {
			return lastAre(ts, quiet, func(t Tick) bool { return t.Requests > 0 && t.Failed == 0 })
		})
	}
	victim := server(steady["ap-south"])
	if victim == "" {
		t.Fatalf("ap-south has no payments of its own, yet nobody serves them; its last seconds: %+v", last(steady["ap-south"], quiet))
	}
	t.Logf("payments of ap-south come from %s: killing all of %s", victim, victim)

	killed := time.Now()
	if err := s.KillRegion(ctx, victim); err != nil {
		t.Fatal(err)
	}
	survivors := slices.DeleteFunc(slices.Clone(regions), func(r string) bool { return r == victim })
	for _, r := range survivors {
		waitTicks(t, s, r, killed, "seconds without the dead region", func(ts []Tick) bool { return len(ts) >= survive })
	}
	waitTicks(t, s, "ap-south", killed, "payments from the region that is left", func(ts []Tick) bool {
		return lastAre(ts, quiet, func(t Tick) bool { return len(t.PaymentsFrom) > 0 && t.PaymentsFrom[victim] == 0 })
	})

	restored := time.Now()
	if err := s.Up(ctx); err != nil {
		t.Fatal(err)
	}
	waitHealthy(t, s)
	home := waitTicks(t, s, victim, restored, "payments served at home again", func(ts []Tick) bool {
		return lastAre(ts, quiet, func(t Tick) bool {
			return t.PaymentsFrom[victim] > 0 && len(t.PaymentsFrom) == 1 && t.Failed == 0
		})
	})
	t.Logf("%s was restored and served its own payments %s after the restart began",
		victim, home[len(home)-quiet].T.Sub(restored).Round(time.Second))

	for _, r := range survivors {
		ticks, err := s.Ticks(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		var sum Tick
		var errs []string
		// From the steady seconds on: before, the region was still coming up.
		for _, tick := range since(ticks, last(steady[r], quiet)[0].T) {
			sum.Requests, sum.Failed = sum.Requests+tick.Requests, sum.Failed+tick.Failed
			sum.Safe, sum.SafeFailed = sum.Safe+tick.Safe, sum.SafeFailed+tick.SafeFailed
			sum.P99, sum.Max = max(sum.P99, tick.P99), max(sum.Max, tick.Max)
			errs = append(errs, tick.Errors...)
		}
		t.Logf("%s: %d requests, %d failed; %d safe to repeat, %d of them failed; worst second p99 %.0f ms, longest %.0f ms",
			r, sum.Requests, sum.Failed, sum.Safe, sum.SafeFailed, sum.P99, sum.Max)
		if sum.Safe == 0 {
			t.Errorf("%s made no call that is safe to repeat: this run proves nothing", r)
		}
		if sum.SafeFailed > 0 {
			t.Errorf("P3: %d calls from %s failed that were safe to repeat, while %s was dead or returning; first errors:\n%s",
				sum.SafeFailed, r, victim, strings.Join(errs[:min(len(errs), 5)], "\n"))
		}
	}
}

// P3: the judge of the test above must see a failed call when there is one.
func TestTicksAreRead(t *testing.T) {
	report := `time=… level=INFO msg="not a tick"
{"t":"2026-11-22T10:00:00Z","region":"us-east","requests":40,"failed":1,"safe":30,"safe_failed":1,"p99_ms":12.5,"payments_from":{"eu-west":12},"errors":["boom"]}
{"t":"2026-11-22T10:00:01Z","region":"us-east","requests":41,"failed":0,"safe":30,"safe_failed":0}
{"final":true,"region":"us-east","requests":81}
{"t":"2026-11-22T10:00:02Z","region":"us-`
	ticks, err := ParseTicks([]byte(report))
	if err != nil || len(ticks) != 2 {
		t.Fatalf("read %d ticks, %v; want 2", len(ticks), err)
	}
	if ticks[0].SafeFailed != 1 || server(ticks) != "eu-west" || ticks[0].P99 != 12.5 {
		t.Errorf("the first second was read as %+v", ticks[0])
	}
	if lastAre(ticks, 2, func(t Tick) bool { return t.Failed == 0 }) || !lastAre(ticks, 1, func(t Tick) bool { return t.Failed == 0 }) {
		t.Error("a failure two seconds ago is not told from none")
	}
	if got := since(ticks, ticks[1].T); len(got) != 1 {
		t.Errorf("%d ticks since the second one, want 1", len(got))
	}
	if _, err := ParseTicks([]byte(`{"t":12}`)); err == nil {
		t.Error("a line that is no report was taken for one")
	}
}

// waitHealthy waits until every container of the stack runs, and is healthy if it has a
// check.
func waitHealthy(t *testing.T, s *Stack) {
	t.Helper()
	var cs []Container
	eventually(t, startPatience, func() bool {
		var err error
		if cs, err = s.Containers(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(cs) == 3*len(regions) && !slices.ContainsFunc(cs, func(c Container) bool {
			return !c.Running || c.Health != "" && c.Health != "healthy"
		})
	}, func() { t.Fatalf("after %s not every container is healthy: %+v", startPatience, cs) })
}

// waitTicks waits until what a region's load generator reported since a time fulfils cond,
// and returns that.
func waitTicks(t *testing.T, s *Stack, region string, from time.Time, what string, cond func([]Tick) bool) []Tick {
	t.Helper()
	var ticks []Tick
	eventually(t, changePatience, func() bool {
		all, err := s.Ticks(t.Context(), region)
		if err != nil {
			t.Fatal(err)
		}
		ticks = since(all, from)
		return cond(ticks)
	}, func() {
		t.Fatalf("%s: after %s no %s; the last seconds: %+v", region, changePatience, what, last(ticks, quiet))
	})
	return ticks
}

// eventually asks cond twice a second until it holds, and calls late after patience.
func eventually(t *testing.T, patience time.Duration, cond func() bool, late func()) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	for !cond() {
		select {
		case <-again.C:
		case <-deadline.C:
			late()
			return
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func tearDown(t *testing.T, s *Stack) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if t.Failed() {
		keepLogs(ctx, t, s)
	}
	if err := s.Down(ctx); err != nil {
		t.Errorf("the stack is still there: %v", err)
	}
}

// keepLogs saves what every container said below e2e/.artifacts.
func keepLogs(ctx context.Context, t *testing.T, s *Stack) {
	dir := filepath.Join("..", ".artifacts", "compose")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Log(err)
		return
	}
	cs, err := s.Containers(ctx)
	if err != nil {
		t.Log(err)
	}
	for _, c := range cs {
		out, err := s.Logs(ctx, c)
		if err != nil {
			t.Log(err)
		}
		if err := os.WriteFile(filepath.Join(dir, c.Service+".log"), out, 0o644); err != nil {
			t.Log(err)
		}
	}
	t.Logf("logs of all containers are in e2e/.artifacts/compose")
}

func since(ticks []Tick, from time.Time) []Tick {
	at := slices.IndexFunc(ticks, func(t Tick) bool { return !t.T.Before(from) })
	if at < 0 {
		return nil
	}
	return ticks[at:]
}

func last(ticks []Tick, n int) []Tick { return ticks[max(0, len(ticks)-n):] }

// lastAre reports whether there are n ticks or more and the last n fulfil cond.
func lastAre(ticks []Tick, n int, cond func(Tick) bool) bool {
	return len(ticks) >= n && !slices.ContainsFunc(last(ticks, n), func(t Tick) bool { return !cond(t) })
}

// server returns the region that served most payments in the last seconds, or "".
func server(ticks []Tick) string {
	sum := map[string]int{}
	for _, t := range last(ticks, quiet) {
		for r, n := range t.PaymentsFrom {
			sum[r] += n
		}
	}
	best := ""
	for _, r := range slices.Sorted(maps.Keys(sum)) {
		if best == "" || sum[r] > sum[best] {
			best = r
		}
	}
	return best
}
