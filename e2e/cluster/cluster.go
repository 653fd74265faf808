// Package cluster runs regions as real processes of the nearside binary for end-to-end
// tests: registry nodes, shops and load generators on loopback, each of which can be
// killed (SIGKILL), paused (SIGSTOP) and restarted on the same ports and data.
//
// The binary is built once per test process, or taken from NEARSIDE_BINARY.
package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
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
	secure  *Authority     // of the regions' certificates; nil: they run with --dev
	wrapped *child.Nursery // of nodes that run elsewhere; nil without
	others  []*child.Nursery
	nodes   []*Node
	links   *Links // between the regions; nil without
	mu      sync.Mutex
	procs   []*child.Process
}

// Node is a region's registry node.
type Node struct {
	c          *Cluster
	Name       string // within its region; "" for the only one
	Peer       string // host:port of its etcd for the region's other nodes; "" for the only one
	Region     api.Region
	HTTP       string // host:port
	Federation string // host:port
	DataDir    string
	proc       *child.Process
	Extra      []string       // further flags of nearside server
	beside     bool           // it is the region's federation, see AddFederation
	program    *child.Nursery // of another program than the cluster's; nil without

	// Of a node in a network of the test's own (see Net): the command that runs a program there,
	// its number there, and how to call it. Else empty, and the machine's own network.
	wrap []string
	host int
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Transport returns a transport that reaches the node. The caller closes its idle connections.
func (n *Node) Transport() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 64, DialContext: n.dial, TLSClientConfig: n.c.trust()}
}

// New allocates addresses for the regions; nothing runs yet.
func New(t testing.TB, regions ...api.Region) *Cluster {
	t.Helper()
	return NewOf(t, Binary(t), regions...)
}

// NewOf is New with a binary of the caller's.
func NewOf(t testing.TB, binary string, regions ...api.Region) *Cluster {
	t.Helper()
	c := &Cluster{t: t, Dir: t.TempDir(), nursery: child.NewNursery(binary)}
	for _, r := range regions {
		c.nodes = append(c.nodes, &Node{
			c: c, Region: r, HTTP: stableAddr(t), Federation: stableAddr(t), DataDir: filepath.Join(c.Dir, string(r), "registry"),
		})
		if err := os.MkdirAll(filepath.Join(c.Dir, string(r)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(c.close)
	return c
}

// NewRegion allocates addresses for one region of n nodes, which keep its records together; nothing runs yet.
func NewRegion(t testing.TB, r api.Region, n int) *Cluster {
	t.Helper()
	c := New(t)
	if err := os.MkdirAll(filepath.Join(c.Dir, string(r)), 0o700); err != nil {
		t.Fatal(err)
	}
	for range n {
		c.AddNode(r)
	}
	return c
}

// AddNode allocates another node of a region of several: one that is not a member yet, when the
// others run already.
func (c *Cluster) AddNode(r api.Region) *Node {
	c.t.Helper()
	name := fmt.Sprintf("%s-%d", r, len(c.Nodes(r))+1)
	n := &Node{c: c, Region: r, Name: name, HTTP: stableAddr(c.t), Peer: stableAddr(c.t), DataDir: filepath.Join(c.Dir, string(r), name)}
	c.nodes = append(c.nodes, n)
	return n
}

// Nodes returns the nodes of a region, in the order of their allocation.
func (c *Cluster) Nodes(r api.Region) []*Node {
	var out []*Node
	for _, n := range c.nodes {
		if n.Region == r {
			out = append(out, n)
		}
	}
	return out
}

// Siblings returns all nodes of the node's region, itself among them.
func (n *Node) Siblings() []*Node { return n.c.Nodes(n.Region) }

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
	if c.wrapped != nil {
		c.wrapped.Close()
	}
	for _, o := range c.others {
		o.Close()
	}
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

const firstStable, lastStable = 21000, 29999

// Addresses of nodes that are killed and started again must not be taken meanwhile: they are below the
// ports that connections get from the kernel, and handed out once. Other test processes on this
// machine pick from the same ports: the UDP port of the same number, which no node uses, is kept
// to the end of this process and says that it is taken. Two regions that share an address would take each
// other's clients, and look like one that loses writes.
var stable = struct {
	sync.Mutex
	next int
	held []net.PacketConn
}{next: firstStable + os.Getpid()%4000*2}

func stableAddr(t testing.TB) string {
	t.Helper()
	stable.Lock()
	defer stable.Unlock()
	for range lastStable - firstStable {
		stable.next++
		if stable.next > lastStable {
			stable.next = firstStable
		}
		addr := fmt.Sprintf("127.0.0.1:%d", stable.next)
		mark, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			_ = mark.Close()
			continue
		}
		stable.held = append(stable.held, mark)
		_ = l.Close()
		return addr
	}
	t.Fatalf("no port from %d to %d is free", firstStable, lastStable)
	return ""
}

// stablePorts returns the first of n ports in a row, each as stableAddr gives them.
func stablePorts(t testing.TB, n int) int {
	t.Helper()
	first, last := 0, 0
	for first == 0 || last-first < n-1 {
		_, port, err := net.SplitHostPort(stableAddr(t))
		if err != nil {
			t.Fatal(err)
		}
		p, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 || p != last+1 {
			first = p
		}
		last = p
	}
	return first
}

// Node returns the first node of a region.
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
		n.Launch()
	}
	for _, n := range c.nodes {
		n.AwaitReady()
	}
}

// URL returns the base URL of the node's API.
func (n *Node) URL() string { return n.c.scheme() + n.HTTP }

// Start starts the node and waits until it is ready.
func (n *Node) Start() {
	n.c.t.Helper()
	n.Launch()
	n.AwaitReady()
}

// Log returns the path of the node's log.
func (n *Node) Log() string { return filepath.Join(n.c.Dir, string(n.Region), n.name()+".log") }

// Ended returns a channel that is closed when the node's process has ended.
func (n *Node) Ended() <-chan struct{} { return n.proc.Done() }

// name is what the node's files are called.
func (n *Node) name() string {
	if n.Name == "" {
		return "registry"
	}
	return n.Name
}

func (n *Node) readyFile() string { return filepath.Join(n.c.Dir, string(n.Region), n.name()+".ready") }

// Launch starts the node without waiting for it.
func (n *Node) Launch() {
	n.c.t.Helper()
	args := []string{
		"server", "--region", string(n.Region), "--data-dir", n.DataDir,
		"--http-addr", n.HTTP, "--ready-file", n.readyFile(),
	}
	args = append(args, n.mode()...)
	args = append(args, n.part()...)
	_ = os.Remove(n.readyFile())
	nursery := n.c.nursery
	if n.program != nil {
		nursery = n.program
	}
	args = append(args, n.Extra...)
	if len(n.wrap) > 0 {
		if n.c.wrapped == nil {
			n.c.wrapped = child.NewNursery(n.wrap[0])
		}
		nursery, args = n.c.wrapped, append(n.wrap[1:len(n.wrap):len(n.wrap)], args...)
	}
	n.proc = n.c.spawn(nursery, n.Region, n.name(), args...)
}

// way returns where a node finds another region's federation.
func (c *Cluster) way(from, to *Node) string {
	if c.links == nil {
		return to.Federation
	}
	return c.links.relays[road{from.Region, to.Region}].Addr
}

// Use makes the node run another program from its next start on; "" = the cluster's own again.
func (n *Node) Use(binary string) {
	n.program = nil
	if binary != "" {
		n.program = child.NewNursery(binary)
		n.c.others = append(n.c.others, n.program)
	}
}

// AwaitReady waits until the node is ready.
func (n *Node) AwaitReady() {
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
func (c *Cluster) spawn(nursery *child.Nursery, r api.Region, name string, args ...string) *child.Process {
	c.t.Helper()
	p, err := nursery.Spawn(string(r)+"/"+name, filepath.Join(c.Dir, string(r), name+".log"), nil, args...)
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
