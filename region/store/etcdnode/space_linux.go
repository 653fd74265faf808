package etcdnode

import (
	"fmt"
	"os"
	"syscall"
)

// freeBytes returns the room an ordinary user has on the file system of path; false when
// it cannot be told.
func freeBytes(path string) (uint64, bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, false
	}
	return st.Bavail * uint64(st.Bsize), true //nolint:gosec // Bsize is positive
}

// keepSize makes fallocate leave the file as long as it is (FALLOC_FL_KEEP_SIZE).
const keepSize = 1

// allocateAhead gives the file at path blocks for its whole length and ahead bytes more,
// unless it has most of them.
func allocateAhead(path string, ahead int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Blocks*512 >= info.Size()+ahead/2 {
		return nil
	}
	if err := syscall.Fallocate(int(f.Fd()), keepSize, 0, info.Size()+ahead); err != nil {
		return fmt.Errorf("allocate %s: %w", path, err)
	}
	return nil
}
