package node

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stuckLog takes nothing until it is opened: a pipe that nobody reads.
type stuckLog struct {
	open chan struct{}
	mu   sync.Mutex
	took bytes.Buffer
}

func (l *stuckLog) Write(b []byte) (int, error) {
	<-l.open
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.took.Write(b)
}

// P10: whoever reads the log may stop reading. Nothing that logs waits for it, and when it reads again it is
// told how much it missed.
func TestNobodyWaitsForTheReaderOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stuckLog{open: make(chan struct{})}
		log, closeLog, err := newLogger(Config{LogLevel: "info"}, out)
		if err != nil {
			t.Fatal(err)
		}
		const lines = 2 * logQueue
		begun := time.Now()
		for i := range lines {
			log.Info("instance registered", "i", i)
		}
		if d := time.Since(begun); d != 0 {
			t.Errorf("%d lines took %s", lines, d)
		}
		close(out.open)
		synctest.Wait()
		closeLog()
		got := strings.Count(out.took.String(), "instance registered")
		if got < logQueue || got >= lines {
			t.Errorf("%d of %d lines were written", got, lines)
		}
		if want := fmt.Sprintf("lines=%d", lines-got); !strings.Contains(out.took.String(), want) {
			t.Errorf("nobody says that %s", want)
		}
		log.Info("after the end")
		closeLog()
	})
}

// P8: a log that hangs for ever holds the end of the node up for a second.
func TestStopDoesNotWaitForTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stuckLog{open: make(chan struct{})}
		defer close(out.open)
		s := newLogSink(out, slog.New(slog.NewTextHandler(io.Discard, nil)))
		_, _ = s.Write([]byte("a line\n"))
		begun := time.Now()
		s.Close()
		if d := time.Since(begun); d != logFlush {
			t.Errorf("the end waited for %s", d)
		}
	})
}
