package grpcresolver

import (
	"context"
	"errors"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// picker asks the client for the instance of each call, among those with a connection. It
// never changes; the balancer gives gRPC a new one at each change.
type picker struct {
	set     *settings
	service string
	conns   map[key]*conn
	ok      func(*api.Endpoint) bool // usable

	serves  bool  // some needed connection is usable
	waiting bool  // some needed connection is being made
	reason  error // why no call can be made, when neither
}

// usable reports whether calls may go to an endpoint.
func (p *picker) usable(e *api.Endpoint) bool {
	c := p.conns[keyOf(e)]
	return c != nil && c.usable.Load()
}

// Pick returns the connection for a call. It does not block, and allocates nothing.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	where := nearside.Where{OK: p.ok, LastResort: !p.waiting, Safe: p.set.safe(info.FullMethodName)}
	var picked nearside.Picked
	var err error
	attempt := 0 // not known
	if t := p.triesOf(info.Ctx); t != nil {
		picked, attempt, err = t.pick(p, info.Ctx, where)
	} else {
		picked, err = p.set.client.PickWhere(info.Ctx, p.service, where)
	}
	if err != nil {
		return balancer.PickResult{}, p.explain(err)
	}
	describe(info.Ctx, p.service, &picked, attempt)
	c := p.conns[keyOf(&picked.Endpoint)]
	r := p.set.reports.Get().(*report)
	r.done = picked.Done
	return balancer.PickResult{SubConn: c.sc, Done: r.fn}, nil
}

// explain says what a call does that got no instance: it waits for the next picker, or fails
// as unavailable. None of these is a status, so that calls that wait for ready go on waiting.
func (p *picker) explain(err error) error {
	if !errors.Is(err, nearside.ErrNoneFits) {
		return err
	}
	// Nothing fits though something serves: the client already knows of other instances,
	// and will have told them in a moment.
	if p.waiting || p.serves {
		return balancer.ErrNoSubConnAvailable
	}
	return p.reason
}

// tries is what one call that may be repeated has tried so far. An interceptor puts it into
// the call's context: gRPC does not tell a picker which attempt of which call it picks for.
type tries struct {
	mu   sync.Mutex
	list []key
}

type triesKey struct{}

func (p *picker) triesOf(ctx context.Context) *tries {
	if len(p.set.retry) == 0 || ctx == nil {
		return nil
	}
	t, _ := ctx.Value(triesKey{}).(*tries)
	return t
}

// pick takes an instance that the call has not tried yet, in the last attempt one of another
// region than it has tried; if there is none, any. It also tells the number of the attempt.
func (t *tries) pick(p *picker, ctx context.Context, where nearside.Where) (nearside.Picked, int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	picked, err := nearside.Picked{}, error(nearside.ErrNoneFits)
	if n := len(t.list); n > 0 {
		again := where
		again.LastResort = false
		if n+1 >= maxAttempts {
			again.OK = func(e *api.Endpoint) bool {
				return p.usable(e) && !slices.ContainsFunc(t.list, func(k key) bool { return k.region == e.Region })
			}
			picked, err = p.set.client.PickWhere(ctx, p.service, again)
		}
		if err != nil {
			again.OK = func(e *api.Endpoint) bool { return p.usable(e) && !slices.Contains(t.list, keyOf(e)) }
			picked, err = p.set.client.PickWhere(ctx, p.service, again)
		}
	}
	if err != nil {
		picked, err = p.set.client.PickWhere(ctx, p.service, where)
	}
	if err == nil {
		t.list = append(t.list, keyOf(&picked.Endpoint))
	}
	return picked, len(t.list), err
}

// remember gives calls that may be repeated their memory.
func (s *settings) remember(ctx context.Context, method string) context.Context {
	if !s.safe(method) {
		return ctx
	}
	return context.WithValue(ctx, triesKey{}, &tries{})
}

func (s *settings) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(s.remember(ctx, method), method, req, reply, cc, opts...)
}

func (s *settings) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return open(s.remember(ctx, method), desc, cc, method, opts...)
}
