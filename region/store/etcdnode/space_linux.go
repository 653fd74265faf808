package etcdnode

import "syscall"

// freeBytes returns the room an ordinary user has on the file system of path; false when
// it cannot be told.
func freeBytes(path string) (uint64, bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, false
	}
	return st.Bavail * uint64(st.Bsize), true //nolint:gosec // Bsize is positive
}
