package zaplog

import (
	"log/slog"
	"sync"
	"time"
)

// Equal entries are counted instead of logged for a window, which is doubled for as long as they come:
// a store without a quorum says the same several times a second, for hours.
const (
	firstWindow = 30 * time.Second
	lastWindow  = 10 * time.Minute
	// maxOpen bounds how many entries are counted apart by their error; beyond that their message counts.
	maxOpen = 256
)

// repeats keeps a loop that fails from filling the log with one line.
type repeats struct {
	mu   sync.Mutex
	open map[string]*burst // by entry; each for one window
}

type burst struct {
	window time.Duration
	held   int // entries left out
	last   func(...slog.Attr)
}

// once writes an entry, or counts it when an equal one was written less than a window ago.
// The timers it sets end by themselves.
func (r *repeats) once(message, errText string, write func(...slog.Attr)) {
	key := message + "\x00" + errText
	r.mu.Lock()
	if len(r.open) >= maxOpen && r.open[key] == nil {
		key = message
	}
	b := r.open[key]
	if b != nil {
		b.held++
		b.last = write
		r.mu.Unlock()
		return
	}
	r.open[key] = &burst{window: firstWindow}
	r.mu.Unlock()
	write()
	time.AfterFunc(firstWindow, func() { r.close(key) })
}

// close ends a window: it tells what was left out, and goes on counting if that was something.
func (r *repeats) close(key string) {
	r.mu.Lock()
	b := r.open[key]
	if b.held == 0 {
		delete(r.open, key)
		r.mu.Unlock()
		return
	}
	next := min(2*b.window, lastWindow)
	r.open[key] = &burst{window: next}
	r.mu.Unlock()
	b.last(slog.Int("repeated", b.held))
	time.AfterFunc(next, func() { r.close(key) })
}
