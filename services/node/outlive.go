package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// ErrRestart is returned by Run when etcd ended and could run again: etcd cannot be started
// twice in one process, so the process has to start anew. The commands do so in place, with
// the same process id.
var ErrRestart = errors.New("the store can run again, in a new process")

const (
	// restartSpace is the free disk space at which a node whose etcd ended starts anew. It
	// is more than etcd needs for a start, so that it is not full again at once.
	restartSpace = 128 << 20
	// restartPause is the least time between etcd's end and a restart: what ended it for
	// another reason than space would end it again.
	restartPause = 10 * time.Second
	restartLook  = time.Second
)

// outlive keeps the node up after its etcd ended: everything is answered from memory, writes
// are refused, and /readyz says why. It returns ErrRestart once a restart can help, or nil
// when ctx ends.
func outlive(ctx context.Context, log *slog.Logger, cause error, free func() (uint64, bool)) error {
	log.Error("etcd ended: reads, watches and the federation go on from memory, writes are refused", "cause", cause)
	ended := time.Now()
	look := time.NewTicker(restartLook)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		space, known := free()
		if time.Since(ended) >= restartPause && (!known || space >= restartSpace) {
			log.Warn("starting anew, to bring the store back", "away_for", time.Since(ended).Round(time.Second).String())
			return fmt.Errorf("etcd ended (%w): %w", cause, ErrRestart)
		}
	}
}
