package etcdchild

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nearside/nearside/region/store/etcdnode"
)

// child is one process. Its methods belong to the goroutine that started it.
type child struct {
	cmd     *exec.Cmd
	begun   time.Time
	stdin   *os.File
	words   *lastWords
	reports chan report   // everything it says comes before exited
	exited  chan struct{} // closed once it is reaped
}

// readPatience is how long the pipes of a child that has ended are read: all that it said is in
// them, unless something that it started has them too.
const readPatience = time.Second

func (s *Supervisor) spawn() (*child, error) {
	member := s.cfg.Config
	member.LockPatience, member.QuietDisk = lockPatience, true
	order, err := json.Marshal(orders{Member: member, LogLevel: logLevel(s.log)})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.command[0], s.command[1:]...)
	if s.cfg.Command == nil {
		cmd.Args[0] = os.Args[0] // for ps
	}
	cmd.SysProcAttr = attributes()
	in, stdin, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start etcd's process: %w", err)
	}
	defer in.Close()
	stdout, out, err := os.Pipe()
	if err != nil {
		_ = stdin.Close()
		return nil, fmt.Errorf("start etcd's process: %w", err)
	}
	defer out.Close()
	stderr, errs, err := os.Pipe()
	if err != nil {
		_, _ = stdin.Close(), stdout.Close()
		return nil, fmt.Errorf("start etcd's process: %w", err)
	}
	defer errs.Close()
	// Files rather than readers and writers: then Wait waits for the process alone.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errs
	c := &child{cmd: cmd, begun: time.Now(), stdin: stdin, words: &lastWords{}, reports: make(chan report), exited: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		_, _, _ = stdin.Close(), stdout.Close(), stderr.Close()
		return nil, fmt.Errorf("start etcd's process: %w", err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { c.listen(stdout) })
	readers.Go(func() { relog(stderr, s.log, c.words) })
	go func() { // reaps, so that no zombie stays
		_ = cmd.Wait()
		late := time.Now().Add(readPatience)
		_, _ = stdout.SetReadDeadline(late), stderr.SetReadDeadline(late)
		readers.Wait()
		_, _, _ = stdin.Close(), stdout.Close(), stderr.Close()
		close(c.exited)
	}()
	// A pipe takes this much at once; a child that ended already is told of by exited.
	_, _ = stdin.Write(append(order, '\n'))
	return c, nil
}

// listen passes the child's reports on, to whoever waits for exited. What is none is kept for the
// child's end.
func (c *child) listen(r io.Reader) {
	lines(r, func(line []byte) {
		var m report
		if json.Unmarshal(line, &m) != nil {
			c.words.add(line)
			return
		}
		c.reports <- m
	})
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) kill() { _ = c.cmd.Process.Kill() }

// stop asks for an end in good order.
func (c *child) stop() {
	_ = c.stdin.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(c.stdin, stopWord+"\n")
}

// cause says why the child ended, in the words of whoever knows best; after exited.
func (c *child) cause(last *failure, killed string) error {
	switch line, _ := c.words.cause(); {
	case killed != "":
		return fmt.Errorf("%w: process %d was ended: %s", etcdnode.ErrFatal, c.pid(), killed)
	case last != nil:
		return last
	case line != "":
		return fmt.Errorf("%w: process %d: %s", etcdnode.ErrFatal, c.pid(), line)
	}
	how := c.cmd.ProcessState.String()
	if ws, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		how = "killed by " + strings.ToUpper(ws.Signal().String())
		if ws.Signal() == syscall.SIGKILL {
			how = "killed from outside (SIGKILL): by somebody, or by the kernel for want of memory"
		}
	}
	return fmt.Errorf("%w: process %d: %s", etcdnode.ErrFatal, c.pid(), how)
}
