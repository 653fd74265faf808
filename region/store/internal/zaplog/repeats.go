package zaplog

import (
	"log/slog"
	"sync"
	"time"
)

// window is for how long equal entries are counted instead of logged.
const window = time.Second

// repeats keeps a loop that fails from filling the log with one line.
type repeats struct {
	mu   sync.Mutex
	open map[string]*burst // by entry; each for one window
}

type burst struct {
	held int // entries left out
	last func(...slog.Attr)
}

// once writes an entry, or counts it when an equal one was written less than a window ago.
// The timers it sets end by themselves.
func (r *repeats) once(key string, write func(...slog.Attr)) {
	r.mu.Lock()
	b := r.open[key]
	if b != nil {
		b.held++
		b.last = write
		r.mu.Unlock()
		return
	}
	r.open[key] = &burst{}
	r.mu.Unlock()
	write()
	time.AfterFunc(window, func() { r.close(key) })
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
	r.open[key] = &burst{}
	r.mu.Unlock()
	b.last(slog.Int("repeated", b.held))
	time.AfterFunc(window, func() { r.close(key) })
}
