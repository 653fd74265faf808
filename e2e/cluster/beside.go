package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Federate gives every node of a region of several the federation's role too, before they start.
func (c *Cluster) Federate(r api.Region) {
	c.t.Helper()
	for _, n := range c.Nodes(r) {
		if n.Federation == "" {
			n.Federation = stableAddr(c.t)
		}
	}
}

// AddFederation allocates a process for a region's federation, before its nodes start: they leave the
// federation to it, and other regions find the region there.
func (c *Cluster) AddFederation(r api.Region) *Node {
	c.t.Helper()
	n := &Node{
		c: c, Region: r, Name: "federation", HTTP: stableAddr(c.t), Federation: stableAddr(c.t),
		DataDir: filepath.Join(c.Dir, string(r), "federation"), beside: true,
	}
	c.nodes = append(c.nodes, n)
	return n
}

// federation returns the federation's process of a region; nil when its nodes do that themselves.
func (c *Cluster) federation(r api.Region) *Node {
	for _, n := range c.Nodes(r) {
		if n.beside {
			return n
		}
	}
	return nil
}

// part returns the flags that say what the node is in its region, and whom it reads.
func (n *Node) part() []string {
	var args []string
	fed := n.c.federation(n.Region)
	linked := n.Federation != "" && (fed == nil || n.beside)
	roles := "region,federation"
	switch {
	case n.beside:
		roles = "federation"
		for _, o := range n.c.Nodes(n.Region) {
			if !o.beside {
				args = append(args, "--region-url", o.URL())
			}
		}
	case !linked:
		roles = "region"
		if fed != nil {
			args = append(args, "--federation-url", "http://"+fed.Federation)
		}
	}
	args = append(args, "--roles", roles)
	if n.Name != "" {
		args = append(args, "--node", n.Name)
	}
	if n.Peer != "" {
		for _, o := range n.c.Nodes(n.Region) {
			if o.Peer != "" {
				args = append(args, "--cluster", o.Name+"="+o.Peer)
			}
		}
	}
	if !linked {
		return args
	}
	args = append(args, "--federation-addr", n.Federation)
	for _, o := range n.c.nodes {
		of := n.c.federation(o.Region)
		if o.Region != n.Region && o.Federation != "" && (of == nil || of == o) {
			args = append(args, "--peer", string(o.Region)+"="+n.c.scheme()+n.c.way(n, o))
		}
	}
	return args
}

func (n *Node) replicas() string { return filepath.Join(n.DataDir, "replicas") }

// HasReplica returns nil when the node has on disk what it knew of a region at some time. The time of the
// file is that of the region's last word when it was written, or some seconds later when nothing was to be written.
func (n *Node) HasReplica(of api.Region, at time.Time) error {
	f, err := os.Stat(filepath.Join(n.replicas(), string(of)+".replica"))
	if err == nil && f.ModTime().Before(at) {
		err = fmt.Errorf("it is of %s, not yet of %s", f.ModTime(), at)
	}
	return err
}

// ForgetReplicas removes what the node, which does not run, has on disk of other regions.
func (n *Node) ForgetReplicas() error { return os.RemoveAll(n.replicas()) }

// AddRegion allocates another region of one node.
func (c *Cluster) AddRegion(r api.Region) *Node {
	c.t.Helper()
	n := &Node{c: c, Region: r, HTTP: stableAddr(c.t), Federation: stableAddr(c.t), DataDir: filepath.Join(c.Dir, string(r), "registry")}
	if err := os.MkdirAll(filepath.Join(c.Dir, string(r)), 0o700); err != nil {
		c.t.Fatal(err)
	}
	c.nodes = append(c.nodes, n)
	return n
}
