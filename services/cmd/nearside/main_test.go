package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store/etcdchild"
)

// The test binary is the program itself when it is told so, and the process of the store that it starts.
const asProgram = "NEARSIDE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" || len(os.Args) > 1 && os.Args[1] == etcdchild.Verb {
		main()
		return
	}
	os.Exit(m.Run())
}

// program is a running one.
type program struct {
	*exec.Cmd
	lines chan string // of its log
	ended chan error
}

// start runs a verb that serves, and returns when it is ready.
func start(t *testing.T, args ...string) *program {
	t.Helper()
	dir, err := os.MkdirTemp("", "nearside-main-")
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, "--http-addr", "127.0.0.1:0", "--federation-addr", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "data"))
	p := &program{Cmd: exec.Command(os.Args[0], args...), lines: make(chan string, 1000), ended: make(chan error, 1)}
	p.Env = append(os.Environ(), asProgram+"=1")
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stderr = in
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			select {
			case p.lines <- lines.Text():
			default:
			}
		}
	}()
	go func() { p.ended <- p.Wait() }()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		out.Close()
		for until := time.Now().Add(20 * time.Second); os.RemoveAll(dir) != nil && time.Now().Before(until); { // the store's process ends after it
			<-time.After(50 * time.Millisecond)
		}
	})
	p.await(t, "msg=ready")
	return p
}

func (p *program) await(t *testing.T, part string) {
	t.Helper()
	patience := time.After(time.Minute)
	for {
		select {
		case l := <-p.lines:
			if strings.Contains(l, part) {
				return
			}
		case <-patience:
			t.Fatalf("nothing was logged with %q", part)
		}
	}
}

func (p *program) send(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (p *program) awaitEnd(t *testing.T) *os.ProcessState {
	t.Helper()
	select {
	case <-p.ended:
		return p.ProcessState
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
		return nil
	}
}

// A server outlives the terminal it was started from, and says that there is nothing to reload.
func TestServerOutlivesHangup(t *testing.T) {
	// The tests may run under nohup themselves, and what is ignored is inherited; what is handled is not.
	hups := make(chan os.Signal, 1)
	signal.Notify(hups, syscall.SIGHUP)
	defer signal.Stop(hups)
	p := start(t, "server", "--dev", "--region", "lab")
	p.send(t, syscall.SIGHUP)
	p.await(t, "SIGHUP: nothing to do")
	p.send(t, syscall.SIGTERM)
	if s := p.awaitEnd(t); s.ExitCode() != 0 {
		t.Errorf("it ended with %s", s)
	}
}

// Under nohup every verb ignores SIGHUP.
func TestNohup(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("no /proc here")
	}
	signal.Ignore(syscall.SIGHUP) // a started process inherits it
	defer signal.Reset(syscall.SIGHUP)
	for _, args := range [][]string{{"dev"}, {"server", "--dev", "--region", "lab"}} {
		p := start(t, args...)
		f, err := os.Open("/proc/" + strconv.Itoa(p.Process.Pid) + "/status")
		if err != nil {
			t.Fatal(err)
		}
		status, err := io.ReadAll(f)
		f.Close()
		_, mask, _ := strings.Cut(string(status), "SigIgn:\t")
		mask, _, _ = strings.Cut(mask, "\n")
		if n, errMask := strconv.ParseUint(mask, 16, 64); err != nil || errMask != nil || n&1 == 0 {
			t.Errorf("%s: it does not ignore SIGHUP: %q, %v", args[0], mask, err)
		}
		p.send(t, syscall.SIGTERM)
		p.awaitEnd(t)
	}
}

// Who sends a second signal does not want to wait for an end in order.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	p := start(t, "server", "--dev", "--region", "lab", "--stop-delay", "1m")
	p.send(t, os.Interrupt)
	p.await(t, "stopping soon")
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	patience := time.After(30 * time.Second) // less than the delay
	for {
		_ = p.Process.Signal(os.Interrupt)
		select {
		case <-p.ended:
			if ws, ok := p.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() {
				t.Errorf("it ended with %s", p.ProcessState)
			}
			return
		case <-again.C:
		case <-patience:
			t.Fatal("it goes on stopping")
		}
	}
}
