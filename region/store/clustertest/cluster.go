package clustertest

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store/etcdcluster"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/sdk/api"
)

// patience bounds every wait: used up by failures only.
const patience = time.Minute

// Cluster is a set of nodes with an address each, named n1, n2, …. Which of them run is the test's choice.
type Cluster struct {
	t      testing.TB
	Region api.Region
	Peers  map[string]string // as every node is told
	TLS    *etcdcluster.TLS  // nil: plain text
	Dir    string
	// Change, when set, is called with every member's configuration before it starts.
	Change func(*etcdnode.Config)
	nodes  map[string]*etcdnode.Node
}

// New chooses addresses for n nodes.
func New(t testing.TB, region api.Region, n int) *Cluster {
	t.Helper()
	c := &Cluster{t: t, Region: region, Peers: map[string]string{}, Dir: t.TempDir(), nodes: map[string]*etcdnode.Node{}}
	for i := range n {
		c.Peers[fmt.Sprintf("n%d", i+1)] = FreeAddr(t)
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			_ = n.Close()
		}
	})
	return c
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

// Config returns what a node starts with.
func (c *Cluster) Config(node string) etcdnode.Config {
	cl := &etcdcluster.Config{Region: c.Region, Node: node, Peers: maps.Clone(c.Peers), Listen: c.Peers[node], TLS: c.TLS}
	cfg := etcdnode.Config{Region: c.Region, Node: node, DataDir: filepath.Join(c.Dir, node), Cluster: cl, ReserveBytes: 16 << 20}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", node)
	}
	if c.Change != nil {
		c.Change(&cfg)
	}
	return cfg
}

// Start starts a node without waiting until it serves.
func (c *Cluster) Start(node string) *etcdnode.Node {
	c.t.Helper()
	n, err := etcdnode.Start(c.t.Context(), c.Config(node))
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[node] = n
	return n
}

// StartAll starts every node and waits until all serve.
func (c *Cluster) StartAll() {
	c.t.Helper()
	for name := range c.Peers {
		c.Start(name)
	}
	for name := range c.Peers {
		c.Await(name)
	}
}

// Await waits until a node that was started serves.
func (c *Cluster) Await(node string) {
	c.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	n := c.nodes[node]
	select {
	case <-n.Ready():
	case err := <-n.Err():
		c.t.Fatalf("%s ended: %v", node, err)
	case <-late.C:
		c.t.Fatalf("%s does not serve after %s", node, patience)
	}
}

// Stop stops a node.
func (c *Cluster) Stop(node string) {
	c.t.Helper()
	if err := c.nodes[node].Close(); err != nil {
		c.t.Fatal(err)
	}
	delete(c.nodes, node)
}

// Node returns a node that runs.
func (c *Cluster) Node(node string) *etcdnode.Node { return c.nodes[node] }
