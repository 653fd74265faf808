//go:build unix

package node

import (
	"os"
	"syscall"
)

// freeBytes returns the room an ordinary user has on the file system of path; false when it
// cannot be told.
func freeBytes(path string) (uint64, bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, false
	}
	return uint64(st.Bavail) * uint64(st.Bsize), true
}

// restart replaces this process by a new one of the same program and arguments. It returns
// only if that fails.
func restart() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(exe, os.Args, os.Environ())
}
