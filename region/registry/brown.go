//go:build brown

package registry

import (
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
)

// brown is the known bug that this build has; see sound.go.
var brown = os.Getenv("NEARSIDE_BROWN")

var commits atomic.Int64

// committed kills the process between a commit and its answer: the one that
// NEARSIDE_BROWN_AT counts, from 1. A power cut at that point is no bug, but nothing else
// hits it.
func committed() {
	if at, _ := strconv.ParseInt(os.Getenv("NEARSIDE_BROWN_AT"), 10, 64); brown == "die-after-commit" && commits.Add(1) == at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
