package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// registerFlags describe the instance.
type registerFlags struct {
	port                int
	serviceAddr         string
	id, zone, version   string
	tags, meta          []string
	weight, capacity    int
	ttl                 time.Duration
	check               string
	drain, stopPatience time.Duration
}

func (a *app) registerCommand() *cobra.Command {
	var f registerFlags
	c := &cobra.Command{
		Use:   "register SERVICE (--port N | --service-addr HOST:PORT) [flags] [-- COMMAND ARGS…]",
		Short: "Register an instance, and run its program",
		Long: `Register an instance of SERVICE and keep it registered with heartbeats.

With -- COMMAND, run the program as a child: register it once its port accepts
connections (or --check passes), and when a signal comes first drain and deregister it,
then pass the signal on. The program finds NEARSIDE_SERVICE and NEARSIDE_INSTANCE_ID in
its environment. The exit code is the program's own.

Without a command, register at once and stay until interrupted; then deregister and exit 0.

A registry that does not answer stops nothing: registering goes on in the background.`,
		Example: `  nearside register web --port 8080 -- ./web --listen :8080
  nearside register web --port 8080 --check http=/healthz --zone a --tag blue -- ./web
  nearside register legacy --service-addr 10.0.0.9:3306 --meta owner=shop`,
		Args: func(c *cobra.Command, args []string) error {
			dash := c.ArgsLenAtDash()
			if dash < 0 {
				dash = len(args)
			}
			if err := argCount(1, 1, "the service")(c, args[:dash]); err != nil {
				return err
			}
			if c.ArgsLenAtDash() >= 0 && len(args) == dash {
				return usagef(c, "there is no command after --")
			}
			return nil
		},
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			return s.register(ctx, args[0], args[1:], f)
		}),
	}
	fs := c.Flags()
	fs.IntVar(&f.port, "port", 0, "port of the instance, on this host's address towards the registry")
	fs.StringVar(&f.serviceAddr, "service-addr", "", "HOST:PORT where callers reach the instance, instead of --port")
	fs.StringVar(&f.id, "id", "", "instance id; default SERVICE-HOST-PORT, so that a restart takes its place back")
	fs.StringVar(&f.zone, "zone", "", "zone of the instance")
	fs.StringVar(&f.version, "service-version", "", "version of the program")
	fs.StringArrayVar(&f.tags, "tag", nil, "tag; repeatable")
	fs.StringArrayVar(&f.meta, "meta", nil, "metadata KEY=VALUE; repeatable")
	fs.IntVar(&f.weight, "weight", api.DefaultWeight, "share of traffic among its equals, 1 to "+strconv.Itoa(api.MaxWeight))
	fs.IntVar(&f.capacity, "capacity", 0, "requests per second it can take; 0 = not told")
	fs.DurationVar(&f.ttl, "ttl", api.DefaultTTL, "how long it stays known without a heartbeat")
	fs.StringVar(&f.check, "check", "", "what must pass before it is registered, asked on this host: tcp, tcp=PORT, http=/PATH, http=:PORT/PATH or none; default tcp with a command, none without")
	fs.DurationVar(&f.drain, "drain", 500*time.Millisecond, "how long to go on serving, marked as draining, before it is deregistered and the program gets the signal")
	fs.DurationVar(&f.stopPatience, "stop-timeout", 10*time.Second, "how long the program may take to stop before it is killed")
	return c
}

// register keeps an instance registered for as long as its program runs (command is its
// command line), or until a signal when there is no command.
func (s *session) register(ctx context.Context, service string, command []string, f registerFlags) error {
	reg, err := s.registration(service, f)
	if err != nil {
		return err
	}
	name := service + "/" + reg.ID
	check := f.check
	if check == "" {
		check = "none"
		if len(command) > 0 {
			check = "tcp"
		}
	}
	probe, err := parseProbe(check, reg.Address, reg.Port)
	if err != nil {
		return usagef(s.cmd, "%s", err)
	}
	sdk, err := nearside.New(nearside.Config{
		Addresses: s.client.addrs, Namespace: s.ns, Token: s.client.token, HTTPClient: s.client.http, App: "nearside-register",
		Logger: slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	defer sdk.Close()

	signals, endSignals := s.notifySignals()
	defer endSignals()
	var ch *child
	if len(command) > 0 {
		env := []string{"NEARSIDE_SERVICE=" + service, "NEARSIDE_INSTANCE_ID=" + reg.ID}
		if ch, err = startChild(command, env, s.stdin, s.stdout, s.stderr); err != nil {
			return err
		}
	}

	end, err := until(ctx, ch, signals, func(ctx context.Context) error { return s.awaitProbe(ctx, probe) })
	if end.early() {
		return s.stopUnregistered(ch, end, signals, f.stopPatience)
	}
	if err != nil {
		return err
	}
	var registered *nearside.Registered
	end, err = until(ctx, ch, signals, func(ctx context.Context) (err error) {
		// Not cut short: a request on its way may be acknowledged all the same, and then has
		// to be taken back. It takes a second at most.
		registered, err = sdk.Register(context.WithoutCancel(ctx), reg)
		return err
	})
	if err != nil && !end.early() {
		if ch != nil {
			ch.stop(syscall.SIGTERM, signals, f.stopPatience)
		}
		return err
	}
	if registered == nil {
		return s.stopUnregistered(ch, end, signals, f.stopPatience)
	}
	if !end.early() {
		if registered.Pending() {
			s.note("%s waits for the registry to answer", name)
		} else {
			s.note("registered %s at %s", name, hostPort(reg.Address, reg.Port))
		}
		end, err = until(ctx, ch, signals, func(ctx context.Context) error { return untilSuperseded(ctx, registered, ch != nil) })
	}
	s.unregister(ctx, name, registered, ch, &end, signals, f.drain)
	if stopErr := s.stopChild(ch, end, signals, f.stopPatience); stopErr != nil {
		return stopErr
	}
	if end.early() {
		return nil
	}
	return err
}

// awaitProbe waits for the probe, and says so when it takes longer than people expect.
func (s *session) awaitProbe(ctx context.Context, p probe) error {
	const quiet = 3 * time.Second
	said := time.AfterFunc(quiet, func() { s.note("waiting for %s", p) })
	defer said.Stop()
	return p.wait(ctx)
}

// untilSuperseded returns when a newer incarnation has taken the id, or when ctx ends. A
// program goes on all the same (its log tells); without one there is nothing left to do.
func untilSuperseded(ctx context.Context, r *nearside.Registered, hasProgram bool) error {
	if hasProgram {
		<-ctx.Done()
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-r.Done():
	}
	if err := r.Err(); !errors.Is(err, nearside.ErrSuperseded) {
		return err
	}
	return &cliError{
		exit: ExitConflict, code: api.CodeStaleIncarnation, err: nearside.ErrSuperseded,
		detail: fmt.Sprintf("a newer incarnation of %s is registered", r.ID()),
		remedy: "it goes on without this one; give another --id to run both",
	}
}

// unregister drains the instance, unless its program is gone already, and deregisters it.
// A further signal ends the drain. When the program ends meanwhile, end says so afterwards.
func (s *session) unregister(ctx context.Context, name string, r *nearside.Registered, ch *child, end *ending, signals <-chan os.Signal, drain time.Duration) {
	ctx = context.WithoutCancel(ctx)
	const within = 1500 * time.Millisecond // for each answer: a stop must end before a container is killed
	if end.signal != nil && drain > 0 && r.Err() == nil {
		cut, _ := until(ctx, ch, signals, func(ctx context.Context) error {
			ask, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			if err := r.SetStatus(ask, api.StatusDraining, "shutting down"); err != nil {
				return err // nobody was told to go elsewhere: there is nothing to wait for
			}
			timer := time.NewTimer(drain)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			return nil
		})
		if cut.early() {
			end.childGone = cut.childGone
		}
	}
	ask, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := r.Close(ask); err != nil {
		s.note("%s was not deregistered (%s); the registry forgets it after its TTL", name, asCLI(err).Error())
		return
	}
	s.note("deregistered %s", name)
}

// stopChild passes the signal in end on, waits for the program, and returns how it ended.
func (s *session) stopChild(ch *child, end ending, signals <-chan os.Signal, patience time.Duration) error {
	if ch == nil {
		return nil
	}
	sig := end.signal
	if sig == os.Interrupt && isTerminal(s.stdin) {
		sig = nil // the terminal has sent it to the program as well
	}
	ch.stop(sig, signals, patience)
	return ch.result()
}

// stopUnregistered is stopChild before there is anything to deregister.
func (s *session) stopUnregistered(ch *child, end ending, signals <-chan os.Signal, patience time.Duration) error {
	if ch == nil {
		return &cliError{exit: ExitInterrupted, detail: "interrupted before the instance was registered"}
	}
	return s.stopChild(ch, end, signals, patience)
}

// ending says why a phase of register ended.
type ending struct {
	childGone bool
	signal    os.Signal // that asked for the end
}

func (e ending) early() bool { return e.childGone || e.signal != nil }

// until does work until it ends by itself, the child ends, or a signal or ctx asks for the
// end; then work's context ends, and until waits for it. A hang-up is the program's
// business (many reload on it), so it is passed on when there is one.
func until(ctx context.Context, ch *child, signals <-chan os.Signal, work func(context.Context) error) (ending, error) {
	workCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- work(workCtx) }()
	var childDone <-chan struct{}
	if ch != nil {
		childDone = ch.done
	}
	var end ending
	for !end.early() {
		select {
		case err := <-result:
			return ending{}, err
		case <-childDone:
			end.childGone = true
		case sig := <-signals:
			if sig == syscall.SIGHUP && ch != nil {
				ch.signal(sig)
				continue
			}
			end.signal = sig
		case <-ctx.Done():
			end.signal = signalOf(signals)
		}
	}
	cancel()
	return end, <-result
}

// signalOf returns the signal that ended the program's context. Both come from the same
// signal, the context maybe a moment sooner; SIGTERM stands for one that never comes.
func signalOf(signals <-chan os.Signal) os.Signal {
	const moment = 50 * time.Millisecond
	timer := time.NewTimer(moment)
	defer timer.Stop()
	select {
	case sig := <-signals:
		return sig
	case <-timer.C:
		return syscall.SIGTERM
	}
}
