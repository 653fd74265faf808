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
	timer  *time.Timer // ends the window
}

// once writes an entry, or counts it when an equal one was written less than a window ago.
// The timers it sets end by themselves, or with flush.
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
	r.beginLocked(key, firstWindow)
	r.mu.Unlock()
	write()
}

func (r *repeats) beginLocked(key string, window time.Duration) {
	b := &burst{window: window}
	b.timer = time.AfterFunc(window, func() { r.close(key, b) })
	r.open[key] = b
}

// close ends a window: it tells what was left out, and goes on counting if that was something. It
// writes under the lock, so that nothing comes after flush.
func (r *repeats) close(key string, b *burst) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.open[key] != b: // flushed meanwhile
	case b.held == 0:
		delete(r.open, key)
	default:
		r.beginLocked(key, min(2*b.window, lastWindow))
		b.last(slog.Int("repeated", b.held))
	}
}

// flush ends all windows: whoever closes a store wants to hear the rest now, and nothing of it later.
func (r *repeats) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.open {
		b.timer.Stop()
		if b.held > 0 {
			b.last(slog.Int("repeated", b.held))
		}
	}
	clear(r.open)
}
