package etcdcluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrNotMember: this node's member may not take part in the cluster as things are; starting
// it again changes nothing. The message has the remedy.
var ErrNotMember = errors.New("this node does not fit its region's cluster")

// ErrAddress: the address for the other members cannot be listened on.
var ErrAddress = errors.New("the address for the region's other nodes cannot be listened on")

// Step is how a node without data begins.
type Step int

// The steps.
const (
	Wait      Step = iota // for more answers
	Bootstrap             // the cluster begins with this node and the others as listed
	Join                  // a running cluster that has added this node
)

// patience is how long a node waits for the nodes that a new cluster can do without. All of
// them are better: one that is away now may have data, and then nothing new must begin.
const patience = 15 * time.Second

// Decide says how a node without data begins, by the answers of the others after it has waited for
// so long. With Join come the members that it joins. Errors wrap ErrNotMember.
//
// A cluster begins only when most of its nodes are there and none of those that are has data. So a node
// that lost its disk does not begin a second history while the others happen to be away.
func Decide(c Config, answers []Answer, waited time.Duration) (Step, []Told, error) {
	own := c.Own()
	empty := 1 // this one
	var running *Answer
	for i := range answers {
		a := &answers[i]
		switch {
		case a.Err != nil:
		case a.Waiting != "":
			if region, _, _ := strings.Cut(a.Waiting, "/"); region != string(c.Region) {
				return Wait, nil, fmt.Errorf("%w: at %s is a node of region %s; correct --cluster", ErrNotMember, c.Peers[a.Node], region)
			}
			empty++
		case running != nil && running.Cluster != a.Cluster:
			return Wait, nil, fmt.Errorf("%w: %s and %s are members of different clusters; correct --cluster, or start one of them anew on an empty data directory",
				ErrNotMember, running.Node, a.Node)
		// Who knows of us knows more than who does not.
		case running == nil || at(running.Members, own) < 0:
			running = a
		}
	}
	if running != nil {
		return enter(c, *running)
	}
	if empty == len(c.Peers) || empty > len(c.Peers)/2 && waited >= patience {
		return Bootstrap, nil, nil
	}
	return Wait, nil, nil
}

// enter decides on a cluster that runs.
func enter(c Config, a Answer) (Step, []Told, error) {
	own := c.Own()
	i := at(a.Members, own)
	if i < 0 {
		named := slices.IndexFunc(a.Members, func(t Told) bool { return t.Name == c.Node })
		if named >= 0 {
			return Wait, nil, fmt.Errorf("%w: %s knows node %s at %s, and its own address is %s; correct --cluster, or replace the member: nearside region member remove %s, then nearside region member add %s=%s",
				ErrNotMember, a.Node, c.Node, strings.Join(a.Members[named].PeerURLs, ","), own, c.Node, c.Node, c.Peers[c.Node])
		}
		return Wait, nil, fmt.Errorf("%w: the cluster that %s is in does not list %s; add it first: nearside region member add %s=%s",
			ErrNotMember, a.Node, own, c.Node, c.Peers[c.Node])
	}
	us := a.Members[i]
	switch {
	case us.Started():
		return Wait, nil, fmt.Errorf("%w: %s says that node %s has joined before, and its data directory is empty, so what it promised then is lost; replace the member: nearside region member remove %s, then nearside region member add %s=%s, then start it again",
			ErrNotMember, a.Node, c.Node, c.Node, c.Node, c.Peers[c.Node])
	case !us.IsLearner && sameNodes(c, a.Members):
		return Bootstrap, nil, nil // it has just begun, with us
	}
	return Join, a.Members, nil
}

// StruckOff reports whether the others' lists say that the member with id was removed from the cluster: most
// of those asked are in it, answer and do not list it, and nobody does. A list that is behind may still have it; then the
// next question tells. One alone may be behind the other way, and know nothing yet of a member that was added: the
// answer is final, so it is not enough.
func StruckOff(answers []Answer, cluster string, id uint64) bool {
	lacking := 0
	for _, a := range answers {
		if a.Err != nil || a.Waiting != "" || a.Cluster != cluster {
			continue
		}
		if slices.ContainsFunc(a.Members, func(t Told) bool { return t.ID == id }) {
			return false
		}
		lacking++
	}
	return 2*lacking > len(answers)
}

func at(members []Told, url string) int {
	return slices.IndexFunc(members, func(t Told) bool { return slices.Contains(t.PeerURLs, url) })
}

// sameNodes reports whether the members are the nodes that c lists, each by name and address.
func sameNodes(c Config, members []Told) bool {
	if len(members) != len(c.Peers) {
		return false
	}
	for _, t := range members {
		addr, ok := c.Peers[t.Name]
		if !ok || len(t.PeerURLs) != 1 || t.PeerURLs[0] != c.URL(addr) {
			return false
		}
	}
	return true
}

// Initial returns the members as etcd is told them at its first start: NAME=URL,…. joined is nil for a
// cluster that begins.
func Initial(c Config, joined []Told) string {
	var parts []string
	if joined == nil {
		for _, name := range c.Names() {
			parts = append(parts, name+"="+c.URL(c.Peers[name]))
		}
		return strings.Join(parts, ",")
	}
	for _, t := range joined {
		name := t.Name
		switch {
		case slices.Contains(t.PeerURLs, c.Own()):
			name = c.Node
		case name == "":
			name = fmt.Sprintf("member-%x", t.ID)
		}
		for _, u := range t.PeerURLs {
			parts = append(parts, name+"="+u)
		}
	}
	return strings.Join(parts, ",")
}

// Missing says who does not answer, for a log: "b at 10.0.0.2:7403 (connection refused), …".
func Missing(c Config, answers []Answer) string {
	var parts []string
	for _, a := range answers {
		if a.Err != nil {
			parts = append(parts, fmt.Sprintf("%s at %s (%v)", a.Node, c.Peers[a.Node], a.Err))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
