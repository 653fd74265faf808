package etcdchild

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store/etcdnode"
)

// P8, P10: a child that worked is started again at once, one that does not start ever more
// rarely, and one that a full disk ended once there is the whole reserve.
func TestWhenTheNextChildStarts(t *testing.T) {
	crash, corrupt := errors.New("killed"), fmt.Errorf("x: %w", etcdnode.ErrCorrupt)
	full := fmt.Errorf("%w: write: no space left on device", etcdnode.ErrFatal)
	for _, c := range []struct {
		e        ending
		failures int
		want     time.Duration
	}{
		{ending{crash, time.Hour}, 0, 0},
		{ending{crash, time.Second}, 1, 200 * time.Millisecond},
		{ending{crash, 0}, 2, 400 * time.Millisecond},
		{ending{crash, 0}, 6, 6400 * time.Millisecond},
		{ending{crash, 0}, 7, 10 * time.Second},
		{ending{crash, 0}, 1 << 40, 10 * time.Second},
		{ending{corrupt, 0}, 1, 10 * time.Second},
		{ending{full, time.Hour}, 0, 0},
	} {
		if got := pauseAfter(c.e, c.failures); got != c.want {
			t.Errorf("%v, %d: %s, want %s", c.e, c.failures, got, c.want)
		}
	}
	for _, c := range []struct {
		err   error
		free  uint64
		known bool
		want  bool
	}{
		{full, 127, true, false},
		{full, 128, true, true},
		{full, 0, false, true},
		{fmt.Errorf("%w: 3 MB free", etcdnode.ErrNoSpace), 0, true, false},
		{crash, 0, true, true},
	} {
		if got := roomFor(ending{err: c.err}, c.free, 128, c.known); got != c.want {
			t.Errorf("%v with %d free: %t", c.err, c.free, got)
		}
	}
}

// The child's log keeps its level and attributes; what the runtime says of an end is found.
func TestLogOfTheChild(t *testing.T) {
	var child, node strings.Builder
	l := slog.New(slog.NewJSONHandler(&child, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l.Debug("dropped here")
	l.Warn("slow disk", "took", "2s", "n", 12, "part", "etcd")
	child.WriteString("goroutine 1 comes before\npanic: boom\n\n")
	child.WriteString(`{"level":"odd","msg":"x"}` + "\n")
	child.WriteString(strings.Repeat("x", 3*maxLine) + "\n")
	l.Error("last")
	words := &lastWords{}
	relog(strings.NewReader(child.String()), slog.New(slog.NewTextHandler(&node, nil)).With("node", "n1"), words)
	got := node.String()
	for _, want := range []string{`level=WARN msg="slow disk" node=n1 n=12 part=etcd took=2s`, "level=ERROR msg=last node=n1"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "dropped") {
		t.Error("an entry below the node's level")
	}
	line, all := words.cause()
	if line != "panic: boom" || !strings.HasPrefix(all, "goroutine 1") || len(all) > maxLastWords {
		t.Errorf("%q, %d bytes", line, len(all))
	}
}

// P8: whatever a child writes, it is read to its end.
func FuzzRelog(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-22T03:00:00Z","level":"INFO","msg":"m","a":{"b":[1]}}` + "\n"))
	f.Add([]byte("{\"msg\":1}\n{\"msg\":\"m\",\"level\":\"ERROR+3\"}\n\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		words := &lastWords{}
		relog(strings.NewReader(string(b)), slog.New(slog.NewTextHandler(new(strings.Builder), nil)), words)
		if _, all := words.cause(); len(all) > maxLastWords {
			t.Fatalf("%d bytes are kept", len(all))
		}
	})
}
