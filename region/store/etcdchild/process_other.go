//go:build !linux

package etcdchild

import (
	"os"
	"syscall"
)

func program() (string, error) { return os.Executable() }

// attributes put the child into a group of its own.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func goFirst() {}
