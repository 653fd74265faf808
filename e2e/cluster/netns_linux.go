package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nearside/nearside/sdk/api"
)

// Net is a network of this test's own: a namespace for each node, joined by a bridge in one
// more, from which the test itself calls. Nothing of it touches the machine's network.
type Net struct {
	t      testing.TB
	prefix string
	hosts  int
}

// NewNet makes the network. The test is skipped, with the reason, where the machine does not
// allow that. Everything is removed at the end of the test.
func NewNet(t testing.TB) *Net {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("network namespaces need ip, of iproute2")
	}
	n := &Net{t: t, prefix: fmt.Sprintf("nst%d", os.Getpid())}
	if out, err := run("ip", "netns", "add", n.hub()); err != nil {
		t.Skipf("no network namespaces here: %v: %s", err, out)
	}
	t.Cleanup(n.remove)
	n.in(n.hub(), "ip", "link", "add", "br0", "type", "bridge")
	n.in(n.hub(), "ip", "addr", "add", "10.98.0.254/24", "dev", "br0")
	n.in(n.hub(), "ip", "link", "set", "br0", "up")
	return n
}

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (n *Net) hub() string       { return n.prefix + "h" }
func (n *Net) host(i int) string { return fmt.Sprintf("%s%d", n.prefix, i) }
func (n *Net) addr(i int) string { return fmt.Sprintf("10.98.0.%d", i) }
func (n *Net) in(ns string, args ...string) {
	n.t.Helper()
	if out, err := run("ip", append([]string{"netns", "exec", ns}, args...)...); err != nil {
		n.t.Fatalf("in %s: %v: %v: %s", ns, args, err, out)
	}
}

// add makes one more host and returns its number.
func (n *Net) add() int {
	n.t.Helper()
	n.hosts++
	i := n.hosts
	ns, far := n.host(i), fmt.Sprintf("v%d", i)
	if out, err := run("ip", "netns", "add", ns); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	n.in(n.hub(), "ip", "link", "add", far, "type", "veth", "peer", "name", "eth0", "netns", ns)
	n.in(n.hub(), "ip", "link", "set", far, "master", "br0", "up")
	n.in(ns, "ip", "addr", "add", n.addr(i)+"/24", "dev", "eth0")
	n.in(ns, "ip", "link", "set", "eth0", "up")
	n.in(ns, "ip", "link", "set", "lo", "up")
	return i
}

func (n *Net) remove() {
	for i := range n.hosts {
		_, _ = run("ip", "netns", "del", n.host(i+1))
	}
	_, _ = run("ip", "netns", "del", n.hub())
}

// Region allocates a region of nodes, each on a host of its own.
func (n *Net) Region(r api.Region, nodes int) *Cluster {
	n.t.Helper()
	c := New(n.t)
	if err := os.MkdirAll(filepath.Join(c.Dir, string(r)), 0o700); err != nil {
		n.t.Fatal(err)
	}
	for k := range nodes {
		i := n.add()
		name := fmt.Sprintf("%s-%d", r, k+1)
		c.nodes = append(c.nodes, &Node{
			c: c, Region: r, Name: name, HTTP: n.addr(i) + ":7400", Peer: n.addr(i) + ":7403", DataDir: filepath.Join(c.Dir, string(r), name),
			Extra: []string{"--dev-allow-remote"}, wrap: []string{"ip", "netns", "exec", n.host(i), Binary(n.t)}, host: i, dial: n.dial,
		})
	}
	return c
}

// Cut makes every packet from one node to the other vanish; those of the other direction
// arrive. Heal ends it.
func (n *Net) Cut(from, to *Node) {
	n.in(n.host(from.host), "ip", "route", "add", "blackhole", n.addr(to.host)+"/32")
}

// Heal ends what Cut began.
func (n *Net) Heal(from, to *Node) {
	n.in(n.host(from.host), "ip", "route", "del", "blackhole", n.addr(to.host)+"/32")
}

// dial connects from inside the hub: a thread enters the namespace for as long as it takes, and a socket
// stays in the one that it was made in.
func (n *Net) dial(ctx context.Context, network, address string) (net.Conn, error) {
	there, err := os.Open("/var/run/netns/" + n.hub())
	if err != nil {
		return nil, err
	}
	defer there.Close()
	type dialed struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialed, 1)
	go func() {
		// The thread is not unlocked, so that it ends with the goroutine and nobody else gets it.
		runtime.LockOSThread()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- dialed{nil, fmt.Errorf("enter the namespace: %w", err)}
			return
		}
		d := net.Dialer{Timeout: 2 * time.Second}
		conn, err := d.DialContext(ctx, network, address)
		done <- dialed{conn, err}
	}()
	d := <-done
	return d.conn, d.err
}
