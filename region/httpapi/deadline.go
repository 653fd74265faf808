package httpapi

import (
	"context"
	"sync"
	"time"
)

// deadline is a context that ends at a time, like that of context.WithTimeout, and costs a timer
// only when somebody waits for it: most calls are answered from memory, and nobody does. end
// must be called when the call is over.
type deadline struct {
	context.Context
	at time.Time

	mu     sync.Mutex
	armed  context.Context // nil until somebody waits
	cancel context.CancelFunc
	ended  bool
}

func withDeadline(parent context.Context, d time.Duration) *deadline {
	c := &deadline{Context: parent, at: time.Now().Add(d)}
	if at, ok := parent.Deadline(); ok && at.Before(c.at) {
		c.at = at
	}
	return c
}

// Deadline returns when the context ends at the latest.
func (c *deadline) Deadline() (time.Time, bool) { return c.at, true }

func (c *deadline) arm() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.armed == nil {
		c.armed, c.cancel = context.WithDeadline(c.Context, c.at)
		if c.ended {
			c.cancel()
		}
	}
	return c.armed
}

// Done starts the timer.
func (c *deadline) Done() <-chan struct{} { return c.arm().Done() }

// Err says why the context ended.
func (c *deadline) Err() error {
	c.mu.Lock()
	armed, ended := c.armed, c.ended
	c.mu.Unlock()
	switch {
	case armed != nil:
		return armed.Err()
	case c.Context.Err() != nil:
		return c.Context.Err()
	case ended:
		return context.Canceled
	case !time.Now().Before(c.at):
		return context.DeadlineExceeded
	}
	return nil
}

// Value asks the armed context once there is one, so that contexts made of this one find their
// parent without a goroutine that waits for it.
func (c *deadline) Value(key any) any {
	c.mu.Lock()
	armed := c.armed
	c.mu.Unlock()
	if armed != nil {
		return armed.Value(key)
	}
	return c.Context.Value(key)
}

// end ends the context.
func (c *deadline) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}
