package nearside

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Registration says what a program offers. Service, Address and Port are required.
type Registration struct {
	Service string // "orders", or "orders.namespace"
	// ID of this copy, unique within the service; empty = "<service>-<8 random hex digits>".
	// A fixed id (the host's name, say) lets a restarted program take its own place again.
	ID      string
	Address string // IP or host name by which callers reach it
	Port    int
	Ports   map[string]int // further ports by name, such as "grpc"
	Zone    api.Zone       // empty = Config.Zone
	// Weight is the share of calls compared with other instances; 0 = api.DefaultWeight.
	Weight   int
	Capacity int    // requests/s it can take; 0 = not told
	Version  string // of the program
	Tags     []string
	Metadata map[string]string
	// TTL is how long the registry waits for a heartbeat; 0 = api.DefaultTTL (15 s). Beats
	// are sent three times as often. Lower, and a dead program is forgotten sooner; but
	// callers notice a dead one by themselves, so that is seldom worth the traffic.
	TTL time.Duration
	// Checks are run by the registry, in addition to the heartbeats: the worse counts.
	Checks []api.Check
	// Starting registers the instance as starting: it gets no calls until SetStatus says
	// passing.
	Starting bool
	// DrainDelay is how long Close waits between telling callers to go elsewhere and
	// deregistering; 0 = 500 ms, below 0 = none. Calls that run longer need more.
	DrainDelay time.Duration
	// Load tells how much the program is used, in percent of what it can take: 100 is all of it,
	// api.MaxLoadPercent the most that counts, below 0 says nothing. It is asked for each
	// heartbeat, and the registry tells callers the mean of a service's instances in the
	// region: beyond 80 % a part of the calls goes to regions that have something to spare.
	// nil = nothing is told, and callers go by how many instances are left.
	//
	// It is called on a goroutine of its own, one call at a time (an Update begins anew), and should answer from memory:
	// a heartbeat waits 100 ms for it, and then goes without. After a panic it is not
	// asked again until the next Update. Close does not wait for a call that is under way.
	Load func() int
}

const (
	defaultDrainDelay = 500 * time.Millisecond
	// registerWait is how long Register waits for a registry that does not answer.
	registerWait = time.Second
)

// Registered is a program's place in the registry. Its loop keeps it there: it sends
// heartbeats, registers again when the registry lost the instance, and comes back as a
// new incarnation after the program was suspended. It is safe for concurrent use.
type Registered struct {
	c   *Client
	key api.InstanceKey

	commands chan command
	first    chan error // the end of the first registration; holds one
	stopped  chan struct{}
	stop     context.CancelFunc

	after time.Duration // how long the nodes asked to be left alone; owned by the loop
	gauge gauge         // of the load; owned by the loop

	closing  atomic.Bool
	closed   chan struct{} // closed when closeErr is set
	closeErr error

	mu      sync.Mutex
	said    Registration // as of the last Update that was not refused
	reg     api.Registration
	want    api.StatusChange // as of the last SetStatus; Status "" = none
	pending bool
	err     error
}

// Register registers the program with its home region, and keeps it registered until
// Close. It returns after the registry's acknowledgement, or with an error when the
// registry refuses (an *api.Error: a bad field, no permission). A registry that does not
// answer is no error: Register returns after a second, with Pending true, and goes on
// trying. When ctx ends before that, nothing stays behind and its error is returned. Only
// home is asked; another region never takes a registration over.
func (c *Client) Register(ctx context.Context, reg Registration) (*Registered, error) {
	if ctx == nil {
		return nil, errNoContext
	}
	r, err := c.newRegistered(reg)
	if err != nil {
		return nil, err
	}
	loop, cancel := context.WithCancel(c.ctx)
	r.stop = cancel
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		cancel()
		return nil, ErrClosed
	}
	c.registered[r] = struct{}{}
	c.wg.Go(func() {
		defer r.forget() // a superseded one too, whose owner may never close it
		r.run(loop)
	})
	c.mu.Unlock()

	timer := time.NewTimer(registerWait)
	defer timer.Stop()
	select {
	case err = <-r.first:
	case <-timer.C:
		c.log().Warn("registry does not answer; registering goes on in the background", "instance", r.key.String())
	case <-ctx.Done():
		err = fmt.Errorf("register %s: %w", r.key, ctx.Err())
	case <-c.ctx.Done():
		err = ErrClosed
	}
	if err != nil {
		r.end()
		return nil, err
	}
	return r, nil
}

func (c *Client) newRegistered(reg Registration) (*Registered, error) {
	key, err := parse(reg.Service, c.cfg.Namespace)
	if err != nil {
		return nil, err
	}
	id := reg.ID
	if id == "" {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails: it ends the program instead
		id = string(key.Service) + "-" + hex.EncodeToString(b[:])
	}
	if err := api.CheckInstanceID(id); err != nil {
		return nil, err
	}
	reg.ID = id
	said, wire, err := c.wire(reg)
	if err != nil {
		return nil, fmt.Errorf("register %s/%s: %w", key, id, err)
	}
	wire.Incarnation = newIncarnation(c.now().wall)
	return &Registered{
		c: c, key: api.InstanceKey{Namespace: key.Namespace, Service: key.Service, ID: api.InstanceID(id)},
		commands: make(chan command), first: make(chan error, 1), stopped: make(chan struct{}),
		closed: make(chan struct{}), pending: true,
		said: said, reg: wire,
	}, nil
}

// wire returns a registration of its own with what is empty filled in, and how the registry
// is told of it. The registry would say the same of what is wrong, but a program with a bad
// port should not have to find its registry first.
func (c *Client) wire(reg Registration) (Registration, api.Registration, error) {
	reg = reg.clone()
	if reg.DrainDelay == 0 {
		reg.DrainDelay = defaultDrainDelay
	}
	reg.DrainDelay = max(reg.DrainDelay, 0)
	if reg.TTL == 0 && !slices.ContainsFunc(reg.Checks, func(c api.Check) bool { return c.Kind == api.CheckTTL }) {
		reg.TTL = api.DefaultTTL // with checks too: this program sends heartbeats
	}
	if reg.Zone == "" {
		reg.Zone = c.cfg.Zone
	}
	w := reg.clone() // Normalize may change what it is given
	out := api.Registration{
		Address: w.Address, Port: w.Port, Ports: w.Ports, Zone: w.Zone, Capacity: w.Capacity, Version: w.Version,
		Tags: w.Tags, Metadata: w.Metadata, TTL: api.Duration(w.TTL), Checks: w.Checks,
	}
	if w.Weight != 0 {
		out.Weight = &w.Weight
	}
	if w.Starting {
		out.Status = api.StatusStarting
	}
	out, err := out.Normalize()
	return reg, out, err
}

func (reg Registration) clone() Registration {
	reg.Ports, reg.Metadata = maps.Clone(reg.Ports), maps.Clone(reg.Metadata)
	reg.Tags, reg.Checks = slices.Clone(reg.Tags), slices.Clone(reg.Checks)
	return reg
}

// newIncarnation returns a number that rises from one run of a program to the next: the
// time in milliseconds.
func newIncarnation(wall time.Time) uint64 { return uint64(max(wall.UnixMilli(), 1)) }

// ID returns the instance's id.
func (r *Registered) ID() api.InstanceID { return r.key.ID }

// Incarnation returns the number of the current incarnation; see Registration in sdk/api.
func (r *Registered) Incarnation() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reg.Incarnation
}

// Pending reports whether the registry has not acknowledged the current registration yet.
func (r *Registered) Pending() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pending
}

// Done returns a channel that is closed when the registration is over for good: after Close,
// or because a newer incarnation has the id, which Err tells then (ErrSuperseded). Who runs
// for the sake of the registration waits for it and ends.
func (r *Registered) Done() <-chan struct{} { return r.stopped }

// Err returns what is wrong with the registration, nil when all is well. ErrSuperseded is
// final: a newer incarnation has the id, and the loop has stopped (see Done). An *api.Error
// means that the registry refuses the registration for now (a token that ended, say); any
// other error that no node answered lately. In both cases the loop goes on.
func (r *Registered) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// SetStatus says how the program is: passing, warning, critical, draining or starting,
// with a note for people. The loop repeats it after a registration that was lost. It
// returns once the registry acknowledged it, or with an error; also after an error the
// status is sent again with the next beat.
func (r *Registered) SetStatus(ctx context.Context, status api.Status, note string) error {
	change := api.StatusChange{Status: status, Note: note}
	if err := change.Validate(); err != nil {
		return err
	}
	return r.do(ctx, command{status: &change})
}

// Close takes the program out of the registry: callers are told to go elsewhere
// (draining), DrainDelay passes with the heart still beating, and the instance is
// deregistered. It returns the error of the deregistration or of ctx. Whatever happens the
// loop has stopped; a registry that heard nothing forgets the instance after its TTL.
// Closing again waits for the first (or for its own ctx) and returns the same.
func (r *Registered) Close(ctx context.Context) error {
	if ctx == nil {
		return errNoContext
	}
	if r.closing.CompareAndSwap(false, true) {
		r.closeErr = r.close(ctx)
		close(r.closed)
		return r.closeErr
	}
	select {
	case <-r.closed:
		return r.closeErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Registered) close(ctx context.Context) error {
	defer r.end()
	if r.Pending() && r.Err() != nil {
		// Never acknowledged, as far as we know; what a lost answer may have left behind
		// is taken away without a drain.
		return r.do(ctx, command{deregister: true})
	}
	if err := r.SetStatus(ctx, api.StatusDraining, "shutting down"); err != nil {
		if errors.Is(err, ErrSuperseded) {
			return nil // the id is somebody else's now
		}
		if ctx.Err() != nil {
			return err
		}
	} else if !sleep(ctx, r.drainDelay()) {
		return ctx.Err()
	}
	return r.do(ctx, command{deregister: true})
}

// end stops the loop and waits for it.
func (r *Registered) end() {
	r.stop()
	<-r.stopped
	r.forget()
}

// forget is the end of what the client has to do with it.
func (r *Registered) forget() {
	r.stop()
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	delete(r.c.registered, r)
}
