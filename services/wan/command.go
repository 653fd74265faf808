package wan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/readyfile"
)

type usageError struct{ detail, remedy string }

func (e *usageError) Error() string { return e.detail + "; " + e.remedy }
func (e *usageError) ExitCode() int { return 2 }

// ReadyFile is what --ready-file holds once all links accept.
type ReadyFile struct {
	PID     int    `json:"pid"`
	Control string `json:"control,omitempty"` // base URL
	Links   []Info `json:"links"`
}

// Command returns the hidden "nearside wan", which runs links on loopback: for the demo, for
// trials by hand.
func Command() *cobra.Command {
	var (
		links          []string
		control, ready string
		delay, jitter  time.Duration
		d              Direction
	)
	cmd := &cobra.Command{
		Use:   "wan",
		Short: "Emulate links between regions on this machine: delay, jitter, loss, rate, blackholes",
		Long: `Emulate links between regions on this machine. Each --link is a relay on loopback in front
of one address; what it does to the bytes is set for both directions by the flags, and for
each direction and link by HTTP while it runs:

  curl http://CONTROL/links
  curl -X PUT http://CONTROL/links/a-b -d '{"up":{"delay":"300ms","loss":0.05},"down":{"blackhole":true}}'
  curl -X POST http://CONTROL/links/a-b/cut
  curl -X POST http://CONTROL/links/a-b/half-open`,
		Example: `  nearside wan --link a-b=127.0.0.1:7512,127.0.0.1:7402 --delay 40ms --jitter 5ms --control 127.0.0.1:7599`,
		Hidden:  true,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.Delay, d.Jitter = api.Duration(delay), api.Duration(jitter)
			return run(cmd.Context(), links, control, ready, Both(d), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringArrayVar(&links, "link", nil, "NAME=LISTEN,TARGET: two HOST:PORT, the first on loopback (repeatable)")
	f.DurationVar(&delay, "delay", 0, "how long a byte is on its way")
	f.DurationVar(&jitter, "jitter", 0, "added to the delay by chance, up to this")
	f.Int64Var(&d.Rate, "rate", 0, "bytes per second of a direction; 0 = no limit")
	f.Float64Var(&d.Loss, "loss", 0, "share of packets that are lost and repeated, 0 to 0.9")
	f.Float64Var(&d.Reset, "reset", 0, "share of chunks at which the connection is reset, 0 to 1")
	f.BoolVar(&d.Blackhole, "blackhole", false, "take bytes and pass none on")
	f.StringVar(&control, "control", "", "HOST:PORT on loopback for the control (default: none)")
	f.StringVar(&ready, "ready-file", "", "written when all links accept: JSON with addresses and pid")
	return cmd
}

func run(ctx context.Context, specs []string, control, ready string, p Profile, log io.Writer) error {
	if len(specs) == 0 {
		return &usageError{"no link is given", "use --link NAME=LISTEN,TARGET"}
	}
	if err := p.Check(); err != nil {
		return &usageError{err.Error(), "see nearside wan --help"}
	}
	links := map[string]Named{}
	defer func() { // of those that never ran
		for _, l := range links {
			_ = l.cfg.Listener.Close()
		}
	}()
	for _, s := range specs {
		name, addresses, _ := strings.Cut(s, "=")
		listen, target, ok := strings.Cut(addresses, ",")
		if !ok || !api.ValidInstanceID(name) {
			return &usageError{"--link " + api.Quote(s) + " is not a link", "write NAME=LISTEN,TARGET, such as a-b=127.0.0.1:7512,127.0.0.1:7402"}
		}
		if _, twice := links[name]; twice {
			return &usageError{"--link " + name + " is given twice", "each link has a name of its own"}
		}
		if _, _, err := net.SplitHostPort(target); err != nil {
			return &usageError{"--link " + name + ": target " + api.Quote(target) + " is no address", "write HOST:PORT"}
		}
		if err := onLoopback("--link "+name, listen); err != nil {
			return err
		}
		l, err := Listen(listen, target, p)
		if err != nil {
			return fmt.Errorf("--link %s: %w", name, err)
		}
		links[name] = Named{l, target}
	}
	if err := readyfile.Remove(ready); err != nil {
		return err
	}
	doc := ReadyFile{PID: os.Getpid()}
	server := &http.Server{Handler: Control(links), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	var door net.Listener
	if control != "" {
		if err := onLoopback("--control", control); err != nil {
			return err
		}
		var err error
		if door, err = net.Listen("tcp", control); err != nil {
			return fmt.Errorf("--control: %w", err)
		}
		doc.Control = "http://" + door.Addr().String()
		fmt.Fprintf(log, "control at %s/links\n", doc.Control)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	defer group.Wait()
	for _, name := range slices.Sorted(maps.Keys(links)) {
		l := links[name]
		doc.Links = append(doc.Links, Info{Name: name, Listen: l.Addr(), Target: l.Target, Profile: l.Profile()})
		fmt.Fprintf(log, "%s: %s -> %s\n", name, l.Addr(), l.Target)
		group.Go(func() {
			if err := l.Run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	if door != nil {
		group.Go(func() { _ = server.Serve(door) }) // ends with Close
		defer server.Close()
	}
	if err := readyfile.Write(ready, doc); err != nil {
		cancel(nil)
		return err
	}
	<-ctx.Done()
	_ = readyfile.Remove(ready)
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func onLoopback(what, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return &usageError{what + ": " + api.Quote(address) + " is no address", "write HOST:PORT, such as 127.0.0.1:7512"}
	}
	if !loopback(host) {
		return &usageError{what + ": " + address + " is not on loopback", "use 127.0.0.1: emulated links are for one machine"}
	}
	return nil
}
