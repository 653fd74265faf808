package grpcresolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// Scheme is that of targets: nearside:///orders, or nearside:///orders.shop for the service
// of another namespace.
const Scheme = "nearside"

// PortName is the named port of an instance that is called if it has one; else its main port
// is.
const PortName = "grpc"

// NewBuilder returns the resolver for grpc.WithResolvers. It is for programs that choose
// everything else themselves; others take [DialOptions], which has it and what belongs to it.
// Wrong options are told by the channel's first call. The client stays the caller's, and must
// outlive the channel.
func NewBuilder(c *nearside.Client, opts ...Option) resolver.Builder {
	return &builder{newSettings(c, opts)}
}

type builder struct{ set *settings }

// Scheme returns "nearside".
func (b *builder) Scheme() string { return Scheme }

// Build starts to watch the target's service.
func (b *builder) Build(target resolver.Target, cc resolver.ClientConn, opts resolver.BuildOptions) (resolver.Resolver, error) {
	if b.set.err != nil {
		return nil, b.set.err
	}
	service, err := serviceOf(target)
	if err != nil {
		return nil, err
	}
	if opts.DisableServiceConfig {
		return nil, errors.New("grpcresolver: the channel ignores service configs, by which the resolver names its balancer: remove grpc.WithDisableServiceConfig")
	}
	config := cc.ParseServiceConfig(b.set.config)
	if config.Err != nil {
		return nil, fmt.Errorf("grpcresolver: the service config is refused (look at WithServiceConfig and WithRetry): %w", config.Err)
	}
	r := &watch{set: b.set, service: service, cc: cc, config: config}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.ended.Go(func() { r.run(ctx) })
	return r, nil
}

// serviceOf returns the service that a target names.
func serviceOf(target resolver.Target) (string, error) {
	name := target.Endpoint()
	if target.URL.Host != "" {
		return "", fmt.Errorf("grpcresolver: target %s has a host: write %s:///%s, with three slashes", api.Quote(target.String()), Scheme, target.URL.Host)
	}
	service, ns, dotted := strings.Cut(name, ".")
	err := api.CheckServiceName(service)
	if err == nil && dotted {
		err = api.CheckNamespace(ns)
	}
	if err != nil {
		return "", fmt.Errorf("grpcresolver: target %s: write %s:///service or %s:///service.namespace: %w", api.Quote(target.String()), Scheme, Scheme, err)
	}
	return name, nil
}

// watch is the resolver of one channel: it hands on what the client's own watch says.
type watch struct {
	set     *settings
	service string
	cc      resolver.ClientConn
	config  *serviceconfig.ParseResult
	cancel  context.CancelFunc
	ended   sync.WaitGroup
}

// ResolveNow does nothing: what is known is up to date, and a registry that is away is
// looked for all the time.
func (w *watch) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the watch and waits for it.
func (w *watch) Close() {
	w.cancel()
	w.ended.Wait()
}

func (w *watch) run(ctx context.Context) {
	// The first answer is waited for like a first pick, so that calls fail with the reason
	// when there is none; the watch would stay silent.
	if _, err := w.set.client.Resolve(ctx, w.service); err != nil && ctx.Err() == nil {
		w.cc.ReportError(err)
	}
	if err := w.set.client.Watch(ctx, w.service, w.tell); ctx.Err() == nil {
		w.cc.ReportError(err)
	}
}

// told is what the resolver tells the balancer: a resolution that nobody changes any more.
type told struct {
	set     *settings
	service string
	res     api.Resolution
}

type toldKey struct{}

func (w *watch) tell(res api.Resolution) {
	_ = w.cc.UpdateState(w.state(res)) // the balancer needs no second try: the next change comes by itself
}

// state is a resolution as gRPC carries it.
func (w *watch) state(res api.Resolution) resolver.State {
	state := resolver.State{
		ServiceConfig: w.config,
		Attributes:    attributes.New(toldKey{}, &told{set: w.set, service: w.service, res: res}),
		Endpoints:     make([]resolver.Endpoint, len(res.Endpoints)), // for the channel's own traces
	}
	for i := range res.Endpoints {
		state.Endpoints[i].Addresses = []resolver.Address{{Addr: addressOf(&res.Endpoints[i])}}
	}
	return state
}

// addressOf returns where an endpoint is dialed.
func addressOf(e *api.Endpoint) string {
	port := e.Port
	if p, ok := e.Ports[PortName]; ok {
		port = p
	}
	return net.JoinHostPort(e.Address, strconv.Itoa(port))
}
