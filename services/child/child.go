// Package child runs child processes that never outlive their parent: each is in a process
// group of its own, out of reach of the terminal's Ctrl-C, and dies with the parent even
// when that is killed (Linux). The demo and the end-to-end tests are built on it.
package child

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is one child. All methods are safe for concurrent use.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed once the process is gone
	err  error         // set before done is closed
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed once the process is gone and reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Name returns the name given to Spawn.
func (p *Process) Name() string { return p.name }

// Err returns how the process ended: nil for exit code 0. It blocks until Done.
func (p *Process) Err() error { <-p.done; return p.err }

func (p *Process) gone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Kill sends SIGKILL to the process and whatever it started, and waits for its end.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop asks the process to end and kills it when it has not within patience.
func (p *Process) Stop(patience time.Duration) {
	p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
	}
}

// Signal reaches the whole group, as long as its leader has not been reaped: a group id
// of a reaped process could belong to a stranger.
func (p *Process) Signal(s syscall.Signal) {
	if !p.gone() {
		_ = syscall.Kill(-p.cmd.Process.Pid, s)
	}
}

// Nursery starts children from one locked thread that lives as long as the demo: the
// kernel ends a child with Pdeathsig when the thread that started it ends.
type Nursery struct {
	binary string
	start  chan func()
	end    chan struct{}
}

// NewNursery returns a nursery for one program; Close it at the end.
func NewNursery(binary string) *Nursery {
	n := &Nursery{binary: binary, start: make(chan func()), end: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		for {
			select {
			case f := <-n.start:
				f()
			case <-n.end:
				return
			}
		}
	}()
	return n
}

// Close ends the thread; every child must be gone by then.
func (n *Nursery) Close() { close(n.end) }

// Spawn starts the binary with args. out, when not nil, reads its standard output; its
// standard error goes to logPath, which keeps what earlier runs wrote.
func (n *Nursery) Spawn(name, logPath string, out func(io.Reader), args ...string) (*Process, error) {
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	cmd := exec.Command(n.binary, args...)
	cmd.Stderr = logFile
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	cmd.SysProcAttr = childAttributes()
	var pipe io.ReadCloser
	if out != nil {
		if pipe, err = cmd.StdoutPipe(); err != nil {
			return nil, err
		}
	} else {
		cmd.Stdout = logFile
	}
	started := make(chan error)
	n.start <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &Process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		if pipe != nil {
			out(pipe) // until the child closes it; Wait must not run before
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Tail returns the end of a log file, for the message about a child that died.
func Tail(path string, most int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil && size > most {
		_, err = f.Seek(-most, io.SeekEnd)
		if err != nil {
			return ""
		}
	} else if _, err := f.Seek(0, io.SeekStart); err != nil {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	return string(b)
}
