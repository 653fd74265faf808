package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/clustertest"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/sdk/api"
)

// cable is the network between a node and its etcd: it can be cut.
type cable struct {
	l    net.Listener
	to   string
	mu   sync.Mutex
	cut  bool
	open map[net.Conn]struct{}
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{l: l, to: to, open: map[net.Conn]struct{}{}}
	t.Cleanup(func() { _ = l.Close(); c.set(true) })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil || !c.keep(in, out) {
				in.Close()
				continue
			}
			for _, p := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(p[0], p[1])
					p[0].Close()
					p[1].Close()
				}()
			}
		}
	}()
	return c
}

func (c *cable) keep(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range conns {
		if c.cut {
			n.Close()
			continue
		}
		c.open[n] = struct{}{}
	}
	return !c.cut
}

// set cuts the cable, or mends it.
func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	for n := range c.open {
		n.Close()
	}
	clear(c.open)
}

// run runs a node and does not wait for it; ended receives what Run returns.
func run(t *testing.T, cfg Config) (url string, ended <-chan error) {
	t.Helper()
	cfg.Dev, cfg.Roles, cfg.LogLevel = true, []string{"region"}, "info"
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	cfg.HTTPAddr = clustertest.FreeAddr(t)
	if err := cfg.Normalize(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	logs := &logs{}
	finished := make(chan struct{})
	go func() { defer close(finished); done <- Run(ctx, cfg, logs) }()
	t.Cleanup(func() {
		cancel()
		<-finished
		if t.Failed() {
			t.Logf("the node's log:\n%s", logs)
		}
	})
	return "http://" + cfg.HTTPAddr, done
}

const lasting = `{"address":"127.0.0.1","port":80,"ttl":"1h"}`

// Failure 21, P10, P11: a node whose external etcd is away starts, says why it is not ready, and serves when etcd is there.
// When it goes, reads go on and writes are refused in time; when it is back, so are they. A node of
// another region ends by itself, before it has read or written anything.
func TestExternalEtcdMayBeAway(t *testing.T) {
	t.Parallel() // it waits more than it works
	etcd := clustertest.NewExternal(t, nil)
	url, ended := run(t, Config{Region: "us-east", EtcdEndpoints: []string{etcd.URL}})
	ask := func(want int, method, path, body string, out any) error {
		select {
		case err := <-ended:
			t.Fatalf("the node ended: %v", err)
		default:
		}
		status, err := call(http.DefaultClient, method, url+path, "", body, out)
		if err == nil && status != want {
			err = fmt.Errorf("%s %s: %d, want %d", method, path, status, want)
		}
		return err
	}
	within(t, 20*time.Second, "the node is up and says why it is not ready", func() error {
		resp, err := http.Get(url + api.PathReadyz)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && (resp.StatusCode != 503 || !strings.Contains(string(b), strings.TrimPrefix(etcd.URL, "http://"))) {
			err = fmt.Errorf("%d %s", resp.StatusCode, b)
		}
		return err
	})
	if err := errors.Join(ask(200, "GET", api.PathLivez, "", nil), ask(503, "PUT", api.PathInstance("orders", "o-1"), lasting, nil)); err != nil {
		t.Error(err)
	}
	etcd.Start()
	within(t, 20*time.Second, "the node is ready", func() error { return ask(200, "GET", api.PathReadyz, "", nil) })
	if err := ask(201, "PUT", api.PathInstance("orders", "o-1"), lasting, nil); err != nil {
		t.Fatal(err)
	}
	for what, fault := range map[string][2]func(){"killed": {etcd.Kill, etcd.Start}, "hung": {etcd.Pause, etcd.Resume}} {
		fault[0]()
		for path, want := range map[string]int{"": 200, "?consistency=strong": 503} {
			begun := time.Now()
			if err := ask(want, "GET", api.PathInstances("orders")+path, "", nil); err != nil {
				t.Errorf("etcd is %s: %v", what, err)
			}
			t.Logf("etcd is %s: GET%s answered after %s", what, path, time.Since(begun).Round(time.Millisecond))
		}
		begun := time.Now()
		if err := ask(503, "PUT", api.PathInstance("orders", "o-2"), lasting, nil); err != nil {
			t.Errorf("etcd is %s: %v", what, err)
		}
		t.Logf("etcd is %s: a registration was refused after %s", what, time.Since(begun).Round(time.Millisecond))
		fault[1]()
		within(t, 20*time.Second, "registrations are taken again", func() error {
			status, err := call(http.DefaultClient, "PUT", url+api.PathInstance("orders", "o-3"), "", lasting, nil)
			if err == nil && status > 201 {
				err = fmt.Errorf("status %d", status)
			}
			return err
		})
	}

	_, ended2 := run(t, Config{Region: "eu-west", EtcdEndpoints: []string{etcd.URL}})
	select {
	case err := <-ended2:
		if !errors.Is(err, store.ErrWrongRegion) {
			t.Errorf("a node of another region ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a node of another region runs on")
	}
}

// Failure 22, P5: others use the same etcd, write there, and compact its history while the node is cut off. The
// node loads again, and its watchers are told by a reset; nothing of the others is seen.
func TestExternalEtcdIsSharedAndCompactedByOthers(t *testing.T) {
	etcd := clustertest.NewExternal(t, nil)
	etcd.Start()
	wire := newCable(t, strings.TrimPrefix(etcd.URL, "http://"))
	url, _ := run(t, Config{Region: "us-east", EtcdEndpoints: []string{"http://" + wire.l.Addr().String()}})
	within(t, 20*time.Second, "the node is ready", func() error {
		status, err := call(http.DefaultClient, "PUT", url+api.PathInstance("orders", "o-1"), "", lasting, nil)
		if err == nil && status > 201 {
			err = fmt.Errorf("status %d", status)
		}
		return err
	})
	watch, err := http.Get(url + api.PathWatch + "?service=orders")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()
	frames := make(chan string, 100)
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := watch.Body.Read(b)
			if err != nil {
				close(frames)
				return
			}
			frames <- string(b[:n])
		}
	}()

	wire.set(true)
	etcd.Crowd(20, false)
	// What another node of the region would have done meanwhile.
	direct, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{etcd.URL}, Region: "us-east"})
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	img, err := direct.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range img.Records {
		if strings.Contains(r.Key, "o-1") {
			if _, err := direct.Commit(t.Context(), []store.Op{{Key: r.Key, Delete: true}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	etcd.Crowd(20, true)
	wire.set(false)
	within(t, 30*time.Second, "the node sees that the instance left", func() error {
		var l api.InstanceList
		if _, err := call(http.DefaultClient, "GET", url+api.PathInstances("orders"), "", "", &l); err != nil {
			return err
		}
		if len(l.Instances) != 0 {
			return fmt.Errorf("%d instances", len(l.Instances))
		}
		return nil
	})
	var seen strings.Builder
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for !strings.Contains(seen.String(), "event: reset") && !strings.Contains(seen.String(), "event:reset") {
		select {
		case f, ok := <-frames:
			if !ok {
				t.Fatalf("the watch ended without a reset:\n%s", &seen)
			}
			seen.WriteString(f)
		case <-late.C:
			t.Fatalf("the watch was told no reset:\n%s", &seen)
		}
	}
	var services api.ServiceList
	if _, err := call(http.DefaultClient, "GET", url+api.PathServices, "", "", &services); err != nil || len(services.Services) > 1 {
		t.Errorf("services %+v, %v", services, err)
	}
}
