// Package etcdnode runs one etcd member inside this process, alone or as one of a cluster: the
// store of a region whose nodes need no other server. It is the only package that imports etcd's server. A node
// runs it in a child process of its own (etcdchild); tools and tests run it in theirs.
//
// The member listens for clients on a unix socket in a private directory and nowhere else: no TCP,
// no HTTP gateway. Only one of a cluster has a peer port, with TLS both ways. Clients (etcdstore) use Endpoint. A member is crash-only: it
// may be killed at any moment and started again on the same directory.
//
// One process runs at most one member per directory; a second Start gets ErrLocked at
// once. Members of several regions may share a process (tests do), though etcd keeps a few
// settings and its metrics per process.
package etcdnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"

	"github.com/nearside/nearside/region/store/internal/zaplog"
)

// Node is a running member.
type Node struct {
	cfg   Config
	dir   *dataDir // nil once a start is abandoned
	etcd  *embed.Etcd
	fatal *fatalHook

	ready   chan struct{} // closed when the member serves
	errc    chan error    // buffered 1; written by watch only, closed when it ends
	closing chan struct{} // closed by Close
	watched chan struct{} // closed when watch has ended
	failed  bool          // the member ended by itself, or did not start; written by Start, then by watch or live only, read after watched
	socket  string        // path of the client socket
	room    *room
	upkeep  upkeep
	tender  tender
	helpers sync.WaitGroup // what looks after disk and database; ends with closing or watched

	closeOnce sync.Once
	closeErr  error
}

// Start runs a member on cfg.DataDir and returns when it serves. ctx and
// cfg.StartTimeout bound the start only; the member runs until Close.
//
// A member of a cluster serves once a quorum of them runs, which may take any time. So with
// cfg.Cluster Start returns once it is known that nothing but that is missing: Ready tells when the member serves, and
// what goes wrong until then comes from Err.
//
// Errors wrap ErrLocked, ErrNotWritable, ErrNoSpace, ErrCorrupt, etcdcluster.ErrNotMember or store.ErrWrongRegion where
// they apply, and name the directory and the remedy. etcd's own start cannot be interrupted: when
// ctx ends meanwhile, what it starts is closed as soon as it is done.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	dir, err := openDir(ctx, cfg.DataDir, cfg.Region, memberLock, cfg.LockPatience)
	if err != nil {
		return nil, err
	}
	cfg.DataDir = dir.path
	diskLog := cfg.Logger
	if cfg.QuietDisk {
		diskLog = slog.New(slog.DiscardHandler)
	}
	n := &Node{
		cfg: cfg, dir: dir, socket: dir.socket, fatal: newFatalHook(), ready: make(chan struct{}),
		errc: make(chan error, 1), closing: make(chan struct{}), watched: make(chan struct{}),
		room: newRoom(dir.path, uint64(cfg.ReserveBytes), freeBytes, diskLog),
	}
	if cfg.salvage {
		err = n.prepareSalvage()
	} else if err = n.clearUnbegun(); err == nil {
		err = dir.checkMode(cfg.Cluster)
	}
	if err != nil {
		return nil, errors.Join(err, n.stop())
	}
	if cfg.Cluster != nil {
		return n.startInCluster(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.StartTimeout,
		fmt.Errorf("etcd in %s was not ready within %s", dir.path, cfg.StartTimeout))
	defer cancel()

	err = n.launch(ctx, beginning{})
	if err == nil {
		err = n.awaitReady(ctx)
	}
	if err != nil {
		n.failed = true
		if late := n.stop(); late != nil {
			cfg.Logger.Debug("after a start that failed", "error", late)
		}
		return nil, err
	}
	// The directory is 0700 already; this is the second lock on the same door.
	if err := os.Chmod(dir.socket, 0o600); err != nil {
		return nil, errors.Join(notWritable(dir.path, err), n.stop())
	}
	close(n.ready)
	go n.watch()
	n.room.look()
	n.allocate()
	n.helpers.Go(n.watchRoom)
	if cfg.UpkeepInterval > 0 {
		n.helpers.Go(n.keep)
	}
	cfg.Logger.Info("store started", "region", string(cfg.Region), "node", cfg.Node, "dir", dir.path, "endpoint", n.Endpoint())
	return n, nil
}

// launch starts etcd. A single member that starts serves at once, others once there is a quorum.
func (n *Node) launch(ctx context.Context, from beginning) error {
	type started struct {
		etcd *embed.Etcd
		err  error
	}
	done := make(chan started, 1)
	go func() {
		// etcd's fatal entries end this goroutine in the middle of StartEtcd; its plain
		// panics (a broken file it did not expect) are caught here.
		s := started{err: ErrFatal}
		defer func() {
			if p := recover(); p != nil {
				n.fatal.report(fmt.Sprint(p))
			}
			done <- s
		}()
		s.etcd, s.err = embed.StartEtcd(n.embedConfig(from))
	}()

	select {
	case s := <-done:
		n.etcd = s.etcd
		if s.err != nil {
			return n.startError(s.err)
		}
	case err := <-n.fatal.first:
		// It may be a goroutine of etcd's that ended, for whose result StartEtcd waits for ever.
		select {
		case s := <-done:
			n.etcd = s.etcd
		case <-time.After(fatalGrace):
			n.abandon(func() *embed.Etcd { return (<-done).etcd })
		}
		return n.startError(err)
	case <-ctx.Done():
		// StartEtcd takes no context.
		n.abandon(func() *embed.Etcd { return (<-done).etcd })
		return fmt.Errorf("region %s: %w; it was still reading its files: look at the disk and at the log above", n.cfg.Region, context.Cause(ctx))
	}
	return nil
}

// abandon leaves a start that cannot be interrupted: what it may still start is closed when
// it is done, and the directory stays locked until then.
func (n *Node) abandon(done func() *embed.Etcd) {
	dir := n.dir
	n.dir = nil
	go func() {
		if e := done(); e != nil {
			e.Close()
		}
		dir.release()
	}()
}

// awaitReady waits until etcd serves.
func (n *Node) awaitReady(ctx context.Context) error {
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for lost := 0; ; {
		select {
		case <-n.etcd.Server.ReadyNotify():
			return nil
		case err := <-n.fatal.first:
			return n.startError(err)
		case err := <-n.etcd.Err():
			return n.startError(fmt.Errorf("%w: %v", ErrFatal, err))
		case <-n.etcd.Server.StopNotify():
			return n.startError(fmt.Errorf("%w before it was ready", ErrFatal))
		case <-look.C:
			p := n.place()
			if lost++; !p.logIsBehind() {
				lost = 0
			}
			if lost >= lostLooks {
				return n.startError(fmt.Errorf("%w: the log in %s ends at entry %d, and the database holds what came up to entry %d: the end of the log was lost",
					ErrCorrupt, filepath.Join(n.dir.etcd(), "member", "wal"), p.committed, p.stored))
			}
		case <-ctx.Done():
			return fmt.Errorf("region %s: %w; %s: look at the disk and at the log above", n.cfg.Region, context.Cause(ctx), n.place())
		}
	}
}

// place is where a member that is not ready stands, in entries of its log.
type place struct{ leads, committed, applied, stored uint64 }

func (n *Node) place() place {
	s := n.etcd.Server
	stored, _ := schema.ReadConsistentIndex(s.Backend().ReadTx())
	return place{leads: s.Lead(), committed: s.CommittedIndex(), applied: s.AppliedIndex(), stored: stored}
}

// logIsBehind reports that the member leads with a log that ends before what its database
// holds: it would pass over every write until the log has caught up.
func (p place) logIsBehind() bool { return p.leads != 0 && p.committed < p.stored }

func (p place) String() string {
	if p.leads == 0 {
		return "it has not elected itself yet"
	}
	return fmt.Sprintf("it applied entry %d of %d", p.applied, p.committed)
}

// startError says what an operator can do about a start that failed.
func (n *Node) startError(err error) error {
	if errors.Is(err, ErrFatal) {
		select {
		case err = <-n.fatal.first:
		default:
		}
	}
	if damaged(err.Error()) && !errors.Is(err, ErrCorrupt) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("etcd in %s did not start: %w; if its files are damaged, restore a backup, or move %s away to start empty with a new epoch (instances register again by themselves)",
		n.cfg.DataDir, err, filepath.Join(n.cfg.DataDir, "etcd"))
}

// embedConfig draws the member: everything off that would open a door.
func (n *Node) embedConfig(from beginning) *embed.Config {
	c := embed.NewConfig()
	c.Name = n.cfg.Node
	c.Dir = n.dir.etcd()
	c.InitialClusterToken = "nearside-" + string(n.cfg.Region)

	client := url.URL{Scheme: "unix", Path: n.dir.socket}
	c.ListenClientUrls = []url.URL{client}
	c.AdvertiseClientUrls = []url.URL{client}
	// A single member has no peers, so nothing listens for them. etcd still wants a peer
	// URL on record; this one cannot be dialled.
	peer := url.URL{Scheme: "unix", Host: "nearside-single-member"}
	c.ListenPeerUrls = nil
	c.AdvertisePeerUrls = []url.URL{peer}
	c.InitialCluster = n.cfg.Node + "=" + peer.String()

	// The gateway would take JSON over HTTP from any web page (facts: Host and Origin
	// evil.example got 200). Empty lists mean "all", so each names a host that never is.
	c.EnableGRPCGateway = false
	c.CORS = map[string]struct{}{"https://nearside.invalid": {}}
	c.HostWhitelist = map[string]struct{}{"nearside.invalid": {}}

	// A lone member waits up to one election time-out for a leader that cannot exist before
	// it leads itself: measured 0.8 to 0.9 s to start with etcd's 1 s. With no network in
	// between, nothing else depends on it.
	c.TickMs = 20
	c.ElectionMs = 200

	// Compaction is upkeep's: etcd's own knows time but neither size nor a full disk.
	c.QuotaBackendBytes = n.cfg.QuotaBytes
	// Old log segments (64 MB each) and snapshots are of no use to a member without followers;
	// one more than etcd needs is kept, for whoever has to look into an accident.
	c.MaxWalFiles, c.MaxSnapFiles = 2, 2

	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zaplog.New(n.cfg.Logger.With("part", "etcd"), n.meaningless,
		zap.WithFatalHook(n.fatal), zap.WithPanicHook(n.fatal)))
	c.ForceNewCluster = n.cfg.salvage
	if n.cfg.Cluster != nil {
		from.draw(c, *n.cfg.Cluster)
	}
	return c
}

// watch reports the end of a member that was not asked to end.
func (n *Node) watch() {
	defer close(n.watched)
	defer close(n.errc)
	var err error
	select {
	case err = <-n.fatal.first:
	case e := <-n.etcd.Err():
		err = fmt.Errorf("%w: %v", ErrFatal, e)
	case <-n.etcd.Server.StopNotify():
		err = fmt.Errorf("%w by itself", ErrFatal)
	case <-n.closing:
		return
	}
	n.end(err)
}

// end notes that the member ended by itself.
func (n *Node) end(err error) {
	n.failed = true
	err = fmt.Errorf("region %s: etcd in %s: %w", n.cfg.Region, n.cfg.DataDir, err)
	n.cfg.Logger.Error("store ended; only a new process can start it again", "error", err)
	n.errc <- err
}

// Endpoint returns the member's address, "unix:///path/etcd.sock".
func (n *Node) Endpoint() string { return "unix://" + n.socket }

// Ready is closed when the member serves. It stays open when the member ends before that.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Err receives one error if the member ends by itself, and is closed after that or by Close. It wraps ErrFatal, or
// etcdcluster.ErrNotMember when it was refused by the others or removed. The member cannot be started again in this process: its files
// are still open in it.
func (n *Node) Err() <-chan error { return n.errc }

// Close stops the member and unlocks its directory. Close the clients first: etcd waits up
// to 5.4 s for open streams. After a fatal end etcd may not be able to stop: Close then gives
// up after 1 s, and the directory stays locked until the process ends.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		close(n.closing)
		<-n.watched
		n.helpers.Wait()
		n.closeErr = n.stop()
	})
	return n.closeErr
}

func (n *Node) stop() error {
	if n.dir == nil {
		return nil
	}
	if n.etcd != nil {
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.etcd.Close()
		}()
		limit := closeTimeout
		if n.failed {
			limit = time.Second
		}
		t := time.NewTimer(limit)
		defer t.Stop()
		select {
		case <-done:
		case <-t.C:
			return fmt.Errorf("etcd in %s did not stop within %s", n.dir.path, limit)
		}
	}
	n.dir.cleanSocket()
	n.dir.release()
	return nil
}
