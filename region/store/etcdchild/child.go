package etcdchild

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/nearside/nearside/region/store/etcdnode"
)

// reportInterval is how often the child tells its sizes, and by it that etcd answers.
const reportInterval = 2 * time.Second

// exitOrphan is the exit code of a child whose node has died.
const exitOrphan = 3

// Main is the child: it takes its orders from stdin and runs the member until that ends or is to
// end; how it went is in its last report. The error is about the orders: somebody else than a
// Supervisor started it. When stdin ends without the word to stop, the node has died: Main then ends the process at
// once, as a member may be killed at any moment.
func Main(stdin io.Reader, stdout, stderr io.Writer) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	goFirst()
	in := bufio.NewReaderSize(stdin, maxLine)
	line, err := in.ReadSlice('\n')
	var o orders
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		err = d.Decode(&o)
	}
	if err != nil {
		return fmt.Errorf("%s is started by nearside server, which tells it what to do on its standard input: %w", Verb, err)
	}
	stop := make(chan struct{})
	go func() {
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				os.Exit(exitOrphan)
			}
			if string(bytes.TrimSpace(line)) == stopWord {
				close(stop)
				return
			}
		}
	}()
	out := &reporter{w: json.NewEncoder(stdout)}
	o.Member.Logger = slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: o.LogLevel}))
	run(o.Member, stop, out)
	return nil
}

// run is the member's life.
func run(cfg etcdnode.Config, stop <-chan struct{}, out *reporter) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	n, err := etcdnode.Start(ctx, cfg)
	if err != nil {
		out.send(report{Failed: newFailure(err)})
		return
	}
	began := n.Ready() // closed before Start returned, unless it is one of a cluster
	select {
	case <-began:
	default:
		out.send(report{Waiting: true})
	}
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		select {
		case <-began:
			began = nil
			out.send(report{Ready: &ready{Endpoint: n.Endpoint()}})
		case <-tick.C:
			s := n.Space()
			out.send(report{Space: &s})
		case err := <-n.Err():
			// Not closed: etcd may not be able to, and its end needs no order.
			out.send(report{Ended: newFailure(err)})
			return
		case <-stop:
			if err := n.Close(); err != nil {
				cfg.Logger.Warn("the store did not stop in good order", "cause", err)
			}
			return
		}
	}
}

// reporter writes reports. When nobody reads them any more the process is about to end.
type reporter struct {
	mu sync.Mutex
	w  *json.Encoder
}

func (r *reporter) send(m report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.w.Encode(m)
}
