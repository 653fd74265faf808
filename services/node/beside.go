package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nearside/nearside/federation/follow"
	"github.com/nearside/nearside/federation/mesh"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/region/httpapi"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/readyfile"
)

// beside is a federation that runs as its own process, beside the nodes of its region:
//
//	region's nodes --(API)--> follower ── mesh ──┬── peer door  --federation-addr
//	                                             └── httpapi    --http-addr (what it is doing)
type beside struct {
	cfg      Config
	log      *slog.Logger
	access   registry.Authorizer
	follower *follow.Follower
	mesh     *mesh.Mesh
	creds    *credentials // nil = no TLS
	api      *http.Server
	peers    *http.Server
	draining atomic.Bool
	closing  context.Context
	close    context.CancelFunc
}

// runBeside is Run for a configuration without the role region.
func runBeside(ctx context.Context, cfg Config, secure tlsParts, meters *telemetry, log *slog.Logger) error {
	// Not shared with a node: each has its replicas there, and the lock is the one that nodes take.
	held, member, err := etcdnode.Hold(filepath.Join(cfg.DataDir, "etcd"), cfg.Region)
	if err != nil {
		return err
	}
	defer held.Close()
	if member {
		return usage("give the federation a directory of its own", "--data-dir: %s is that of a node of the region", cfg.DataDir)
	}
	if err := readyfile.Remove(cfg.ReadyFile); err != nil {
		return err
	}
	apiListener, err := listen(ctx, "--http-addr", cfg.HTTPAddr, secure.api)
	if err != nil {
		return err
	}
	defer apiListener.Close()
	peerListener, err := listen(ctx, "--federation-addr", cfg.FederationAddr, secure.federation)
	if err != nil {
		return err
	}
	defer peerListener.Close()
	b := &beside{cfg: cfg, log: log, creds: secure.credentials}
	b.closing, b.close = context.WithCancel(context.WithoutCancel(ctx))
	defer b.close()
	if b.access, err = cfg.authorizer(); err != nil {
		return err
	}
	fc := follow.Config{Region: cfg.Region, URLs: cfg.RegionURLs, HTTPClient: &http.Client{Transport: cfg.homeTransport(secure)}, Logger: log}
	if !cfg.Dev {
		fc.Token = cfg.token
	}
	if b.follower, err = follow.New(fc); err != nil {
		return err
	}
	guard, err := cfg.guard(apiListener, peerListener)
	if err != nil {
		return err
	}
	b.mesh, err = mesh.New(mesh.Config{
		Region: cfg.Region, Node: cfg.Node, Peers: cfg.Peers, Source: b.follower, DataDir: cfg.DataDir,
		AddressesNow: b.follower.Addresses, Heard: b.follower.Heard, Drained: b.follower.Drained,
		Doors:      []string{cfg.door(peerListener, secure.federation != nil)},
		HTTPClient: secure.peers, PeerRegion: secure.peerRegion, VerifyPeer: secure.verifyPeer, Signer: secure.signer, VerifyOrigin: secure.verifyOrigin,
		OnNotice: b.tellNotice, Probe: dataProbe(guard), Logger: log, MeterProvider: meters.provider,
	})
	if err != nil {
		return err
	}
	advertisedHost, _, _ := net.SplitHostPort(cfg.advertised(apiListener))
	door, err := httpapi.NewBeside(httpapi.Config{
		Metrics: meters.handler, Region: cfg.Region, Node: cfg.Node, Logger: log, MeterProvider: meters.provider,
		AllowedHosts: append(cfg.AllowedHosts, advertisedHost), Closing: b.closing, Dev: cfg.Dev,
	}, b)
	if err != nil {
		return err
	}
	quiet := slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	b.api, b.peers = httpapi.Server(door), httpapi.Server(b.mesh.Handler())
	b.api.ErrorLog, b.peers.ErrorLog = quiet, quiet
	scheme := func(secured bool) string {
		if secured {
			return "https"
		}
		return "http"
	}
	ready := api.ReadyFile{
		PID: os.Getpid(), Region: cfg.Region, Node: cfg.Node, Version: cmp.Or(cfg.Version, version()), DataDir: cfg.DataDir,
		HTTP: localURL(scheme(secure.api != nil), apiListener), HTTPAddr: apiListener.Addr().String(),
		Federation: localURL(scheme(secure.federation != nil), peerListener), FederationAddr: peerListener.Addr().String(),
	}
	defer readyfile.Remove(cfg.ReadyFile)
	return b.run(ctx, apiListener, peerListener, ready)
}

// homeTransport reaches the API of this region's own nodes: before the token goes over a connection
// with TLS, its other end has shown a certificate of this region.
func (c *Config) homeTransport(secure tlsParts) *http.Transport {
	tr := secure.peers.Transport.(*http.Transport).Clone()
	if secure.api != nil {
		tr.DialTLSContext = c.dialHome(tr.DialTLSContext)
	}
	return tr
}

// run serves until ctx ends. The doors open at once: peers are told to come back while the region
// was not heard of, and whoever asks sees why.
func (b *beside) run(ctx context.Context, apiListener, peerListener net.Listener, ready api.ReadyFile) error {
	loops, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLoops()
	core, coreCtx := errgroup.WithContext(loops)
	core.Go(func() error { return asUsageError(b.follower.Run(coreCtx)) })
	core.Go(func() error { return ended(loops, b.mesh.Run(coreCtx)) })
	doors, doorsCtx := errgroup.WithContext(ctx)
	doors.Go(func() error { return serve(b.api, apiListener) })
	doors.Go(func() error { return serve(b.peers, peerListener) })
	doors.Go(func() error {
		if !b.awaitReady(doorsCtx, coreCtx) {
			return nil
		}
		ready.Epoch = b.follower.Version().Epoch
		b.log.Info("ready", "http", ready.HTTP, "federation", ready.Federation, "data_dir", b.cfg.DataDir, "follows", b.follower.Status().URL, "dev", b.cfg.Dev)
		writeReadyFile(doorsCtx, coreCtx, b.cfg.ReadyFile, ready, b.log)
		return nil
	})
	doors.Go(func() error {
		select {
		case <-doorsCtx.Done():
		case <-coreCtx.Done():
		}
		b.draining.Store(true)
		if ctx.Err() != nil && coreCtx.Err() == nil && b.cfg.StopDelay > 0 {
			select {
			case <-time.After(b.cfg.StopDelay):
			case <-coreCtx.Done():
			}
		}
		b.log.Info("stopping")
		b.close()
		stopLoops() // the mesh says goodbye to its readers
		shutdown(b.peers, goodbyeTime)
		shutdown(b.api, drainTime)
		return nil
	})
	err := doors.Wait()
	stopLoops()
	err = errors.Join(err, core.Wait())
	b.log.Info("stopped")
	return err
}

// asUsageError makes of what no retry cures a wrong configuration.
func asUsageError(err error) error {
	switch {
	case errors.Is(err, follow.ErrOtherRegion):
		return usage("correct --region-url or --region", "--region-url: %v", err)
	case errors.Is(err, follow.ErrRefused):
		return usage("give the token file of the region's nodes with --token-file", "--region-url: %v", err)
	}
	return err
}

func (b *beside) awaitReady(doors, core context.Context) bool {
	look := time.NewTicker(readyLook)
	defer look.Stop()
	for told := false; ; told = true {
		now := b.Readiness()
		if now.Ready {
			return true
		}
		if !told {
			b.log.Info("not ready yet", "cause", unready(now))
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

// age is how old the picture of the region is.
func (b *beside) age(s follow.Status, now time.Time) time.Duration {
	if s.Heard.IsZero() {
		return now.Sub(s.Since)
	}
	return now.Sub(s.Heard)
}

// Readiness implements httpapi.Beside: it is ready while it hears of its region.
func (b *beside) Readiness() api.Readiness {
	s := b.follower.Status()
	now := time.Now()
	region := api.ReadinessCheck{Name: "region", OK: s.Loaded && b.age(s, now) < readyAge}
	switch {
	case !s.Loaded:
		region.Cause = "no node of the region has told its services yet: " + cmp.Or(s.Err, "the first is being asked")
	case !region.OK:
		region.Cause = fmt.Sprintf("no node of the region was heard for %s: %s", b.age(s, now).Round(time.Second), cmp.Or(s.Err, "the stream is silent"))
	}
	stop := api.ReadinessCheck{Name: "shutdown", OK: !b.draining.Load()}
	if !stop.OK {
		stop.Cause = "the process is shutting down"
	}
	out := api.Readiness{Region: b.cfg.Region, Node: b.cfg.Node, Checks: []api.ReadinessCheck{region, stop}}
	if b.creds != nil {
		out.Checks = append(out.Checks, b.creds.condition(now))
	}
	out.Ready = true
	for _, c := range out.Checks {
		out.Ready = out.Ready && c.OK
	}
	return out
}

// readyAge is how old the picture of the region may be while the process counts as ready.
const readyAge = peer.SilenceLimit + 2*time.Second

// Stamp implements httpapi.Beside.
func (b *beside) Stamp() registry.Stamp {
	s := b.follower.Status()
	return registry.Stamp{Version: b.follower.Version(), Age: b.age(s, time.Now()), Source: api.SourceMemory, Region: b.cfg.Region}
}

// Federation implements httpapi.Beside.
func (b *beside) Federation(ctx context.Context) (api.FederationInfo, registry.Stamp, error) {
	if err := b.access.Authorize(ctx, registry.Access{Verb: registry.VerbRead}); err != nil {
		return api.FederationInfo{}, registry.Stamp{}, err
	}
	info, st := b.mesh.Info(), b.Stamp()
	info.Epoch, info.Revision = st.Version.Epoch, st.Version.Revision
	s := b.follower.Status()
	info.Follows = &api.FollowInfo{URL: s.URL, Node: s.Node, State: "unreachable", Since: s.Since, AgeMS: st.Age.Milliseconds(), LastError: s.Err}
	if s.Connected {
		info.Follows.State = "connected"
	}
	return info, st, nil
}

// tellNotice logs what a node writes to the region's event log, which this process does not have.
func (b *beside) tellNotice(c mesh.Notice) {
	b.log.Info("event", "kind", c.Kind, "subject", c.Region, "cause", c.Cause, "detail", c.Detail)
}

// VerifyRegion implements httpapi.Beside.
func (b *beside) VerifyRegion(ctx context.Context, region api.Region) (api.Verification, error) {
	if err := b.access.Authorize(ctx, registry.Access{Verb: registry.VerbRead}); err != nil {
		return api.Verification{}, err
	}
	return b.mesh.Verify(ctx, region)
}

// ResyncRegion implements httpapi.Beside.
func (b *beside) ResyncRegion(ctx context.Context, region api.Region) (api.ResyncInfo, error) {
	if err := b.access.Authorize(ctx, registry.Access{Verb: registry.VerbOperate}); err != nil {
		return api.ResyncInfo{}, err
	}
	info, err := b.mesh.Resync(region)
	if err == nil {
		b.tellNotice(mesh.Notice{Kind: api.EventResync, Region: region, Cause: api.BecauseRequest, Detail: "all rows are asked for anew"})
	}
	return info, err
}
