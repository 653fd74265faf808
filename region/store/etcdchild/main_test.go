package etcdchild_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store/etcdchild"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
)

// This test binary is also the program that its tests run: the child itself, a node whose child it
// is, and children that end badly.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == etcdchild.Verb {
		if err := etcdchild.Main(os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "node" {
		if err := nodeProcess(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == "measure" {
		if err := measured(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 2 && os.Args[1] == "panic" {
		panickingChild()
	}
	os.Exit(m.Run())
}

// nodeProcess is a process that supervises a member, and says its child's pid.
func nodeProcess(dir string) error {
	s, err := etcdchild.Start(etcdchild.Config{Config: config(dir)})
	if err != nil {
		return err
	}
	if err := s.Await(context.Background()); err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println(s.State().PID)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1) // the test is gone
	}()
	<-term
	return s.Close()
}

// panickingChild takes its orders and ends as a bug would end it.
func panickingChild() {
	_, _ = os.Stdin.Read(make([]byte, 64<<10))
	panic("a bug")
}

func config(dir string) etcdnode.Config {
	return etcdnode.Config{Region: "eu-west", Node: "n1", DataDir: dir}
}

// supervised is a supervisor and the states it told of.
type supervised struct {
	*etcdchild.Supervisor
	t      *testing.T
	mu     sync.Mutex
	states []etcdchild.State
}

func start(t *testing.T, cfg etcdchild.Config) *supervised {
	t.Helper()
	s := &supervised{t: t}
	cfg.OnChange = func(st etcdchild.State) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.states = append(s.states, st)
	}
	var err error
	if s.Supervisor, err = etcdchild.Start(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func serving(t *testing.T, dir string) *supervised {
	t.Helper()
	s := start(t, etcdchild.Config{Config: config(dir)})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Await(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *supervised) phases() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, st := range s.states {
		out = append(out, string(st.Phase))
	}
	return strings.Join(out, " ")
}

func (s *supervised) store() *etcdstore.Store {
	s.t.Helper()
	st, err := etcdstore.Open(s.t.Context(), etcdstore.Config{Endpoints: []string{s.Endpoint()}, Region: "eu-west", Room: s.Room, RequestTimeout: time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = st.Close() })
	return st
}

// within waits until cond returns nil.
func within(t *testing.T, patience time.Duration, what string, cond func() error) time.Duration {
	t.Helper()
	begun := time.Now()
	ask := time.NewTicker(5 * time.Millisecond)
	defer ask.Stop()
	for {
		err := cond()
		if err == nil {
			return time.Since(begun)
		}
		if time.Since(begun) > patience {
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
		<-ask.C
	}
}

// gone is nil once there is no process pid: no zombie either.
func gone(pid int) error {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return nil
	}
	// A process whose parent was killed waits for its new parent to reap it; it runs no more.
	if b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil {
		if _, rest, ok := strings.Cut(string(b), ") "); ok && strings.HasPrefix(rest, "Z") && os.Getpid() != parentOf(rest) {
			return nil
		}
	}
	return fmt.Errorf("process %d is still there", pid)
}

func parentOf(stat string) int {
	f := strings.Fields(stat)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}
