package node

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logQueue is how many log lines wait for a slow reader of the log; those beyond are lost, and counted.
	logQueue = 4096
	// logFlush is how long a stopping node waits for the last lines to be taken.
	logFlush = time.Second
)

// logSink is a log that never makes its writers wait. A log is read by somebody else (a pipe of a supervisor, a
// file on a disk that is full or frozen), and who waits for that reader holds up what it logs: registrations,
// the store's loop, the stop. Safe for concurrent use; one goroutine of its own writes to w.
type logSink struct {
	w     io.Writer
	told  *slog.Logger // writes to w itself: what was lost
	lines chan []byte
	lost  atomic.Int64

	mu     sync.RWMutex // held for reading while a line is queued
	closed bool
	ended  chan struct{}
}

// newLogSink starts a sink to w; notice gets the logger of w that tells of lost lines. The caller closes it.
func newLogSink(w io.Writer, notice *slog.Logger) *logSink {
	s := &logSink{w: w, told: notice, lines: make(chan []byte, logQueue), ended: make(chan struct{})}
	go s.run()
	return s
}

// Write queues one line and never waits; it never fails.
func (s *logSink) Write(line []byte) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return len(line), nil
	}
	select {
	case s.lines <- append([]byte(nil), line...): // slog uses its buffer again
	default:
		s.lost.Add(1)
	}
	return len(line), nil
}

func (s *logSink) run() {
	defer close(s.ended)
	for line := range s.lines {
		_, _ = s.w.Write(line)
		if n := s.lost.Swap(0); n > 0 {
			s.told.Warn("log lines are missing here: whoever takes the log was too slow", "lines", n)
		}
	}
}

// Close waits until the lines so far are written, logFlush at most; the goroutine of a writer that hangs is left to it.
func (s *logSink) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.lines)
	}
	s.mu.Unlock()
	t := time.NewTimer(logFlush)
	defer t.Stop()
	select {
	case <-s.ended:
	case <-t.C:
	}
}
