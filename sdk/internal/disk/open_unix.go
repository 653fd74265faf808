//go:build !windows

package disk

import (
	"os"
	"syscall"
)

// open opens a file for reading. What is in its place may be a pipe, which would otherwise
// wait for a writer for ever.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}
