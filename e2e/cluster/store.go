package cluster

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// StorePID returns the process id of the child that keeps the node's records; 0 while there is
// none.
func (n *Node) StorePID() int {
	n.c.t.Helper()
	for _, pid := range Children(n.PID()) {
		if b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")); err == nil && strings.Contains(string(b), "etcd-member") {
			return pid
		}
	}
	return 0
}

// Children returns the processes whose parent pid is, zombies included.
func Children(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var out []int
	for _, s := range stats {
		b, err := os.ReadFile(s)
		if err != nil {
			continue
		}
		// The name may hold anything; what follows its closing bracket is state and parent.
		rest := string(b)[strings.LastIndex(string(b), ")")+1:]
		f := strings.Fields(rest)
		if len(f) < 2 || f[1] != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(s))); err == nil {
			out = append(out, child)
		}
	}
	return out
}

// StateOf returns a process's state letter ("R", "S", "Z", …), "" when there is no such process.
func StateOf(pid int) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	f := strings.Fields(string(b)[strings.LastIndex(string(b), ")")+1:])
	return f[0]
}
