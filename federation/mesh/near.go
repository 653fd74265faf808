package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/relay"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// Near is how rows of other regions come from this region's own nodes. In a region of several nodes one
// of them reads a peer, and the others take the rows from it, over the same stream.
type Near struct {
	// Nodes returns the nodes of the region that live, this one among them; fewer than two means that
	// every link reads its peer itself. It must not block. nil = none.
	Nodes func() []Sibling
	// Doors returns the federation URLs of a node; it is called when its rows are wanted. Required with Nodes.
	Doors func(ctx context.Context, s Sibling) ([]string, error)
	// Only are the federation URLs of a process that reads all peers for this region. Peers are those that
	// it tells of then, and nothing is read elsewhere.
	Only []string
}

// Sibling is a node of this region.
type Sibling struct {
	Node    string
	Address string // base URL of its API
}

const (
	// nearOld is how old the word of a sibling may be before this node looks for itself.
	nearOld = peer.SilenceLimit
	// nearShun is how long a sibling is passed over that was of no use. It doubles, up to nearShunMost.
	nearShun     = 5 * time.Second
	nearShunMost = time.Minute
	// originsInterval is how often a federation process is asked whom it reads.
	originsInterval = 2 * time.Second
)

var errNearOld = errors.New("the node that reads the peer for us has not heard of it either")

// near is the part of a link's way that leads through a sibling. Owned by the link.
type near struct {
	use   Sibling       // in use; of use while via is our own region
	want  Sibling       // by the last choice
	shun  time.Time     // until when no sibling is asked
	pause time.Duration // of the last shun
	hop   time.Duration // round trip to use
}

// nearby returns the sibling that reads the peer for us.
func (l *link) nearby(now time.Time) (Sibling, bool) {
	c := &l.mesh.cfg.Near
	if len(c.Only) > 0 {
		return Sibling{}, true
	}
	if c.Nodes == nil || now.Before(l.way.near.shun) {
		return Sibling{}, false
	}
	nodes := c.Nodes()
	if len(nodes) < 2 {
		return Sibling{}, false
	}
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Node
	}
	reader := relay.Reader(names, l.peer)
	i := slices.Index(names, reader)
	return nodes[i], reader != l.mesh.cfg.Node && nodes[i].Address != "" && slices.Contains(names, l.mesh.cfg.Node)
}

// self is this region, as the one that passes rows on to its own nodes.
func (l *link) self() api.Region { return l.mesh.cfg.Region }

// changed reports whether another way is to be taken than the one in use.
func (l *link) changed(via api.Region, now time.Time) bool {
	return l.choose(now) != via || via == l.self() && l.way.near.want != l.way.near.use
}

// nearRing returns the addresses of whoever reads the peer for us.
func (l *link) nearRing(ctx context.Context) (*peer.Ring, error) {
	c := &l.mesh.cfg.Near
	if len(c.Only) > 0 {
		return l.ring, nil
	}
	s := l.way.near.use
	doors, err := l.mesh.doors.of(ctx, s, c.Doors)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", s.Node, err)
	}
	return peer.NewRing(doors), nil
}

// nearWord takes what a frame says of how the sibling hears the peer. An error ends the session in
// favour of the direct way.
func (l *link) nearWord(hello, f replica.Frame, now time.Time) error {
	if f.Kind != replica.Heartbeat {
		return nil
	}
	if f.RTTMS > 0 {
		l.rtt = time.Duration(f.RTTMS) * time.Millisecond
		l.replica.SetRTT(l.rtt)
	}
	age := time.Duration(f.AgeMS) * time.Millisecond
	if age <= nearOld {
		l.way.near.pause = 0
		l.up(hello)
		return nil
	}
	err := fmt.Errorf("%w for %s", errNearOld, age.Round(time.Second))
	if len(l.mesh.cfg.Near.Only) == 0 {
		return err
	}
	if l.connected || l.lastError == "" {
		l.down(err)
	} else {
		l.lastError, l.farAway = err.Error(), true
	}
	return nil
}

// nearLost notes that the sibling is of no use, for a while.
func (l *link) nearLost(err error, now time.Time) {
	n := &l.way.near
	n.pause = min(max(2*n.pause, nearShun), nearShunMost)
	n.shun = now.Add(n.pause)
	l.log.Info("another node of this region is of no use for the peer's rows; this one reads for itself", "via", n.use.Node, "error", err, "for", n.pause)
	l.mesh.doors.forget(n.use)
	l.way.via, l.way.trying = "", now
	l.publish()
}

// doors remembers where siblings are read.
type doors struct {
	mu    sync.Mutex
	known map[Sibling][]string
}

func (d *doors) of(ctx context.Context, s Sibling, ask func(context.Context, Sibling) ([]string, error)) ([]string, error) {
	d.mu.Lock()
	urls := d.known[s]
	d.mu.Unlock()
	if urls != nil {
		return urls, nil
	}
	ctx, cancel := context.WithTimeout(ctx, peer.SilenceLimit)
	defer cancel()
	urls, err := ask(ctx, s)
	if err != nil {
		return nil, err
	}
	if len(urls) == 0 {
		return nil, errors.New("it reads no other regions")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil || len(d.known) > 64 {
		d.known = make(map[Sibling][]string)
	}
	d.known[s] = urls
	return urls, nil
}

func (d *doors) forget(s Sibling) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, s)
}

// linkSet is the links by region; immutable.
type linkSet struct {
	list   []*link // by region
	byPeer map[api.Region]*link
}

func (m *Mesh) all() []*link { return m.links.Load().list }

func (m *Mesh) by(region api.Region) *link { return m.links.Load().byPeer[region] }

// add adds a link; only one goroutine does.
func (m *Mesh) add(l *link) {
	old := m.links.Load()
	next := &linkSet{slices.Clone(old.list), maps.Clone(old.byPeer)}
	next.list, next.byPeer[l.peer] = append(next.list, l), l
	slices.SortFunc(next.list, func(a, b *link) int { return strings.Compare(string(a.peer), string(b.peer)) })
	m.links.Store(next)
}

// followOrigins adds a link for every region that the federation process reads. One that it no longer
// reads keeps its link and its rows.
func (m *Mesh) followOrigins(ctx context.Context, started func(*link)) {
	ring := peer.NewRing(m.cfg.Near.Only)
	t := time.NewTicker(originsInterval)
	defer t.Stop()
	for failed := false; ; {
		var origins []api.Region
		_, err := ring.Try(ctx, func(ctx context.Context, address string) (err error) {
			origins, err = m.client.Origins(ctx, address, m.cfg.Region)
			return err
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failed {
			m.log.Warn("this region's federation does not answer; what is known of other regions is kept", "urls", m.cfg.Near.Only, "error", err)
		}
		failed = err != nil
		for _, o := range origins {
			if o != m.cfg.Region && m.by(o) == nil {
				l := newLink(m, o, m.cfg.Near.Only, m.dir)
				m.add(l)
				m.announce()
				started(l)
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// origins lists the regions that are read here.
func (m *Mesh) origins() []api.Region {
	var out []api.Region
	for _, l := range m.all() {
		out = append(out, l.peer)
	}
	return out
}
