package cluster

import (
	"os"
	"path/filepath"

	"github.com/nearside/nearside/sdk/api"
)

// Regions allocates regions of one node each, every one on a host of its own; nothing runs yet.
func (n *Net) Regions(regions ...api.Region) *Cluster {
	n.t.Helper()
	c := New(n.t)
	for _, r := range regions {
		if err := os.MkdirAll(filepath.Join(c.Dir, string(r)), 0o700); err != nil {
			n.t.Fatal(err)
		}
		i := n.add()
		c.nodes = append(c.nodes, &Node{
			c: c, Region: r, HTTP: n.addr(i) + ":7400", Federation: n.addr(i) + ":7402", DataDir: filepath.Join(c.Dir, string(r), "registry"),
			Extra: []string{"--dev-allow-remote"}, wrap: []string{"ip", "netns", "exec", n.host(i), Binary(n.t)}, host: i, dial: n.dial,
		})
	}
	return c
}
