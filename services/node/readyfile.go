package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/readyfile"
)

// readyFileAgain is how long after a failure the ready file is tried again.
const readyFileAgain = time.Second

// writeReadyFile writes the ready file, and tries until it succeeds or one of the contexts has
// ended: a node that serves does not end because of it.
func writeReadyFile(doors, core context.Context, path string, ready api.ReadyFile, log *slog.Logger) {
	for told := false; ; told = true {
		err := readyfile.Write(path, ready)
		if err == nil {
			return
		}
		if !told {
			log.Warn("the ready file cannot be written, and is tried again", "error", err)
		}
		again := time.NewTimer(readyFileAgain)
		select {
		case <-again.C:
		case <-doors.Done():
		case <-core.Done():
		}
		again.Stop()
		if doors.Err() != nil || core.Err() != nil {
			return
		}
	}
}
