package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearside/nearside/federation/mesh"
	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/region/httpapi"
	"github.com/nearside/nearside/region/kv"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/steering"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/readyfile"
)

// drainTime is how long a stopping node answers requests that are under way.
const drainTime = 5 * time.Second

// goodbyeTime is how long readers in other regions have to take the goodbye.
const goodbyeTime = time.Second

// readyLook is how often a node that has loaded looks whether it is ready.
const readyLook = 20 * time.Millisecond

// Run starts a node from a normalized cfg and returns when ctx ends (nil after a clean
// stop) or when the node cannot go on. A store that is away, at the start too, is no such reason. Logs go to
// logs, and nothing waits for it: lines that it does not take in time are lost, and it is told how many.
// cfg.ReadyFile is written once /readyz says that the node is ready, and removed at start and end.
func Run(ctx context.Context, cfg Config, logs io.Writer) error {
	log, closeLog, err := newLogger(cfg, logs)
	if err != nil {
		return err
	}
	defer closeLog() // the last of all, for the others have things to say
	secure, err := cfg.tlsParts()
	if err != nil {
		return err
	}
	if err := makeDataDir(cfg.DataDir); err != nil {
		return err
	}
	if err := readyfile.Check(cfg.ReadyFile); err != nil {
		return usage("give a file in a directory that this user may write to, or drop it", "--ready-file: %v", err)
	}
	sweep(cfg.DataDir, log)
	meters, err := newTelemetry()
	if err != nil {
		return err
	}
	defer meters.Close(context.WithoutCancel(ctx))

	for _, flag := range cfg.NoEffect {
		log.Warn(flag + " has no effect: what it is for is not in this version")
	}
	if cfg.federationOff != "" {
		log.Warn("the federation is off: " + cfg.federationOff)
	}
	defer tellHangups(cfg.hangups, log)()
	if c := secure.credentials; c != nil {
		stop, err := c.observe(meters.provider)
		if err != nil {
			return err
		}
		defer stop()
		looking, stopLooking := context.WithCancel(ctx)
		looked := make(chan struct{})
		go func() { defer close(looked); c.run(looking, cmp.Or(cfg.certificateLook, certificateLook), log) }()
		defer func() { stopLooking(); <-looked }()
	}
	if !cfg.Regional() {
		return runBeside(ctx, cfg, secure, meters, log)
	}
	apiListener, err := listen(ctx, "--http-addr", cfg.HTTPAddr, secure.api)
	if err != nil {
		return err
	}
	defer apiListener.Close()
	var peerListener net.Listener
	if cfg.Federated() {
		if peerListener, err = listen(ctx, "--federation-addr", cfg.FederationAddr, secure.federation); err != nil {
			return err
		}
		defer peerListener.Close()
	}

	opened, err := openStore(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer opened.Close()
	if opened.Space != nil {
		stopMeters, err := observeSpace(meters.provider, opened.Space)
		if err != nil {
			return err
		}
		defer stopMeters()
	}
	// The data directory is ours from here on, and with it the token in it and the ready
	// file: a second node that is started by mistake must not touch those of the first.
	sweepHalves(cfg.DataDir, log)
	if err := readyfile.Remove(cfg.ReadyFile); err != nil {
		return err
	}
	history, err := events.Open(events.Config{
		Dir: filepath.Join(cfg.DataDir, "events"), Region: cfg.Region, Node: cfg.Node, Logger: log, MeterProvider: meters.provider,
	})
	if err != nil {
		return err
	}
	defer closeEvents(history, log)
	access, err := cfg.authorizer()
	if err != nil {
		return err
	}
	scheme := "http"
	if secure.api != nil {
		scheme = "https"
	}
	advertised := cfg.advertised(apiListener)
	public := []string{scheme + "://" + advertised}
	advertisedHost, _, _ := net.SplitHostPort(advertised)
	n := &node{cfg: cfg, log: log, store: opened}
	n.closing, n.close = context.WithCancel(context.WithoutCancel(ctx))
	defer n.close()
	rc := registry.Config{
		Region: cfg.Region, Zone: cfg.Zone, Node: cfg.Node, Store: opened.Store, Room: opened.Room, Trouble: opened.Trouble, Members: opened.Members, Addresses: public,
		Authorizer: access, Logger: log, MeterProvider: meters.provider, HighWater: newHighWater(cfg.DataDir), Copy: newDiskCopy(cfg, opened.Room),
		Events: history, History: cfg.TestHistory, MaxWatches: cfg.TestMaxWatches,
	}
	callers, err := cfg.nodes(secure)
	if err != nil {
		return err
	}
	if callers != nil { // nil in a region of one node, and then no registry.Nodes either
		rc.Nodes = callers
	}
	if rc.Prober, err = cfg.prober(apiListener, peerListener); err != nil {
		return err
	}
	if c := secure.credentials; c != nil {
		rc.Conditions = func() []api.ReadinessCheck { return []api.ReadinessCheck{c.condition(time.Now())} }
	}
	source := &source{store: opened.Store, shared: cfg.several()}
	if cfg.Federated() || len(cfg.FederationURLs) > 0 {
		guard, err := cfg.guard(apiListener, peerListener)
		if err != nil {
			return err
		}
		mc := mesh.Config{
			Region: cfg.Region, Node: cfg.Node, Peers: cfg.Peers, Source: source, DataDir: cfg.DataDir,
			Addresses: public, HTTPClient: secure.peers, PeerRegion: secure.peerRegion, VerifyPeer: secure.verifyPeer,
			Signer: secure.signer, VerifyOrigin: secure.verifyOrigin, Near: mesh.Near{Only: cfg.FederationURLs},
			OnLink: n.tellLink, OnNotice: n.tellNotice, Probe: dataProbe(guard), Drained: source.drained, Heard: source.heard, Logger: log, MeterProvider: meters.provider,
		}
		if cfg.Federated() {
			mc.Near, mc.Doors = source.near(callers), []string{cfg.door(peerListener, secure.federation != nil)}
		}
		if n.mesh, err = mesh.New(mc); err != nil {
			return err
		}
		rc.Replicas, rc.Auditor = n.mesh, n.mesh
	}
	if cfg.Federated() {
		n.peers = httpapi.Server(n.mesh.Handler())
		n.peers.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	}
	if n.registry, err = registry.New(rc); err != nil {
		return err
	}
	source.Registry = n.registry
	keys, err := kv.New(kv.Config{Registry: n.registry, Logger: log, MeterProvider: meters.provider})
	if err != nil {
		return err
	}
	if n.steering, err = steering.New(steering.Config{Registry: n.registry, Logger: log, MeterProvider: meters.provider}); err != nil {
		return err
	}
	source.steering = n.steering
	door, err := httpapi.New(httpapi.Config{
		Registry: n.registry, KV: keys, Steering: n.steering, Metrics: meters.handler, Region: cfg.Region, Node: cfg.Node, Logger: log,
		MeterProvider: meters.provider, AllowedHosts: append(cfg.AllowedHosts, advertisedHost), Closing: n.closing, Dev: cfg.Dev,
	})
	if err != nil {
		return err
	}
	n.leaver.next = door
	n.api = httpapi.Server(&n.leaver)
	n.api.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	ready := api.ReadyFile{
		PID: os.Getpid(), Region: cfg.Region, Zone: cfg.Zone, Node: cfg.Node, Version: cmp.Or(cfg.Version, version()),
		HTTP: localURL(scheme, apiListener), HTTPAddr: apiListener.Addr().String(), DataDir: cfg.DataDir,
	}
	if peerListener != nil {
		peerScheme := "http"
		if secure.federation != nil {
			peerScheme = "https"
		}
		ready.Federation, ready.FederationAddr = localURL(peerScheme, peerListener), peerListener.Addr().String()
	}
	defer readyfile.Remove(cfg.ReadyFile)
	return n.run(ctx, apiListener, peerListener, ready)
}

// source lets the federation read the registry that is made after it.
type source struct {
	*registry.Registry
	steering *steering.Table
	store    store.Store
	shared   bool // other nodes write to the store too
}

// Barrier is where the store stands, for a reader that holds more than this node shows.
func (s *source) Barrier(ctx context.Context) (uint64, error) { return s.store.Barrier(ctx) }

// heard is when the node was last known to have all that its region has. One that is cut off from the
// store of several goes on showing what it has; it must not call that new.
func (s *source) heard() time.Time {
	now := time.Now()
	if !s.shared {
		return now
	}
	return now.Add(-s.Stamp().Age)
}

func (s *source) Image() mesh.Image { return s.Snapshot() }

// PlannedSince is what lost instances because an operator said so. A region that is drained is meant
// to lose everything.
func (s *source) PlannedSince(after api.Version) map[api.ServiceKey]struct{} {
	planned := s.Registry.PlannedSince(after)
	if s.drained() < 100 {
		return planned
	}
	keys, _ := s.ChangedSince(after)
	if planned == nil {
		planned = make(map[api.ServiceKey]struct{}, len(keys))
	}
	for _, k := range keys {
		planned[k] = struct{}{}
	}
	return planned
}

// drained is what the region decided about itself: its peers follow that.
func (s *source) drained() float64 { return s.steering.Own() }

type node struct {
	cfg      Config
	log      *slog.Logger
	registry *registry.Registry
	steering *steering.Table
	mesh     *mesh.Mesh // nil without the federation role
	api      *http.Server
	leaver   leaver
	peers    *http.Server
	closing  context.Context // ends when the node stops, and every stream with it
	close    context.CancelFunc
	store    *openedStore
}

// run is the run group. Order of the end: say "not ready", end streams, finish requests,
// then the federation (it saves its replicas) and the registry, and only then, in Run, the
// store: what is acknowledged has been written before its store goes. The event log comes
// between the two, with what the end itself has to tell.
func (n *node) run(ctx context.Context, apiListener, peerListener net.Listener, ready api.ReadyFile) error {
	n.tellStart(ready)
	loops, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLoops()
	core, coreCtx := errgroup.WithContext(loops)
	core.Go(func() error { return ended(loops, n.registry.Run(coreCtx)) })
	if n.mesh != nil {
		core.Go(func() error { return ended(loops, n.mesh.Run(coreCtx)) })
	}
	core.Go(func() error { n.followStore(coreCtx); return nil })
	core.Go(func() error { return n.steering.Run(coreCtx) })

	doors, doorsCtx := errgroup.WithContext(ctx)
	doors.Go(func() error { return serve(n.api, apiListener) })
	doors.Go(func() error {
		select {
		case <-doorsCtx.Done():
			return nil
		case <-coreCtx.Done():
			return nil
		case <-n.registry.Loaded():
		}
		if n.peers != nil {
			doors.Go(func() error { return serve(n.peers, peerListener) })
		}
		if !n.awaitReady(doorsCtx, coreCtx) {
			return nil
		}
		ready.Epoch = n.registry.Stamp().Version.Epoch
		n.log.Info("ready", "http", ready.HTTP, "federation", ready.Federation, "data_dir", n.cfg.DataDir,
			"epoch", ready.Epoch.String(), "dev", n.cfg.Dev)
		writeReadyFile(doorsCtx, coreCtx, n.cfg.ReadyFile, ready, n.log)
		return nil
	})
	doors.Go(func() error {
		var why error
		select {
		case <-doorsCtx.Done():
		case <-coreCtx.Done():
		case why = <-n.store.Fatal:
		}
		n.tellStop(ctx, why)
		if ctx.Err() != nil && coreCtx.Err() == nil {
			n.sayNotReady(coreCtx)
		}
		n.stopDoors(stopLoops)
		return why
	})
	err := doors.Wait()
	stopLoops()
	err = errors.Join(err, core.Wait())
	n.log.Info("stopped")
	return err
}

// awaitReady returns true as soon as the node does all of its work, as /readyz has it: a node of
// several that has loaded may not have found yet who owns liveness. It returns false when one of the contexts ended.
func (n *node) awaitReady(doors, core context.Context) bool {
	look := time.NewTicker(readyLook)
	defer look.Stop()
	for told := false; ; told = true {
		now := n.registry.Readiness()
		if now.Ready {
			return true
		}
		if !told {
			n.log.Info("loaded, and not ready yet", "cause", unready(now))
		}
		select {
		case <-look.C:
		case <-doors.Done():
			return false
		case <-core.Done():
			return false
		}
	}
}

// unready says what is wrong with a node that is not ready.
func unready(r api.Readiness) string {
	var causes []string
	for _, c := range r.Checks {
		if !c.OK {
			causes = append(causes, c.Name+": "+c.Cause)
		}
	}
	return strings.Join(causes, "; ")
}

// sayNotReady goes on serving for a while, so that whoever sends newcomers here looks
// elsewhere before they would be turned away.
func (n *node) sayNotReady(core context.Context) {
	n.registry.SetDraining()
	n.leaver.leaving.Store(true)
	if n.cfg.StopDelay <= 0 {
		return
	}
	n.log.Info("not ready any more, and stopping soon", "in", n.cfg.StopDelay.String())
	timer := time.NewTimer(n.cfg.StopDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-core.Done():
	}
}

// followStore tells the registry what becomes of the store before its calls find out.
func (n *node) followStore(ctx context.Context) {
	for {
		select {
		case <-n.store.Changed:
			n.registry.StoreChanged()
		case <-ctx.Done():
			return
		}
	}
}

// stopDoors ends both servers in order; it returns when no request is under way or
// drainTime is over.
func (n *node) stopDoors(stopLoops context.CancelFunc) {
	n.log.Info("stopping")
	n.registry.SetDraining()
	n.close()
	shutdown(n.api, drainTime)
	// No request is left that the loops would have to finish. The mesh says goodbye to its
	// readers when it ends, so that they need not wonder.
	stopLoops()
	if n.peers != nil {
		shutdown(n.peers, goodbyeTime)
	}
}

func shutdown(s *http.Server, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		_ = s.Close() // whoever is still there has had its time
	}
}

func serve(s *http.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ended turns the end that was asked for into nil.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func makeDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--data-dir %s cannot be made: %w; create it, give this user the right to write there, or choose another", dir, err)
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return fmt.Errorf("--data-dir %s cannot be written: %w; give this user the right to write there, or choose another", dir, err)
	}
	probe.Close()
	return os.Remove(probe.Name())
}
