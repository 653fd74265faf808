package etcdchild

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// program is what the child runs: this very program, also when its file was replaced meanwhile by
// another version.
func program() (string, error) {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self, nil
	}
	return os.Executable()
}

// attributes put the child into a group of its own, and have the kernel kill it when the thread
// that started it ends.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// goFirst makes the child, rather than the node, the one to go when memory runs out: the node
// answers without it, and starts it again.
func goFirst() {
	const file, more, most = "/proc/self/oom_score_adj", 200, 1000
	b, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if now, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
		_ = os.WriteFile(file, []byte(strconv.Itoa(min(now+more, most))), 0)
	}
}
