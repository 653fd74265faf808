//go:build unix

package etcdnode

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// errHeld: another open file holds the lock.
var errHeld = errors.New("held")

// flock takes the lock for as long as f is open. The kernel drops it when the process
// ends, however it ends, and a child does not inherit it (Go opens files close-on-exec).
func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return errHeld
		default:
			return err
		}
	}
}

func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Getuid()
}
