package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// child is the program that register runs. It shares the terminal, the input and the
// output; done is closed when it has ended.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; read it after done
}

// startChild starts args with extra environment variables. A program that is not there is
// a usage error, and nothing has happened.
func startChild(args, env []string, stdin io.Reader, stdout, stderr io.Writer) (*child, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, &cliError{exit: ExitUsage, detail: fmt.Sprintf("cannot run %q: %s", args[0], cause(err)), remedy: "give the command after -- as a shell would run it", err: err}
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	// When stdin and stdout are no files, copying must not outlive the program.
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, &cliError{exit: ExitUsage, detail: fmt.Sprintf("cannot run %q: %s", args[0], cause(err)), err: err}
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() { // ends when the program has ended; stop waits for it
		defer close(c.done)
		c.err = cmd.Wait()
	}()
	return c, nil
}

// cause takes the path and the name of the call away from an error about a program.
func cause(err error) error {
	var (
		execErr *exec.Error
		pathErr *os.PathError
	)
	switch {
	case errors.As(err, &execErr):
		return execErr.Err
	case errors.As(err, &pathErr):
		return pathErr.Err
	}
	return err
}

// signal sends sig; a program that has ended already is no error.
func (c *child) signal(sig os.Signal) { _ = c.cmd.Process.Signal(sig) }

// stop sends first (nil = nothing, it knows) and waits. Further signals are passed on at
// once; after patience the program is killed.
func (c *child) stop(first os.Signal, signals <-chan os.Signal, patience time.Duration) {
	if first != nil {
		c.signal(first)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-c.done:
			return
		case sig := <-signals:
			c.signal(sig)
		case <-timer.C:
			_ = c.cmd.Process.Kill()
			<-c.done
			return
		}
	}
}

// result returns how the program ended as an error with its exit code, nil for 0. A
// program that a signal ended counts as 128 + the signal, as in a shell.
func (c *child) result() error {
	<-c.done
	var exit *exec.ExitError
	switch {
	case c.err == nil, errors.Is(c.err, exec.ErrWaitDelay):
		return nil
	case !errors.As(c.err, &exit):
		return c.err
	}
	code := exit.ExitCode()
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return &cliError{exit: code, detail: exit.Error(), silent: true}
}

// osSignals returns the signals that register handles itself, and what ends that.
func osSignals() (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	return ch, func() { signal.Stop(ch) }
}
