package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/nearside/nearside/region/store/etcdchild"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/node"
)

// modeEnv makes the test binary the child.
const modeEnv = "NEARSIDE_BENCH_SERVE"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == etcdchild.Verb {
		if err := etcdchild.Main(os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv(modeEnv); dir != "" {
		if err := serve(dir, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// places is what the child tells about itself, in one line.
type places struct{ Node, Bare, Etcd string }

// serve is the child: a node, the yardsticks, until its standard input ends. Lines that it
// reads before are what the bare handlers answer with, one document a line.
func serve(dir string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cfg := node.Config{
		Region: "eu-west", Zone: "a", Node: "eu-west-1", DataDir: filepath.Join(dir, "node"), HTTPAddr: "127.0.0.1:0",
		Roles: []string{"region"}, Dev: true, ReadyFile: filepath.Join(dir, "ready"), LogLevel: "warn",
	}
	if err := cfg.Normalize(); err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- node.Run(ctx, cfg, os.Stderr) }()
	var ready api.ReadyFile
	for ready.HTTPAddr == "" {
		select {
		case err := <-ran:
			return fmt.Errorf("the node ended at its start: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
		if b, err := os.ReadFile(cfg.ReadyFile); err == nil {
			if err := json.Unmarshal(b, &ready); err != nil {
				return err
			}
		}
	}
	// Plain etcd for the registrations' yardstick: of the same kind, a process of its own too, and on
	// the same disk.
	etcd, err := etcdchild.Start(etcdchild.Config{Config: etcdnode.Config{DataDir: filepath.Join(dir, "plain"), Region: "eu-west", Node: "plain"}})
	if err != nil {
		return err
	}
	defer etcd.Close()
	select {
	case <-etcd.Ready():
	case err := <-etcd.Err():
		return err
	}
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var said atomic.Pointer[[]byte]
	said.Store(&[]byte{})
	go func() { _ = http.Serve(bare, yardstick(&said)) }()
	if err := json.NewEncoder(out).Encode(places{ready.HTTPAddr, bare.Addr().String(), etcd.Endpoint()}); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	stop := func() {}
	for lines.Scan() {
		switch what, arg, _ := strings.Cut(lines.Text(), " "); what {
		case "answer":
			b := []byte(arg + "\n")
			said.Store(&b)
		case "profile":
			stop()
			stop = profile(arg)
		case "memory":
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Fprintln(out, m.HeapAlloc+m.StackInuse, runtime.NumGoroutine())
			continue
		}
		fmt.Fprintln(out, "ok")
	}
	stop()
	cancel()
	return errors.Join(lines.Err(), <-ran)
}

// yardstick is what echo does by itself with the same bytes.
func yardstick(said *atomic.Pointer[[]byte]) http.Handler {
	e := echo.New()
	h := func(c echo.Context) error {
		b := *said.Load()
		c.Response().Header().Set("Content-Length", strconv.Itoa(len(b))) // or net/http would send it in chunks
		return c.Blob(http.StatusOK, "application/json", b)
	}
	e.PUT("/v1/services/:service/instances/:id/heartbeat", h)
	e.GET("/v1/resolve/:service", h)
	e.POST("/v1/batch/heartbeats", func(c echo.Context) error {
		_, _ = io.Copy(io.Discard, c.Request().Body)
		return h(c)
	})
	return e
}

// profile begins a profile of the child; "" ends it only.
func profile(path string) func() {
	if path == "" {
		return func() {}
	}
	f, err := os.Create(path)
	if err != nil || pprof.StartCPUProfile(f) != nil {
		return func() {}
	}
	return func() { pprof.StopCPUProfile(); _ = f.Close() }
}

// server is the child as seen from here.
type server struct {
	places
	b   *testing.B
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startServer(b *testing.B, dir string) *server {
	b.Helper()
	s := &server{b: b, cmd: exec.Command(os.Args[0])}
	s.cmd.Env = append(os.Environ(), modeEnv+"="+dir)
	s.cmd.Stderr = os.Stderr
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.stop)
	s.out = bufio.NewScanner(out)
	if !s.out.Scan() {
		b.Fatal("the server did not start")
	}
	if err := json.Unmarshal(s.out.Bytes(), &s.places); err != nil {
		b.Fatal(err)
	}
	return s
}

func (s *server) stop() {
	_ = s.in.Close()
	if err := s.cmd.Wait(); err != nil {
		s.b.Errorf("the server: %v", err)
	}
}

func (s *server) tell(line string) string {
	s.b.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil || !s.out.Scan() {
		s.b.Fatalf("the server is gone: %v", err)
	}
	return s.out.Text()
}

// memory returns the bytes in use (heap and stacks) and the goroutines of the child.
func (s *server) memory() (bytes, goroutines int) {
	if _, err := fmt.Sscan(s.tell("memory"), &bytes, &goroutines); err != nil {
		s.b.Fatal(err)
	}
	return bytes, goroutines
}

// cpu returns the processor time that the child has used so far, its etcds' included. The
// kernel counts it in hundredths of a second.
func (s *server) cpu() time.Duration { return cpuOf(s.cmd.Process.Pid) }

// cpuOf returns the processor time of a process and of its children that live; 0 where the
// kernel is not Linux: the figure is left out.
func cpuOf(pid int) (used time.Duration) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	sys, _ := strconv.Atoi(f[12])
	used = time.Duration(user+sys) * 10 * time.Millisecond
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(child); err == nil {
				used += cpuOf(n)
			}
		}
	}
	return used
}
