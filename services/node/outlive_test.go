package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// P10: a node whose etcd ended stays, and starts anew only when that can help.
func TestNodeOutlivesItsEtcd(t *testing.T) {
	cause := errors.New("no space left on device")
	log := slog.New(slog.DiscardHandler)
	for name, c := range map[string]struct {
		freeAfter time.Duration // when space comes back
		known     bool
		took      time.Duration
	}{
		"space comes back later":     {time.Minute, true, time.Minute},
		"space was there all along":  {0, true, restartPause},
		"no way to tell the space":   {time.Hour, false, restartPause},
		"space comes back too early": {restartPause / 2, true, restartPause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				err := outlive(t.Context(), log, cause, func() (uint64, bool) {
					if time.Since(begun) < c.freeAfter {
						return restartSpace - 1, c.known
					}
					return restartSpace, c.known
				})
				if !errors.Is(err, ErrRestart) || !errors.Is(err, cause) {
					t.Fatalf("got %v", err)
				}
				if took := time.Since(begun); took != c.took {
					t.Errorf("after %s, want %s", took, c.took)
				}
			})
		})
	}
	t.Run("stopped meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := outlive(ctx, log, cause, func() (uint64, bool) { return 0, true }); err != nil {
				t.Errorf("a clean stop is no error: %v", err)
			}
		})
	})
}
