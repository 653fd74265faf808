// Package mesh links this region with all the others. Per peer one goroutine owns the link:
// it connects, reads frames, steps the replica, publishes an immutable view of it and has it
// written to disk. Readers take the views and never wait.
//
// A [Mesh] is made by [New], which loads what was known before from disk; [Mesh.Run] does
// the work; [Mesh.Handler] is the door for the readers in other regions. An unreachable peer
// is a normal state of affairs: its rows stay, their age grows, and the link is tried again
// for as long as the mesh runs.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// Image and Source are how the mesh sees this region's own catalogue.
type (
	Image  = peer.Image
	Source = peer.Source
)

// Config configures a Mesh. Region and Source are required.
type Config struct {
	Region api.Region
	Node   string
	// Peers are the federation base URLs of the other regions, such as "http://host:7402";
	// several of one region are tried in turn, and the one that works is kept.
	Peers map[api.Region][]string
	// Near says from which nodes of this region rows may be taken instead of from the peers.
	Near Near
	// Source is this region's own catalogue.
	Source Source
	// DataDir is where replicas are kept between runs, in a file per peer below "replicas";
	// "" keeps them in memory only. A file of a peer that is no longer configured is left alone.
	DataDir string
	// Addresses are base URLs of this region for clients; other regions pass them on to theirs.
	Addresses []string
	// AddressesNow, when not nil, tells them instead, and Heard when Source was last known to be all
	// that the region has: for a Source that follows the region from outside, see peer.ServerConfig.
	AddressesNow func() []string
	Heard        func() time.Time
	// Doors are the base URLs of Handler for this region's own nodes, as Info tells them.
	Doors []string
	// HTTPClient reaches the peers; nil makes one that uses no proxy. Its Timeout is ignored.
	HTTPClient *http.Client
	// PeerRegion returns the authenticated region of a reader; nil trusts the reader's word.
	PeerRegion func(*http.Request) (api.Region, error)
	// VerifyPeer returns an error unless the connection's other end has proved to be the
	// region; nil trusts the peer's word.
	VerifyPeer peer.Verify
	// Signer signs what this region says of its rows, and VerifyOrigin returns an error unless a
	// signature of b is that of the region to which the chain of certificates (DER, its own first)
	// belongs. With them another region that passes rows on need not be trusted; without
	// VerifyOrigin its word is taken. nil = neither.
	Signer       peer.Signer
	VerifyOrigin func(region api.Region, b, sig []byte, chain [][]byte) error
	// Term returns the term of this region's publisher, see peer.ServerConfig; nil = none.
	Term func() uint64
	// Drained returns what this region wishes about itself, in percent, 0 to 100: how much less
	// of its traffic it is to get. Peers are told with each heartbeat; nil = nothing.
	Drained func() float64
	// Partial: Source does not have all services of the region.
	Partial bool
	// OnLink is told when a peer begins or ceases to answer, and once when it does not answer
	// at the start. It is called from the link's goroutine and must not block; nil = nobody.
	OnLink func(LinkChange)
	// OnNotice is told of every other change of note; as OnLink, and from several goroutines.
	OnNotice func(Notice)
	// Probe connects to an endpoint of a region whose federation does not answer; nil = none is
	// ever probed, and so none is ever taken for down. It is called with endpoints of that region's
	// own rows only, at most three times in 5 s per region.
	Probe  Probe
	Logger *slog.Logger // nil = none
	// MeterProvider receives the metrics; nil = none.
	MeterProvider metric.MeterProvider
}

// LinkChange is a link that came up or went down.
type LinkChange struct {
	Peer    api.Region
	Up      bool
	Goodbye bool   // it is down because the peer said that it stops
	Detail  string // why, or the node that answers
}

// Mesh is this region's federation. Safe for concurrent use.
type Mesh struct {
	cfg     Config
	log     *slog.Logger
	client  *peer.Client
	server  *peer.Server
	dir     string // of replicas; "" = they are kept in memory only
	links   atomic.Pointer[linkSet]
	doors   doors
	details *details
	running atomic.Bool

	refusals refusals

	canaryMetric metric.Float64Histogram

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
}

// New checks cfg and reads the replicas of earlier runs. A file that cannot be used is set
// aside with a warning. Nothing runs and nothing is sent before Run.
func New(cfg Config) (*Mesh, error) {
	if err := api.CheckRegion(string(cfg.Region)); err != nil {
		return nil, err
	}
	if cfg.Source == nil {
		return nil, errors.New("federation needs the region's catalogue as its source")
	}
	m := &Mesh{cfg: cfg, log: cfg.Logger, changed: make(chan struct{})}
	m.details = newDetails(m)
	m.links.Store(&linkSet{byPeer: make(map[api.Region]*link)})
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Near.Only) > 0 && (len(cfg.Peers) > 0 || cfg.Near.Nodes != nil) {
		return nil, errors.New("a mesh that takes everything from its region's federation process has no peers of its own")
	}
	for region, addresses := range cfg.Peers {
		if err := checkPeer(cfg.Region, region, addresses); err != nil {
			return nil, err
		}
	}
	m.canaryMetric = noop.Float64Histogram{} // until Run
	if cfg.DataDir != "" {
		m.dir = filepath.Join(cfg.DataDir, "replicas")
		if err := os.MkdirAll(m.dir, 0o700); err != nil {
			return nil, fmt.Errorf("directory for replicas: %w", err)
		}
	}
	m.client = peer.NewClient(cfg.HTTPClient, cfg.VerifyPeer)
	for region, addresses := range cfg.Peers {
		m.add(newLink(m, region, addresses, m.dir))
	}
	if len(cfg.Near.Only) > 0 {
		for _, region := range savedRegions(m.dir) {
			if region != cfg.Region {
				m.add(newLink(m, region, cfg.Near.Only, m.dir))
			}
		}
	}
	m.server = peer.NewServer(peer.ServerConfig{
		Region: cfg.Region, Node: cfg.Node, Source: cfg.Source, Addresses: cfg.Addresses,
		PeerRegion: cfg.PeerRegion, OnReader: m.kick, Logger: m.log, Term: cfg.Term, Drained: cfg.Drained, Partial: cfg.Partial,
		Standings: m.standings, AddressesNow: cfg.AddressesNow, Heard: cfg.Heard, Relay: m.relay, Admit: m.admit, Signer: cfg.Signer, Origins: m.origins, OnRefused: m.refused,
	})
	return m, nil
}

func checkPeer(self, region api.Region, addresses []string) error {
	if err := api.CheckRegion(string(region)); err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	if region == self {
		return fmt.Errorf("peer %s is this region itself; name other regions only", region)
	}
	if len(addresses) == 0 {
		return fmt.Errorf("peer %s has no address; give its federation URL, such as http://host:7402", region)
	}
	for _, a := range addresses {
		u, err := url.Parse(a)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil ||
			strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("peer %s: %s is not a base URL; write it like http://host:7402", region, api.Quote(a))
		}
	}
	return nil
}

// Handler serves readers in other regions. It works as soon as the source is loaded, and
// ends its streams when Run ends.
func (m *Mesh) Handler() http.Handler { return m.server.Handler() }

// Leave makes the end of Run tell the readers that this region ends for good: they remove its
// rows after replica.ForgetGrace, unless it comes back before.
func (m *Mesh) Leave() { m.server.Leave() }

// Run keeps all links until ctx ends. Then it says goodbye to the readers, writes the
// replicas a last time and returns nil. It may be called once.
func (m *Mesh) Run(ctx context.Context) error {
	if m.running.Swap(true) {
		return errors.New("the mesh runs already")
	}
	unregister, err := m.metrics()
	if err != nil {
		return fmt.Errorf("federation metrics: %w", err)
	}
	var wg sync.WaitGroup
	for _, l := range m.all() {
		wg.Go(func() { l.run(ctx) })
	}
	if len(m.cfg.Near.Only) > 0 {
		wg.Go(func() { m.followOrigins(ctx, func(l *link) { wg.Go(func() { l.run(ctx) }) }) })
	}
	wg.Go(func() { newJudge(m).run(ctx) })
	if len(m.cfg.Near.Only) == 0 { // otherwise the addresses of the links are not those of the regions
		wg.Go(func() { m.details.run(ctx) })
	}
	<-ctx.Done()
	// Readers first: while we write to disk they can already look for another node.
	m.server.Stop()
	wg.Wait()
	unregister()
	m.client.CloseIdle()
	return nil
}

// kick makes the link to a region that just connected to us try at once: it is back.
func (m *Mesh) kick(region api.Region) {
	if l := m.by(region); l != nil {
		select {
		case l.kicks <- struct{}{}:
		default:
		}
	}
}

// announce wakes everyone who waits for Changed.
func (m *Mesh) announce() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.changed)
	m.changed = make(chan struct{})
}

// Changed returns a channel that is closed at the next change of any row, epoch or address
// of another region (not of ages). Take it before reading what it is about.
func (m *Mesh) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Origins returns every configured region, by name, with ages as of the call. One of which
// nothing is known yet has no epoch, counts as expired, and its age is that of the mesh.
func (m *Mesh) Origins() []api.Origin {
	now := time.Now()
	links := m.all()
	out := make([]api.Origin, len(links))
	for i, l := range links {
		out[i] = l.origin(&l.state.Load().view, now)
	}
	return out
}

// Lookup returns the regions that have a service, by name, with all instances where they are known
// (Serving). The summaries are shared: do not change them.
func (m *Mesh) Lookup(key api.ServiceKey) []api.Replica {
	if key.Namespace == "" {
		key.Namespace = api.DefaultNamespace
	}
	var out []api.Replica
	now := time.Now()
	for _, l := range m.all() {
		v := &l.state.Load().view
		if e := v.Table.Get(key); e != nil && e.Summary != nil {
			out = append(out, api.Replica{Origin: l.origin(v, now), Summary: m.details.of(l, key, v, e)})
		}
	}
	return out
}

// Services returns all rows of a region by key; nil when the region is not a peer or nothing
// is known of it. The slice and the summaries are shared: do not change them.
func (m *Mesh) Services(region api.Region) []*api.Summary {
	l := m.by(region)
	if l == nil {
		return nil
	}
	v := l.state.Load().view
	if v.Version.IsZero() {
		return nil
	}
	return v.Table.Summaries()
}

// Info describes links and readers. Epoch and Revision are left to the registry.
func (m *Mesh) Info() api.FederationInfo {
	links := m.all()
	info := api.FederationInfo{
		Region: m.cfg.Region, Enabled: true, Links: make([]api.LinkInfo, len(links)), Readers: m.server.Readers(), Doors: m.cfg.Doors,
	}
	now, words, out := time.Now(), m.server.Words(), m.server.BytesOut()
	for i, l := range links {
		info.Links[i] = l.info(now, words, out[l.peer])
	}
	return info
}
