//go:build !linux

package child

import "syscall"

// childAttributes puts a child into a group of its own, so that Ctrl-C reaches only the parent.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
