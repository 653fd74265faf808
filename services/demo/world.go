package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/child"
)

// startPatience is how long a region may take to come up.
const startPatience = 30 * time.Second

// place is one region of the demo: its ports, and its processes while it is up.
type place struct {
	region api.Region
	zones  [2]api.Zone
	http   string // host:port
	fed    string
	dir    string
	mu     sync.Mutex // guards procs and up
	procs  []*child.Process
	up     bool
}

// world is the whole demo. Its methods that change a region are called by one goroutine
// at a time per region (the schedule or the control door, under op).
type world struct {
	op      sync.Mutex // one change of the world at a time
	nursery *child.Nursery
	places  []*place
	rate    int
	report  *report
	notes   []string // for the screen: ports that moved
}

func newWorld(dir, host string, basePort, rate int, n *child.Nursery, rep *report) (*world, error) {
	w := &world{nursery: n, rate: rate, report: rep}
	taken := map[int]bool{}
	for i, r := range regions {
		p := &place{region: r, zones: [2]api.Zone{api.Zone(r) + "-a", api.Zone(r) + "-b"}, dir: filepath.Join(dir, string(r))}
		if err := os.MkdirAll(p.dir, 0o700); err != nil {
			return nil, err
		}
		for _, want := range []struct {
			addr *string
			port int
			what string
		}{{&p.http, basePort + 100*i, "API"}, {&p.fed, basePort + 100*i + 2, "federation"}} {
			port, err := freePort(host, want.port, taken)
			if err != nil {
				return nil, err
			}
			if port != want.port {
				w.notes = append(w.notes, fmt.Sprintf("port %d is busy: the %s of %s is on %d", want.port, want.what, r, port))
			}
			*want.addr = net.JoinHostPort(host, strconv.Itoa(port))
		}
		w.places = append(w.places, p)
	}
	return w, nil
}

// freePort returns want, or a port that the kernel picks when want is busy.
func freePort(host string, want int, taken map[int]bool) (int, error) {
	for _, port := range []int{want, 0, 0, 0} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			continue
		}
		got := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if !taken[got] {
			taken[got] = true
			return got, nil
		}
	}
	return 0, fmt.Errorf("no free port on %s", host)
}

func (w *world) place(r api.Region) *place {
	for _, p := range w.places {
		if p.region == r {
			return p
		}
	}
	return nil
}

// raise starts every process of a region and returns when its registry is ready and its
// shops serve.
func (w *world) raise(ctx context.Context, p *place) error {
	base := "http://" + p.http
	args := []string{
		"server", "--dev", "--region", string(p.region), "--zone", string(p.zones[0]), "--node", string(p.region) + "-1",
		"--data-dir", filepath.Join(p.dir, "registry"), "--http-addr", p.http, "--federation-addr", p.fed,
		"--ready-file", p.file("registry.ready"), "--log-format", "text",
	}
	for _, other := range w.places {
		if other != p {
			args = append(args, "--peer", string(other.region)+"=http://"+other.fed)
		}
	}
	if err := w.add(p, "registry", nil, args...); err != nil {
		return err
	}
	// Shops would start without it, and register a little later; then their first calls
	// would go to whichever region was up first.
	if err := p.await(ctx, "registry"); err != nil {
		return err
	}
	services := "storefront,catalog,orders,users"
	if hasPayments(p.region) {
		services += ",payments"
	}
	var waitFor []string
	for i, copyName := range []string{"a", "b"} {
		name := "shop-" + copyName
		err := w.add(p, name, nil, "shop", "run", "--region", string(p.region), "--zone", string(p.zones[i]), "--registry", base,
			"--services", services, "--instance", copyName, "--host", "127.0.0.1", "--ttl", "5s",
			"--snapshot-dir", filepath.Join(p.dir, name), "--ready-file", p.file(name+".ready"), "--trace-file", p.file(name+".spans"))
		if err != nil {
			return err
		}
		waitFor = append(waitFor, name)
	}
	err := w.add(p, "load", func(r io.Reader) { w.report.read(p.region, r) }, "shop", "load", "--region", string(p.region),
		"--zone", string(p.zones[0]), "--registry", base, "--rate", strconv.Itoa(w.rate), "--snapshot-dir", filepath.Join(p.dir, "load"), "--report", "-")
	if err != nil {
		return err
	}
	for _, name := range waitFor {
		if err := p.await(ctx, name); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.up = true
	p.mu.Unlock()
	return nil
}

func (w *world) add(p *place, name string, out func(io.Reader), args ...string) error {
	_ = os.Remove(p.file(name + ".ready"))
	proc, err := w.nursery.Spawn(string(p.region)+"/"+name, p.file(name+".log"), out, args...)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.procs = append(p.procs, proc)
	p.mu.Unlock()
	return nil
}

func (p *place) file(name string) string { return filepath.Join(p.dir, name) }

func (p *place) find(name string) *child.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, proc := range p.procs {
		if proc.Name() == string(p.region)+"/"+name {
			return proc
		}
	}
	return nil
}

// await returns once the child has written its ready file, or says why it never will.
func (p *place) await(ctx context.Context, name string) error {
	proc := p.find(name)
	path := p.file(name + ".ready")
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	late := time.NewTimer(startPatience)
	defer late.Stop()
	for {
		if b, err := os.ReadFile(path); err == nil && json.Valid(b) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-proc.Done():
			return fmt.Errorf("%s ended at start (%v); the end of its log:\n%s", proc.Name(), proc.Err(), child.Tail(p.file(name+".log"), 2000))
		case <-late.C:
			return fmt.Errorf("%s was not ready within %s; its log is %s", proc.Name(), startPatience, p.file(name+".log"))
		case <-look.C:
		}
	}
}

// raiseAll starts all regions at once.
func (w *world) raiseAll(ctx context.Context) error {
	w.op.Lock()
	defer w.op.Unlock()
	errs := make([]error, len(w.places))
	var wg sync.WaitGroup
	for i, p := range w.places {
		wg.Go(func() { errs[i] = w.raise(ctx, p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// kill ends every process of a region with SIGKILL, all at the same moment.
func (w *world) kill(r api.Region) error {
	w.op.Lock()
	defer w.op.Unlock()
	p := w.place(r)
	p.mu.Lock()
	procs := p.procs
	wasUp := p.up
	p.procs, p.up = nil, false
	p.mu.Unlock()
	if !wasUp {
		return &usageError{fmt.Sprintf("%s is down already", r), "restore it first"}
	}
	w.report.killed(r, time.Now())
	for _, proc := range procs {
		proc.Signal(syscall.SIGKILL)
	}
	for _, proc := range procs {
		proc.Kill()
	}
	return nil
}

// restore starts a region that was killed, on the data it left.
func (w *world) restore(ctx context.Context, r api.Region) error {
	w.op.Lock()
	defer w.op.Unlock()
	p := w.place(r)
	p.mu.Lock()
	up := p.up
	p.mu.Unlock()
	if up {
		return &usageError{fmt.Sprintf("%s is up", r), "kill it first"}
	}
	w.report.restored(r, time.Now())
	return w.raise(ctx, p)
}

// stopAll ends everything: the loads first, so that nothing they see on the way counts.
func (w *world) stopAll() {
	w.op.Lock()
	defer w.op.Unlock()
	var loads, others []*child.Process
	for _, p := range w.places {
		p.mu.Lock()
		for _, proc := range p.procs {
			if proc.Name() == string(p.region)+"/load" {
				loads = append(loads, proc)
			} else {
				others = append(others, proc)
			}
		}
		p.procs, p.up = nil, false
		p.mu.Unlock()
	}
	stopTogether(loads, 3*time.Second)
	stopTogether(others, 3*time.Second)
}

func stopTogether(procs []*child.Process, patience time.Duration) {
	var wg sync.WaitGroup
	for _, proc := range procs {
		wg.Go(func() { proc.Stop(patience) })
	}
	wg.Wait()
}
