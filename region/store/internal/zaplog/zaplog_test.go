package zaplog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

func TestEntriesKeepTheirMeaning(t *testing.T) {
	var buf bytes.Buffer
	log := slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelInfo}))
	demote := func(_, errText string) bool { return strings.Contains(errText, "closed") }
	z := New(log, demote).With(zap.String("member", "m1"))

	z.Info("an info entry becomes debug and is not shown here")
	z.Warn("slow", zap.Int("took", 7))
	z.Error("listener", zap.Error(errors.New("use of closed connection")))
	z.Error("disk", zap.Error(errors.New("no space")))

	got := buf.String()
	for _, want := range []string{`level=WARN msg=slow member=m1 took=7`, `level=ERROR msg=disk member=m1 error="no space"`} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %q in:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n"); n != 2 {
		t.Errorf("got %d lines, want 2:\n%s", n, got)
	}
}

func TestNilLoggerDiscards(t *testing.T) {
	New(nil, nil).Error("nobody reads this", zap.Error(errors.New("x")))
}

// A loop of equal failures is one line at once and one with a count each second; others are
// logged as ever.
func TestEqualEntriesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf lockedBuffer
		z := New(slog.New(slog.NewTextHandler(&buf, nil)), nil)
		lines := func() string {
			buf.mu.Lock()
			defer buf.mu.Unlock()
			defer buf.Reset()
			var out []string
			for l := range strings.Lines(buf.String()) {
				_, l, _ = strings.Cut(strings.TrimSpace(l), "level=")
				out = append(out, l)
			}
			return strings.Join(out, "; ")
		}
		fail := func(text string) { z.Named("x").With(zap.Int("n", 1)).Warn("publish", zap.Error(errors.New(text))) }
		for range 861 {
			fail("busy")
		}
		fail("gone")
		if got, want := lines(), "WARN msg=publish n=1 error=busy; WARN msg=publish n=1 error=gone"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		time.Sleep(firstWindow)
		synctest.Wait()
		fail("busy")
		if got, want := lines(), "WARN msg=publish n=1 error=busy repeated=860"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		time.Sleep(8 * firstWindow)
		synctest.Wait()
		fail("busy")
		if got, want := lines(), "WARN msg=publish n=1 error=busy repeated=1; WARN msg=publish n=1 error=busy"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		time.Sleep(firstWindow)
	})
}

// P8: what a store says several times a second of a state that lasts is told once, and then ever
// more rarely: an hour without a quorum is some lines. However many things are said, what is
// remembered of them is bounded.
func TestWhatLastsIsToldRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf lockedBuffer
		z := New(slog.New(slog.NewTextHandler(&buf, nil)), nil)
		const every = 200 * time.Millisecond
		for range time.Hour / every {
			z.Warn("waiting for ReadIndex response took too long, retrying")
			time.Sleep(every)
		}
		time.Sleep(3 * lastWindow)
		synctest.Wait()
		buf.mu.Lock()
		if n := strings.Count(buf.String(), "\n"); n < 5 || n > 12 {
			t.Errorf("an hour of it: %d lines:\n%s", n, buf.String())
		}
		buf.Reset()
		buf.mu.Unlock()

		core := z.Core().(*core)
		for i := range 10 * maxOpen {
			z.Error("dial", zap.Error(fmt.Errorf("from port %d", i)))
		}
		core.repeats.mu.Lock()
		if n := len(core.repeats.open); n > maxOpen+1 {
			t.Errorf("%d entries are remembered, %d are the most", n, maxOpen)
		}
		core.repeats.mu.Unlock()
		time.Sleep(10 * lastWindow)
		synctest.Wait()
		if n := len(core.repeats.open); n != 0 {
			t.Errorf("%d entries are still remembered", n)
		}
	})
}

// P8: whoever closes a store hears how often what was left out had come, and nothing after that.
func TestSyncTellsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf lockedBuffer
		z := New(slog.New(slog.NewTextHandler(&buf, nil)), nil)
		for range 3 {
			z.Warn("disk is slow")
		}
		z.Warn("once")
		_ = z.Sync()
		lines := func() string {
			buf.mu.Lock()
			defer buf.mu.Unlock()
			return buf.String()
		}
		told := lines()
		if strings.Count(told, "\n") != 3 || !strings.Contains(told, "repeated=2") {
			t.Errorf("after the close:\n%s", told)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if later := lines(); later != told {
			t.Errorf("later:\n%s", later)
		}
	})
}

// lockedBuffer is a buffer that timers write to.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}
