package scenarios

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// limitFDs sets the limit of file descriptors of a process that runs.
func limitFDs(t *testing.T, pid, limit int) {
	t.Helper()
	out, err := exec.Command("prlimit", "--pid", fmt.Sprint(pid), fmt.Sprintf("--nofile=%d:%d", limit, limit)).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("needs prlimit, of util-linux")
	}
	if err != nil {
		t.Fatalf("prlimit: %v: %s", err, strings.TrimSpace(string(out)))
	}
}

// fdsOf counts the open file descriptors of a process.
func fdsOf(pid int) (int, error) {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(all), err
}

// holdOpen opens connections that ask for nothing until the test ends.
func holdOpen(t *testing.T, addr string, count int) []net.Conn {
	t.Helper()
	var all []net.Conn
	for range count {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			break // the listener's backlog is full: enough for the purpose
		}
		t.Cleanup(func() { _ = conn.Close() })
		all = append(all, conn)
	}
	return all
}
