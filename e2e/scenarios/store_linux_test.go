package scenarios

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// onlookers use a node all the time, as callers do: readers, a watch, and instances that send
// heartbeats. What goes wrong for them is counted.
type onlookers struct {
	t        *testing.T
	h        *cluster.HTTP
	stop     context.CancelFunc
	work     sync.WaitGroup
	mu       sync.Mutex
	reads    int
	beats    int
	slowest  time.Duration // read
	failures []string
	frames   int // of the watch
	lastSign time.Time
	silence  time.Duration // longest of the watch
}

// onlook registers 50 instances of orders and begins; the result ends with the test.
func onlook(t *testing.T, n *cluster.Node) *onlookers {
	t.Helper()
	const instances = 50
	ctx, stop := context.WithCancel(context.Background())
	o := &onlookers{t: t, h: n.Client(), stop: stop}
	for i := range instances {
		o.h.Register("orders", fmt.Sprintf("o-%02d", i), api.Registration{Address: "127.0.0.1", Port: 1000 + i, TTL: api.Duration(5 * time.Second)})
	}
	every := func(d time.Duration, f func()) {
		o.work.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for {
				f()
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	for range 4 {
		every(10*time.Millisecond, func() {
			begun := time.Now()
			r, err := o.h.Resolve("orders")
			if err == nil && len(r.Endpoints) == 0 {
				err = errors.New("nobody")
			}
			took := time.Since(begun)
			o.note(func() { o.reads++; o.slowest = max(o.slowest, took) }, "read", err)
		})
	}
	for i := range instances {
		every(time.Second, func() {
			_, err := o.h.Do(http.MethodPut, api.PathInstance("orders", api.InstanceID(fmt.Sprintf("o-%02d", i)))+"/heartbeat", nil, nil)
			o.note(func() { o.beats++ }, "heartbeat", err)
		})
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+api.PathWatch+"?service=orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	o.lastSign = time.Now()
	o.work.Go(func() {
		defer resp.Body.Close()
		s := bufio.NewScanner(resp.Body)
		for s.Scan() {
			if !strings.HasPrefix(s.Text(), "data:") {
				continue
			}
			o.note(func() {
				o.frames++
				o.silence = max(o.silence, time.Since(o.lastSign))
				o.lastSign = time.Now()
			}, "", nil)
		}
		if ctx.Err() == nil {
			o.note(func() {}, "watch", fmt.Errorf("the stream ended: %v", s.Err()))
		}
	})
	t.Cleanup(func() { o.end() })
	return o
}

func (o *onlookers) note(count func(), what string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	count()
	if err != nil && len(o.failures) < 20 {
		o.failures = append(o.failures, fmt.Sprintf("%s: %v", what, err))
	}
}

// end stops them, prints what they saw, and fails the test for everything that went wrong.
func (o *onlookers) end() {
	o.stop()
	o.work.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.reads == 0 {
		return
	}
	o.t.Logf("meanwhile: %d reads, slowest %s; %d heartbeats; %d frames on one watch, longest silence %s; failed: %d",
		o.reads, o.slowest.Round(time.Millisecond), o.beats, o.frames, o.silence.Round(time.Millisecond), len(o.failures))
	for _, f := range o.failures {
		o.t.Errorf("P10: %s", f)
	}
	o.reads = 0
}

// writesBack waits until a write is acknowledged. Until then every one must be refused as
// unavailable, in time.
func writesBack(t *testing.T, h *cluster.HTTP, id string) time.Duration {
	t.Helper()
	begun := time.Now()
	cluster.Within(t, 60*time.Second, "a registration is taken", func() error {
		asked := time.Now()
		_, err := h.Do(http.MethodPut, api.PathInstance("new", api.InstanceID(id)), api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour)}, nil)
		if took := time.Since(asked); took > 7*time.Second {
			t.Errorf("a write took %s", took)
		}
		if code := api.CodeOf(err); err != nil && code != api.CodeUnavailable {
			t.Fatalf("a write was refused with %v", err)
		}
		return err
	})
	return time.Since(begun)
}

func signalStore(t *testing.T, n *cluster.Node, s syscall.Signal) int {
	t.Helper()
	pid := n.StorePID()
	if pid == 0 {
		t.Fatal("the node has no child that keeps its records")
	}
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
	return pid
}

// P1, P10, P11: kill -9 of etcd alone, again and again: reads, heartbeats and watches notice
// nothing, writes are back by themselves, nothing acknowledged is lost, no zombie stays.
func TestStoreProcessKilledUnderLoad(t *testing.T) {
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	o := onlook(t, n)
	h := n.Client()
	for i := range 4 {
		writesBack(t, h, fmt.Sprintf("before-%d", i))
		pid := signalStore(t, n, syscall.SIGKILL)
		took := writesBack(t, h, fmt.Sprintf("after-%d", i))
		t.Logf("kill -9 of etcd's process %d: writes were taken again after %s", pid, took.Round(time.Millisecond))
		if s := cluster.StateOf(pid); s != "" {
			t.Errorf("process %d is still there, in state %s", pid, s)
		}
	}
	if l, err := h.Instances("new"); err != nil || len(l.Instances) != 8 {
		t.Errorf("P1: %d of 8 registrations are there, %v", len(l.Instances), err)
	}
	cluster.Within(t, 15*time.Second, "the node is ready", func() error { _, err := h.Do(http.MethodGet, api.PathReadyz, nil, nil); return err })
	o.end()
	last := n.StorePID()
	if err := n.Stop(); err != nil {
		t.Errorf("the node ended with %v", err)
	}
	if s := cluster.StateOf(last); s != "" {
		t.Errorf("etcd's process outlived the node, in state %s", s)
	}
}

// P10: etcd stands still for ten seconds (a swapping machine, a debugger). Reads, heartbeats and
// watches go on, writes are refused in time, and go on as it does, in the same process.
func TestStoreProcessStoppedForTenSeconds(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	o := onlook(t, n)
	h := n.Client()
	pid := signalStore(t, n, syscall.SIGSTOP)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	over := time.NewTimer(10 * time.Second)
	_, err := h.Do(http.MethodPut, api.PathInstance("new", "x"), api.Registration{Address: "127.0.0.1", Port: 80}, nil)
	if api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a write meanwhile: %v", err)
	}
	cluster.Within(t, 9*time.Second, "/readyz says so", func() error {
		status, err := h.Do(http.MethodGet, api.PathReadyz, nil, nil)
		if status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d, %v", status, err)
		}
		return nil
	})
	<-over.C
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	t.Logf("after SIGCONT writes were taken in %s", writesBack(t, h, "after").Round(time.Millisecond))
	if now := n.StorePID(); now != pid {
		t.Errorf("etcd's process %d was replaced by %d", pid, now)
	}
	o.end()
}

// P11: kill -9 of the node leaves no process behind, also when etcd stands still, and the node is
// back at once on the same data.
func TestKilledNodeLeavesNoStoreProcess(t *testing.T) {
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	for _, stopped := range []bool{false, true} {
		pid := n.StorePID()
		if stopped {
			signalStore(t, n, syscall.SIGSTOP)
		}
		n.Kill()
		begun := time.Now()
		n.Start()
		t.Logf("etcd's process stopped %t: the node was ready again in %s", stopped, time.Since(begun).Round(time.Millisecond))
		if s := cluster.StateOf(pid); s != "" && s != "Z" { // a Z waits for whoever inherits orphans here
			t.Errorf("etcd's process %d outlived its node, in state %s", pid, s)
		}
	}
}

// P10, P11, catalogue row 5: etcd meets an error of its disk that it cannot survive (here: no
// file may grow any more). Only etcd ends; it is back once the disk is.
func TestDiskErrorEndsOnlyTheStoreProcess(t *testing.T) {
	c := cluster.New(t, us)
	n := c.Node(us)
	n.Start()
	o := onlook(t, n)
	h := n.Client()
	pid := n.StorePID()
	limit := syscall.Rlimit{Cur: 1024, Max: 1024}
	if err := prlimitFileSize(pid, &limit); err != nil {
		t.Skipf("needs the right to limit another process: %v", err)
	}
	begun := time.Now()
	cluster.Within(t, 20*time.Second, "etcd ends of it", func() error {
		_, _ = h.Do(http.MethodPut, api.PathInstance("new", "fatal"), api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour)}, nil)
		if n.StorePID() == pid {
			return fmt.Errorf("process %d goes on", pid)
		}
		return nil
	})
	writesBack(t, h, "after")
	t.Logf("a disk error ended etcd's process %d; writes were taken again %s after the limit was set", pid, time.Since(begun).Round(time.Millisecond))
	o.end()
	b, err := os.ReadFile(filepath.Join(c.Dir, string(us), "registry.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "etcd ended; reads") {
		t.Error("the log does not say why etcd ended")
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "etcd ended; reads") {
			t.Log(line)
		}
	}
}

// P3, P10: a node that starts while its store cannot start answers from the copy on its disk, read-only
// and labelled; heartbeats go on; the store's content replaces it without a restart.
func TestNodeStartsWithoutItsStore(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	h := n.Client()
	h.Register("orders", "o-1", api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(5 * time.Second)})
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	// Somebody else holds etcd's directory, as a member that hangs in a frozen disk would.
	lock, err := os.OpenFile(filepath.Join(n.DataDir, "etcd", "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	n.Launch()
	begun := time.Now()
	cluster.Within(t, 10*time.Second, "the API answers", func() error { _, err := h.Do(http.MethodGet, api.PathLivez, nil, nil); return err })
	t.Logf("/livez answered after %s", time.Since(begun).Round(time.Millisecond))
	_, err = h.Resolve("orders")
	if code := api.CodeOf(err); code != api.CodeUnavailable && err != nil {
		t.Errorf("before the copy: %v", err)
	}
	var r api.Resolution
	cluster.Within(t, 15*time.Second, "reads are answered from the copy", func() error { r, err = h.Resolve("orders"); return err })
	t.Logf("reads were answered from the copy after %s", time.Since(begun).Round(time.Millisecond))
	if len(r.Endpoints) != 1 || r.Views[0].Source != api.SourceSnapshot || r.Views[0].AgeMS <= 0 {
		t.Errorf("resolved %+v", r)
	}
	if _, err := h.Do(http.MethodPut, api.PathInstance("orders", "o-1")+"/heartbeat", nil, nil); err != nil {
		t.Errorf("heartbeat: %v", err)
	}
	if _, err := h.Do(http.MethodPut, api.PathInstance("orders", "o-2"), api.Registration{Address: "127.0.0.1", Port: 80}, nil); api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a write: %v", err)
	}
	resp, err := http.Get(n.URL() + api.PathReadyz)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said := make([]byte, 4096)
	k, _ := resp.Body.Read(said)
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(said[:k]), "read-only, from the copy of ") {
		t.Errorf("/readyz: %d %s", resp.StatusCode, said[:k])
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	begun = time.Now()
	n.AwaitReady()
	t.Logf("ready %s after the store could start", time.Since(begun).Round(time.Millisecond))
	writesBack(t, h, "after")
	r, err = h.Resolve("orders")
	if err != nil || len(r.Endpoints) != 1 || r.Views[0].Source != api.SourceMemory {
		t.Errorf("with the store: %+v, %v", r, err)
	}
}
