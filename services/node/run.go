package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearside/nearside/federation/mesh"
	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/region/httpapi"
	"github.com/nearside/nearside/region/kv"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/sdk/api"
)

// drainTime is how long a stopping node answers requests that are under way.
const drainTime = 5 * time.Second

// goodbyeTime is how long readers in other regions have to take the goodbye.
const goodbyeTime = time.Second

// Run starts a node from a normalized cfg and returns when ctx ends (nil after a clean
// stop) or when the node cannot go on. When etcd ends, the node goes on from memory, and
// Run returns an error that wraps ErrRestart once a new process could bring the store back. Logs go to logs; cfg.ReadyFile is written once the
// node serves, and removed at start and end.
func Run(ctx context.Context, cfg Config, logs io.Writer) error {
	log, err := newLogger(cfg, logs)
	if err != nil {
		return err
	}
	log = log.With("region", string(cfg.Region), "node", cfg.Node)
	secure, err := cfg.tlsParts()
	if err != nil {
		return err
	}
	if err := makeDataDir(cfg.DataDir); err != nil {
		return err
	}
	meters, err := newTelemetry()
	if err != nil {
		return err
	}
	defer meters.Close(context.WithoutCancel(ctx))

	for _, flag := range cfg.NoEffect {
		log.Warn(flag + " has no effect: what it is for is not in this version")
	}
	if cfg.TLSCert == "" && !cfg.Dev && !cfg.Federated() {
		log.Info("the federation is off: without --tls-cert and --tls-ca no peer could prove who it is")
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

	etcd, err := etcdnode.Start(ctx, etcdnode.Config{
		Region: cfg.Region, Node: cfg.Node, DataDir: filepath.Join(cfg.DataDir, "etcd"), Logger: log,
	})
	if err != nil {
		return err
	}
	defer etcd.Close()
	stopMeters, err := observeSpace(meters.provider, etcd)
	if err != nil {
		return err
	}
	defer stopMeters()
	// The data directory is ours from here on, and with it the token in it and the ready
	// file: a second node that is started by mistake must not touch those of the first.
	if err := removeReady(cfg.ReadyFile); err != nil {
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
	records, err := etcdstore.Open(ctx, etcdstore.Config{Endpoints: []string{etcd.Endpoint()}, Region: cfg.Region, Room: etcd.Room, Logger: log})
	if err != nil {
		return err
	}
	defer records.Close()

	scheme := "http"
	if secure.api != nil {
		scheme = "https"
	}
	advertised := cfg.advertised(apiListener)
	public := []string{scheme + "://" + advertised}
	advertisedHost, _, _ := net.SplitHostPort(advertised)
	n := &node{cfg: cfg, log: log, fatal: etcd.Err()}
	n.closing, n.close = context.WithCancel(context.WithoutCancel(ctx))
	defer n.close()
	rc := registry.Config{
		Region: cfg.Region, Zone: cfg.Zone, Node: cfg.Node, Store: records, Room: etcd.Room, Addresses: public,
		Authorizer: access, Logger: log, MeterProvider: meters.provider, HighWater: newHighWater(cfg.DataDir),
		Events: history,
	}
	if rc.Prober, err = cfg.prober(apiListener, peerListener); err != nil {
		return err
	}
	source := &source{}
	if cfg.Federated() {
		n.mesh, err = mesh.New(mesh.Config{
			Region: cfg.Region, Node: cfg.Node, Peers: cfg.Peers, Source: source, DataDir: cfg.DataDir,
			Addresses: public, HTTPClient: secure.peers, PeerRegion: secure.peerRegion, VerifyPeer: secure.verifyPeer,
			OnLink: n.tellLink, Logger: log, MeterProvider: meters.provider,
		})
		if err != nil {
			return err
		}
		rc.Replicas = n.mesh
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
	door, err := httpapi.New(httpapi.Config{
		Registry: n.registry, KV: keys, Metrics: meters.handler, Region: cfg.Region, Node: cfg.Node, Logger: log,
		MeterProvider: meters.provider, AllowedHosts: append(cfg.AllowedHosts, advertisedHost), Closing: n.closing, Dev: cfg.Dev,
	})
	if err != nil {
		return err
	}
	n.api = httpapi.Server(door)
	n.api.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	ready := api.ReadyFile{
		PID: os.Getpid(), Region: cfg.Region, Zone: cfg.Zone, Node: cfg.Node, Version: version(),
		HTTP: localURL(scheme, apiListener), HTTPAddr: apiListener.Addr().String(), DataDir: cfg.DataDir,
	}
	if peerListener != nil {
		peerScheme := "http"
		if secure.federation != nil {
			peerScheme = "https"
		}
		ready.Federation, ready.FederationAddr = localURL(peerScheme, peerListener), peerListener.Addr().String()
	}
	defer removeReady(cfg.ReadyFile)
	return n.run(ctx, apiListener, peerListener, ready)
}

// source lets the federation read the registry that is made after it.
type source struct{ *registry.Registry }

func (s *source) Image() mesh.Image { return s.Snapshot() }

type node struct {
	cfg      Config
	log      *slog.Logger
	registry *registry.Registry
	mesh     *mesh.Mesh // nil without the federation role
	api      *http.Server
	peers    *http.Server
	closing  context.Context // ends when the node stops, and every stream with it
	close    context.CancelFunc
	fatal    <-chan error // etcd cannot go on
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
		ready.Epoch = n.registry.Stamp().Version.Epoch
		if err := writeReady(n.cfg.ReadyFile, ready); err != nil {
			return err
		}
		n.log.Info("ready", "http", ready.HTTP, "federation", ready.Federation, "data_dir", n.cfg.DataDir,
			"epoch", ready.Epoch.String(), "dev", n.cfg.Dev)
		return nil
	})
	doors.Go(func() error {
		var why error
		select {
		case <-doorsCtx.Done():
		case <-coreCtx.Done():
		case cause := <-n.fatal:
			serving, done := context.WithCancel(doorsCtx)
			stop := context.AfterFunc(coreCtx, done)
			why = outlive(serving, n.log, cause, func() (uint64, bool) { return freeBytes(n.cfg.DataDir) })
			stop()
			done()
		}
		n.tellStop(ctx, why)
		n.stopDoors(stopLoops)
		return why
	})
	err := doors.Wait()
	stopLoops()
	err = errors.Join(err, core.Wait())
	n.log.Info("stopped")
	return err
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
