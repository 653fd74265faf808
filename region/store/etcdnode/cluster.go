package etcdnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/tlsutil"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/pkg/v3/featuregate"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/nearside/nearside/region/store/etcdcluster"
)

const (
	askEvery   = 200 * time.Millisecond // of the others, by a node without data
	tellEvery  = 10 * time.Second       // what is waited for
	clusterMin = time.Minute            // for etcd's own start, which asks the others too
)

// beginning is how a member without data enters its cluster.
type beginning struct {
	join    bool
	initial string // its members, as etcd is told them
}

// draw changes a single member's configuration into that of one of several.
func (b beginning) draw(c *embed.Config, cl etcdcluster.Config) {
	u := func(raw string) []url.URL {
		v, err := url.Parse(raw)
		if err != nil {
			panic(err) // Validate has seen it
		}
		return []url.URL{*v}
	}
	c.ListenPeerUrls = u(cl.URL(bindable(cl.Listen)))
	c.AdvertisePeerUrls = u(cl.Own())
	c.InitialCluster = b.initial
	if b.initial == "" { // it has data, and what it is told here does not count
		c.InitialCluster = cl.Node + "=" + cl.Own()
	}
	if b.join {
		c.ClusterState = embed.ClusterStateFlagExisting
	}
	c.PeerTLSInfo = cl.TLSInfo()
	c.TlsMinVersion = string(tlsutil.TLSVersion13)
	// etcd's own: shorter ones take a busy machine or a slow disk for a dead leader.
	c.TickMs, c.ElectionMs = 100, 1000
	c.PreVote = true // a member that was cut off must not unseat the leader when it is back
	gate := c.ServerFeatureGate.(featuregate.MutableFeatureGate)
	if err := gate.Set("InitialCorruptCheck=true,CompactHashCheck=true"); err != nil {
		panic(err) // names of this etcd's version
	}
}

// startInCluster is Start from where a member of a cluster differs.
func (n *Node) startInCluster(ctx context.Context) (_ *Node, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, n.stop())
		}
	}()
	cl := *n.cfg.Cluster
	peers, err := etcdcluster.NewPeerClient(cl)
	if err != nil {
		return nil, fmt.Errorf("%w; check --tls-cert, --tls-key and --tls-ca", err)
	}
	peers.Close()
	from, step := beginning{}, etcdcluster.Join
	var wait *waiting
	if !n.dir.hasData() {
		// Whoever else starts now must find us, or all would wait in turn.
		if wait, err = listenWaiting(cl); err != nil {
			return nil, err
		}
		// A refusal is best told before anything runs.
		if from, step, _, err = n.ask(ctx, time.Now()); err != nil {
			wait.close()
			return nil, err
		}
	} else if l, err := listenPeers(cl); err != nil {
		return nil, err // etcd would say less
	} else {
		_ = l.Close()
	}
	go n.live(from, step, wait)
	return n, nil
}

// ask asks the others once how to begin.
func (n *Node) ask(ctx context.Context, since time.Time) (beginning, etcdcluster.Step, []etcdcluster.Answer, error) {
	cl := *n.cfg.Cluster
	answers, err := etcdcluster.Ask(ctx, cl)
	if err != nil {
		return beginning{}, 0, nil, err
	}
	step, members, err := etcdcluster.Decide(cl, answers, time.Since(since))
	return beginning{join: step == etcdcluster.Join, initial: etcdcluster.Initial(cl, members)}, step, answers, err
}

// live is the life of a member of a cluster: it waits for the others, runs etcd, and reports its end.
func (n *Node) live(from beginning, step etcdcluster.Step, wait *waiting) {
	defer close(n.watched)
	defer close(n.errc)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		defer cancel()
		select {
		case <-n.closing:
		case <-stopped:
		}
	}()
	if wait != nil {
		var err error
		if from, err = n.await(ctx, from, step); err != nil {
			wait.close()
			if ctx.Err() == nil {
				n.end(err)
			}
			return
		}
		wait.close() // etcd listens there next
	}
	lctx, done := context.WithTimeoutCause(ctx, max(n.cfg.StartTimeout, clusterMin), fmt.Errorf("etcd in %s did not start within %s", n.cfg.DataDir, max(n.cfg.StartTimeout, clusterMin)))
	err := n.launch(lctx, from)
	done()
	if err == nil {
		err = os.Chmod(n.socket, 0o600)
	}
	if err != nil {
		n.failed = true
		if ctx.Err() == nil {
			n.end(err)
		}
		return
	}
	n.room.look()
	n.allocate()
	n.helpers.Go(n.watchRoom)
	n.serve(ctx)
}

// await waits until the others have said how to begin.
func (n *Node) await(ctx context.Context, from beginning, step etcdcluster.Step) (beginning, error) {
	since := time.Now()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var told time.Time
	for step == etcdcluster.Wait {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return from, ctx.Err()
		}
		var answers []etcdcluster.Answer
		var err error
		if from, step, answers, err = n.ask(ctx, since); err != nil {
			return from, err
		}
		if step == etcdcluster.Wait && time.Since(told) >= tellEvery {
			told = time.Now()
			n.cfg.Logger.Info("waiting for a quorum: the cluster has not begun", "nodes", len(n.cfg.Cluster.Peers),
				"missing", etcdcluster.Missing(*n.cfg.Cluster, answers), "waited", time.Since(since).Round(time.Second).String())
		}
	}
	what := "a new cluster begins"
	if step == etcdcluster.Join {
		what = "joining the cluster"
	}
	n.cfg.Logger.Info(what, "members", from.initial)
	return from, nil
}

// serve waits until the member serves, and then for its end.
func (n *Node) serve(ctx context.Context) {
	ready := n.etcd.Server.ReadyNotify()
	begun := time.Now()
	tell := time.NewTicker(tellEvery)
	defer tell.Stop()
	var err error
	stopped := false // by etcd's own decision, not by a fault
	for err == nil {
		select {
		case <-ready:
			ready = nil
			tell.Stop()
			n.cfg.Logger.Info("store started", "region", string(n.cfg.Region), "node", n.cfg.Node, "dir", n.cfg.DataDir, "endpoint", n.Endpoint(),
				"cluster", len(n.etcd.Server.Cluster().Members()), "took", time.Since(begun).Round(time.Millisecond).String())
			if n.cfg.UpkeepInterval > 0 {
				n.helpers.Go(n.keep)
			}
			close(n.ready)
		case <-tell.C:
			n.tellWaiting(ctx, begun)
		case err = <-n.fatal.first:
		case e := <-n.etcd.Err():
			err, stopped = fmt.Errorf("%w: %v", ErrFatal, e), true
		case <-n.etcd.Server.StopNotify():
			err, stopped = fmt.Errorf("%w by itself", ErrFatal), true
		case <-n.closing:
			return
		}
	}
	if n.removed() || stopped && n.removedMeanwhile(ctx) {
		err = fmt.Errorf("%w: it was removed; to have it back move %s away and run nearside region member add %s=%s",
			etcdcluster.ErrNotMember, n.dir.etcd(), n.cfg.Node, n.cfg.Cluster.Peers[n.cfg.Node])
	}
	n.end(err)
}

// tellWaiting says whom a member that does not serve waits for.
func (n *Node) tellWaiting(ctx context.Context, begun time.Time) {
	answers, err := etcdcluster.Ask(ctx, *n.cfg.Cluster)
	if err != nil {
		return
	}
	n.cfg.Logger.Warn("waiting for a quorum: the store serves once most of its members run", "members", len(n.etcd.Server.Cluster().Members()),
		"missing", etcdcluster.Missing(*n.cfg.Cluster, answers), "waited", time.Since(begun).Round(time.Second).String())
}

// removed reports whether the cluster has struck this member off.
func (n *Node) removed() bool {
	c := n.etcd.Server.Cluster()
	return len(c.Members()) > 0 && c.Member(n.etcd.Server.MemberID()) == nil
}

// removedMeanwhile reports the same of a member that was removed while it did not run: its own list still has
// it, and the others do not speak to it.
func (n *Node) removedMeanwhile(ctx context.Context) bool {
	answers, err := etcdcluster.Ask(ctx, *n.cfg.Cluster)
	if err != nil {
		return false
	}
	s := n.etcd.Server
	return etcdcluster.StruckOff(answers, s.Cluster().ID().String(), uint64(s.MemberID()))
}

// waiting tells whoever asks that this node has no data and waits.
type waiting struct {
	server *http.Server
	ended  chan struct{}
}

func listenWaiting(cl etcdcluster.Config) (*waiting, error) {
	l, err := listenPeers(cl)
	if err != nil {
		return nil, err
	}
	w := &waiting{ended: make(chan struct{}), server: &http.Server{
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(etcdcluster.HeaderWaiting, string(cl.Region)+"/"+cl.Node)
			w.WriteHeader(http.StatusServiceUnavailable)
		}),
	}}
	go func() {
		defer close(w.ended)
		_ = w.server.Serve(l) // ends by close
	}()
	return w, nil
}

// close frees the address.
func (w *waiting) close() {
	_ = w.server.Close()
	<-w.ended
}

// listenPeers listens where etcd will, with the same demands on whoever connects.
func listenPeers(cl etcdcluster.Config) (net.Listener, error) {
	info := cl.TLSInfo()
	var l net.Listener
	var err error
	if cl.TLS == nil {
		l, err = net.Listen("tcp", bindable(cl.Listen))
	} else {
		l, err = transport.NewListener(bindable(cl.Listen), "https", &info)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: --etcd-peer-addr: %s is in use by another program; stop it, or choose another port there and in every node's --cluster", etcdcluster.ErrAddress, cl.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: --etcd-peer-addr %s: %w", etcdcluster.ErrAddress, cl.Listen, err)
	}
	return l, nil
}

// bindable gives an address without a host the one that means all: etcd wants to see it.
func bindable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || host != "" {
		return listen
	}
	if l, err := net.Listen("tcp6", "[::]:0"); err == nil {
		_ = l.Close()
		return net.JoinHostPort("::", port)
	}
	return net.JoinHostPort("0.0.0.0", port)
}
