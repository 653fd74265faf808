package etcdnode_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What must happen to a whole process (stopped, killed, refused the disk) happens to a
// child: this test binary, run again with childMode set. A child says what its parent must
// know on its standard output, a line each, and ends when its standard input does, so that
// none outlives a test that was killed.
const (
	childMode = "NEARSIDE_TEST_CHILD"
	childDir  = "NEARSIDE_TEST_DIR"
)

// children holds what a child can be asked to do; each runs until it is killed.
var children = map[string]func(dir string) error{
	"node":   childNode,
	"writer": childWriter,
	"starve": childStarve,
}

func TestMain(m *testing.M) {
	mode := os.Getenv(childMode)
	if mode == "" {
		os.Exit(m.Run())
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	if err := children[mode](os.Getenv(childDir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is a running child process.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // its standard output; closed at its end
}

func startChild(t *testing.T, mode, dir string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childMode+"="+mode, childDir+"="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: cmd, lines: make(chan string, 100_000)}
	go func() {
		defer close(c.lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			c.lines <- sc.Text()
		}
	}()
	t.Cleanup(func() { c.kill(); _ = in.Close() })
	return c
}

// line waits for the child's next line and returns what follows want in it.
func (c *child) line(want string) string {
	c.t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	select {
	case l, ok := <-c.lines:
		rest, found := strings.CutPrefix(l, want)
		if !ok || !found {
			c.t.Fatalf("the child said %q, want %q", l, want)
		}
		return strings.TrimSpace(rest)
	case <-limit.C:
		c.t.Fatalf("the child did not say %q", want)
		return ""
	}
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatalf("signal %v: %v", s, err)
	}
}

// kill ends the child as kill -9 does, waits for it, and returns the lines it said before.
func (c *child) kill() []string {
	_ = c.cmd.Process.Signal(syscall.SIGCONT)
	_ = c.cmd.Process.Kill()
	var rest []string
	for l := range c.lines {
		rest = append(rest, l)
	}
	_ = c.cmd.Wait()
	return rest
}
