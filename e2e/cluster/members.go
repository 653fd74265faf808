package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Members lists the members of the node's region.
func (h *HTTP) Members(r api.Region) ([]api.Member, error) {
	var l api.MemberList
	_, err := h.Do(http.MethodGet, api.PathMembers(r), nil, &l)
	return l.Members, err
}

// Leader returns the node of a region whose member leads, as any of the nodes asked has it.
func (c *Cluster) Leader(r api.Region) *Node {
	c.t.Helper()
	var leader *Node
	Within(c.t, 30*time.Second, "region "+string(r)+" has a leader", func() error {
		err := fmt.Errorf("nobody leads")
		for _, n := range c.Nodes(r) {
			list, e := n.Client().Members(r)
			if e != nil {
				err = e
				continue
			}
			for _, m := range list {
				if m.Leader && m.Answers {
					for _, o := range c.Nodes(r) {
						if o.Name == m.Node {
							leader = o
							return nil
						}
					}
				}
			}
		}
		return err
	})
	return leader
}

// Owner returns the node of a region that holds the deadlines of all heartbeats, as most of the
// nodes that answer have it.
func (c *Cluster) Owner(r api.Region) *Node {
	c.t.Helper()
	var owner *Node
	Within(c.t, 30*time.Second, "region "+string(r)+" has an owner of liveness", func() error {
		votes := map[string]int{}
		for _, n := range c.Nodes(r) {
			var info api.RegionInfo
			if _, err := n.Client().Do(http.MethodGet, api.PathRegion(r), nil, &info); err == nil && info.Liveness != nil {
				votes[info.Liveness.Owner]++
			}
		}
		for _, n := range c.Nodes(r) {
			if votes[n.Name]*2 > len(c.Nodes(r)) {
				owner = n
				return nil
			}
		}
		return fmt.Errorf("it is said to be %v", votes)
	})
	return owner
}

// CLI runs the nearside binary to its end and returns its exit code and what it printed, both outputs
// together.
func (c *Cluster) CLI(args ...string) (int, string) {
	c.t.Helper()
	cmd := exec.Command(Binary(c.t), args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// Wipe deletes the data of a node that does not run: its disk is lost.
func (n *Node) Wipe() {
	n.c.t.Helper()
	if err := os.RemoveAll(n.DataDir); err != nil {
		n.c.t.Fatal(err)
	}
}
