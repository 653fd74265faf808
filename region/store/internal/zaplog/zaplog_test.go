package zaplog

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

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
