// Package cluster runs regions as real processes of the nearside binary for end-to-end
// tests: registry nodes, shops and load generators on loopback, each of which can be
// killed (SIGKILL), paused (SIGSTOP) and restarted on the same ports and data.
//
// The binary is built once per test process, or taken from NEARSIDE_BINARY.
package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/child"
)

// StartPatience bounds the start of one process.
const StartPatience = 30 * time.Second

var build = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("NEARSIDE_BINARY"); b != "" {
		return filepath.Abs(b)
	}
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "..", "..")
	out := filepath.Join(root, "e2e", ".artifacts", "nearside")
	cmd := exec.Command("go", "build", "-o", out, "./cmd/nearside")
	cmd.Dir = filepath.Join(root, "services")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building nearside: %w\n%s", err, b)
	}
	return out, nil
})

// Binary returns the path of the nearside binary.
func Binary(t testing.TB) string {
	t.Helper()
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Cluster is a set of regions. Everything it started is killed when the test ends; when
// the test failed, the ends of all logs are printed.
type Cluster struct {
	t       testing.TB
	Dir     string
	nursery *child.Nursery
	nodes   []*Node
	mu      sync.Mutex
	procs   []*child.Process
}

// Node is one region's registry node (regions have one node each).
type Node struct {
	c          *Cluster
	Region     api.Region
	HTTP       string // host:port
	Federation string // host:port
	DataDir    string
	proc       *child.Process
	Extra      []string // further flags of nearside server
}

// New allocates addresses for the regions; nothing runs yet.
func New(t testing.TB, regions ...api.Region) *Cluster {
	t.Helper()
	c := &Cluster{t: t, Dir: t.TempDir(), nursery: child.NewNursery(Binary(t))}
	for _, r := range regions {
		c.nodes = append(c.nodes, &Node{
			c: c, Region: r, HTTP: FreeAddr(t), Federation: FreeAddr(t), DataDir: filepath.Join(c.Dir, string(r), "registry"),
		})
		if err := os.MkdirAll(filepath.Join(c.Dir, string(r)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(c.close)
	return c
}

func (c *Cluster) close() {
	c.mu.Lock()
	procs := c.procs
	c.mu.Unlock()
	for _, p := range procs {
		p.Signal(syscall.SIGKILL)
	}
	for _, p := range procs {
		<-p.Done()
	}
	c.nursery.Close()
	if c.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(c.Dir, "*", "*.log"))
		for _, l := range logs {
			c.t.Logf("the end of %s:\n%s", strings.TrimPrefix(l, c.Dir), child.Tail(l, 3000))
		}
	}
}

// FreeAddr returns a loopback address whose port was free a moment ago.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Node returns the node of a region.
func (c *Cluster) Node(r api.Region) *Node {
	for _, n := range c.nodes {
		if n.Region == r {
			return n
		}
	}
	c.t.Fatalf("no region %s in this cluster", r)
	return nil
}

// StartAll starts every region's registry and waits until all are ready.
func (c *Cluster) StartAll() {
	c.t.Helper()
	for _, n := range c.nodes {
		n.launch()
	}
	for _, n := range c.nodes {
		n.awaitReady()
	}
}

// URL returns the base URL of the node's API.
func (n *Node) URL() string { return "http://" + n.HTTP }

// Start starts the node and waits until it is ready.
func (n *Node) Start() {
	n.c.t.Helper()
	n.launch()
	n.awaitReady()
}

func (n *Node) readyFile() string { return filepath.Join(n.c.Dir, string(n.Region), "registry.ready") }

func (n *Node) launch() {
	n.c.t.Helper()
	args := []string{
		"server", "--dev", "--region", string(n.Region), "--data-dir", n.DataDir,
		"--http-addr", n.HTTP, "--federation-addr", n.Federation, "--ready-file", n.readyFile(),
	}
	for _, o := range n.c.nodes {
		if o != n {
			args = append(args, "--peer", string(o.Region)+"=http://"+o.Federation)
		}
	}
	_ = os.Remove(n.readyFile())
	n.proc = n.c.spawn(n.Region, "registry", append(args, n.Extra...)...)
}

func (n *Node) awaitReady() {
	n.c.t.Helper()
	n.c.awaitFile(n.proc, n.readyFile())
}

// Kill sends SIGKILL and waits for the end.
func (n *Node) Kill() { n.proc.Kill() }

// Stop sends SIGTERM, waits for the end and returns how it ended.
func (n *Node) Stop() error { n.proc.Stop(10 * time.Second); return n.proc.Err() }

// Pause sends SIGSTOP.
func (n *Node) Pause() { n.proc.Signal(syscall.SIGSTOP) }

// Resume sends SIGCONT.
func (n *Node) Resume() { n.proc.Signal(syscall.SIGCONT) }

// PID returns the node's process id.
func (n *Node) PID() int { return n.proc.PID() }

// spawn starts a process of a region; its log is DIR/REGION/NAME.log.
func (c *Cluster) spawn(r api.Region, name string, args ...string) *child.Process {
	c.t.Helper()
	p, err := c.nursery.Spawn(string(r)+"/"+name, filepath.Join(c.Dir, string(r), name+".log"), nil, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.procs = append(c.procs, p)
	c.mu.Unlock()
	return p
}

func (c *Cluster) awaitFile(p *child.Process, path string) {
	c.t.Helper()
	Within(c.t, StartPatience, p.Name()+" is ready", func() error {
		b, err := os.ReadFile(path)
		if err != nil {
			select {
			case <-p.Done():
				c.t.Fatalf("%s ended at start: %v", p.Name(), p.Err())
			default:
			}
			return err
		}
		if !json.Valid(b) {
			return fmt.Errorf("half a ready file")
		}
		return nil
	})
}

// Within waits until cond returns nil, asking every 20 ms, and fails the test with the
// last error when it has not by then.
func Within(t testing.TB, patience time.Duration, what string, cond func() error) {
	t.Helper()
	ask := time.NewTicker(20 * time.Millisecond)
	defer ask.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		select {
		case <-ask.C:
		case <-late.C:
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
	}
}
