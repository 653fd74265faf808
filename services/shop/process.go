package shop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nearside/nearside/services/readyfile"
	"go.opentelemetry.io/otel/propagation"
)

const (
	// Shutting down: telling the registry, then finishing what is in flight, then traces.
	leaveTimeout  = 750 * time.Millisecond
	finishTimeout = 500 * time.Millisecond
	flushTimeout  = 250 * time.Millisecond
)

// process is the running services of one Run.
type process struct {
	cfg      Config
	traces   *tracing
	programs []*program
	failed   chan error // has room for every program to fail once at each of its two tasks
	serving  sync.WaitGroup
	joining  sync.WaitGroup // registrations under way
}

// program is one running service.
type program struct {
	*server
	listener net.Listener
	http     *http.Server
	peers    peers
	self     instance
	leave    func(context.Context) error // nil while not registered; owned by joining
}

// listen makes the programs, up to their listeners.
func (p *process) listen(ctx context.Context, dial dialer) error {
	for offset, name := range Services() {
		if !slices.Contains(p.cfg.Services, name) {
			continue
		}
		port := 0
		if p.cfg.PortBase != 0 {
			port = p.cfg.PortBase + offset
		}
		l, err := listen(ctx, name, net.JoinHostPort(p.cfg.Host, strconv.Itoa(port)))
		if err != nil {
			return err
		}
		prog := &program{listener: l}
		p.programs = append(p.programs, prog) // from here on close knows it
		if err := p.build(prog, name, dial); err != nil {
			return err
		}
	}
	return nil
}

func (p *process) build(prog *program, name string, dial dialer) error {
	id, log := p.cfg.id(name), p.cfg.Logger.With("service", name)
	provider := p.traces.provider(name, id, string(p.cfg.Region), string(p.cfg.Zone))
	var err error
	if prog.peers, err = dial(p.cfg.peerConfig(name, provider, log)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if prog.server, err = newServer(name, string(p.cfg.Region), id, newCaller(prog.peers.Transport(nil)), log); err != nil {
		return err
	}
	prog.self = instance{
		service: name, id: id, address: p.cfg.Advertise,
		port: prog.listener.Addr().(*net.TCPAddr).Port, zone: p.cfg.Zone, ttl: p.cfg.TTL,
	}
	prog.http = &http.Server{
		Handler:           prog.handler(provider, propagation.TraceContext{}),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return nil
}

// listen binds addr for a service and says clearly why it cannot.
func listen(ctx context.Context, service, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use by another program; stop it, choose other ports with --port-base, or use --port-base 0 for free ones", service, addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: no permission to listen on %s; choose ports from 1024 up with --port-base", service, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: %s is not an address of this machine; give --host one that is", service, addr)
	}
	return nil, fmt.Errorf("%s: %w", service, err)
}

func (p *process) serve() {
	for _, prog := range p.programs {
		p.serving.Go(func() {
			if err := prog.http.Serve(prog.listener); !errors.Is(err, http.ErrServerClosed) {
				p.failed <- fmt.Errorf("%s: %w", prog.name, err)
			}
		})
	}
}

// register starts all registrations at once, and waits for none.
func (p *process) register(ctx context.Context) {
	for _, prog := range p.programs {
		p.joining.Go(func() {
			leave, err := prog.peers.Register(ctx, prog.self)
			switch {
			case err == nil:
				prog.leave = leave
			case ctx.Err() == nil: // a definite no
				p.failed <- fmt.Errorf("%s: %w", prog.name, err)
			}
		})
	}
}

// announce waits until every registration was acknowledged or goes on in the background,
// and says that the shop is open.
func (p *process) announce(ctx context.Context) error {
	joined := make(chan struct{})
	go func() { p.joining.Wait(); close(joined) }() // ends with the registrations, which end with ctx
	select {
	case <-joined:
	case err := <-p.failed:
		return err
	case <-ctx.Done():
		return nil
	}
	ready := Ready{PID: os.Getpid(), Services: map[string]ReadyService{}}
	for _, prog := range p.programs {
		addr := net.JoinHostPort(prog.self.address, strconv.Itoa(prog.self.port))
		ready.Services[prog.name] = ReadyService{Addr: addr, ID: prog.self.id}
		prog.log.Info("serving", "addr", addr, "id", prog.self.id)
	}
	if err := readyfile.Write(p.cfg.ReadyFile, ready); err != nil {
		return err
	}
	if p.cfg.OnReady != nil {
		p.cfg.OnReady(ready)
	}
	return nil
}

// close ends everything that was begun; the context of run has ended.
func (p *process) close() {
	p.joining.Wait()
	var ending sync.WaitGroup
	for _, prog := range p.programs {
		ending.Go(prog.close)
	}
	ending.Wait()
	p.serving.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := errors.Join(p.traces.close(ctx), readyfile.Remove(p.cfg.ReadyFile)); err != nil {
		p.cfg.Logger.Warn("not all was put away", "error", err)
	}
}

// close leaves the registry, then finishes what is in flight, then lets go of the SDK, which
// requests in flight may still need. Leaving comes first so that callers hear of it
// before a listener closes.
func (g *program) close() {
	if g.server != nil {
		g.draining.Store(true)
	}
	if g.leave != nil {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
		if err := g.leave(ctx); err != nil {
			g.log.Warn("left without telling the registry; it will find out by the TTL", "error", err)
		}
		cancel()
	}
	if g.http != nil {
		ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
		if err := g.http.Shutdown(ctx); err != nil {
			_ = g.http.Close() // cuts what did not finish in time
		}
		cancel()
	}
	_ = g.listener.Close() // closed already, unless serving never began
	if g.peers != nil {
		if err := g.peers.Close(); err != nil {
			g.log.Warn("closing the SDK client", "error", err)
		}
	}
}
