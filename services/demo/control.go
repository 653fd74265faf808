package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// controlPath is the socket by which "nearside demo kill" reaches the running demo of
// this user.
func controlPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("nearside-demo-%d.sock", os.Getuid()))
}

// control answers "kill REGION" and "restore REGION", one per connection, until ctx ends.
// A second demo of the same user runs without one: the first keeps the socket.
func control(ctx context.Context, w *world) error {
	path := controlPath()
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("another demo answers at %s", path)
	}
	_ = os.Remove(path) // left by a demo that was killed
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		answer(ctx, c, w)
	}
}

func answer(ctx context.Context, c net.Conn, w *world) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(startPatience + 5*time.Second))
	s := bufio.NewScanner(c)
	if !s.Scan() {
		return
	}
	verb, region, _ := strings.Cut(s.Text(), " ")
	err := known(region)
	if err == nil {
		switch action(verb) {
		case kill:
			err = w.kill(api.Region(region))
		case restore:
			err = w.restore(ctx, api.Region(region))
		default:
			err = fmt.Errorf("unknown command %s", api.Quote(verb))
		}
	}
	if err != nil {
		fmt.Fprintf(c, "error %s\n", err)
		return
	}
	fmt.Fprintln(c, "ok")
}

// errNoDemo is exit code 5: nothing to talk to.
type errNoDemo struct{}

func (errNoDemo) Error() string {
	return "no demo of this user is running; start one with: nearside demo"
}
func (errNoDemo) ExitCode() int { return 5 }

// command sends one command to the running demo.
func command(ctx context.Context, a action, region string) error {
	if err := known(region); err != nil {
		return err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", controlPath())
	if err != nil {
		return errNoDemo{}
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	fmt.Fprintf(c, "%s %s\n", a, region)
	s := bufio.NewScanner(c)
	if !s.Scan() {
		return errors.New("the demo ended before it answered")
	}
	if msg, ok := strings.CutPrefix(s.Text(), "error "); ok {
		return errors.New(msg)
	}
	return nil
}
