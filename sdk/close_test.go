package nearside

import (
	"errors"
	"testing"
	"testing/synctest"
)

// A client that was closed says so, also where it could say that no registry answered.
func TestClosedIsSaidFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.killRegistries()
		c := w.client("us", nil)
		if _, err := c.Pick(t.Context(), "orders"); !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Pick(t.Context(), "orders"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// A deregistration is the last thing that the loop does, so its answer and the loop's end may be
// seen at once: one that succeeded is not told as a closed client.
func TestTheLastAnswerIsHeard(t *testing.T) {
	for range 100 { // a select takes either
		r := &Registered{stopped: make(chan struct{})}
		close(r.stopped)
		done := make(chan error, 1)
		done <- nil
		if err := r.answer(t.Context(), done); err != nil {
			t.Fatal(err)
		}
	}
}
