package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// realRegion serves the real registry on l, in real time, and ends with the test.
func realRegion(t *testing.T, l net.Listener, history int) *registry.Registry {
	t.Helper()
	st, err := memstore.New("us-east")
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(registry.Config{Region: "us-east", Node: "n1", Store: st, History: history})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- reg.Run(ctx) }()
	<-reg.Loaded()
	h, err := New(Config{Registry: reg, Region: "us-east", Node: "n1", Closing: ctx})
	if err != nil {
		t.Fatal(err)
	}
	srv := Server(h)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		cancel()
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	return reg
}

func within(t *testing.T, patience time.Duration, what string, cond func() error) {
	t.Helper()
	ask := time.NewTicker(10 * time.Millisecond)
	defer ask.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		select {
		case <-ask.C:
		case <-late.C:
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
	}
}

// put registers an instance of orders and returns how long that took.
func put(t *testing.T, reg *registry.Registry, id string, metadata string) time.Duration {
	t.Helper()
	begun := time.Now()
	_, _, err := reg.Register(context.Background(), api.InstanceKey{Service: "orders", ID: api.InstanceID(id)},
		api.Registration{Address: "10.0.0.1", Port: 80, TTL: api.Duration(time.Hour), Metadata: map[string]string{"v": metadata}})
	if err != nil {
		t.Errorf("register %s: %v", id, err)
	}
	return time.Since(begun)
}

// frameEvents reads event names of a stream, until stop says so or it ends.
func frameEvents(r *bufio.Reader, each func(event, data string) (goOn bool)) error {
	event := ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if rest, ok := strings.CutPrefix(line, "event: "); ok {
			event = strings.TrimSpace(rest)
		}
		if rest, ok := strings.CutPrefix(line, "data: "); ok && !each(event, rest) {
			return nil
		}
	}
}

const watchOrders = "GET /v1/watch?service=orders HTTP/1.1\r\nHost: localhost\r\n\r\n"

// P8, row 35 of the catalogue: as many watchers as a node takes leave at once, while
// registrations come in. Nobody waits for them, nothing hangs, and goroutines and memory are
// back where they were.
func TestAllWatchersLeaveAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("some hundred MB and some seconds")
	}
	l := newPipes()
	reg := realRegion(t, l, 0)
	put(t, reg, "first", "0")
	measure := func() (goroutines int, heap uint64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	baseGoroutines, baseHeap := measure()

	conns := make([]net.Conn, storm)
	var synced, told atomic.Int64
	var clients sync.WaitGroup
	for i := range conns {
		near, far := net.Pipe()
		conns[i] = near
		l.conns <- far
		clients.Go(func() {
			if _, err := io.WriteString(near, watchOrders); err != nil {
				t.Error(err)
				return
			}
			// A small buffer: what is measured is the server.
			_ = frameEvents(bufio.NewReaderSize(near, 512), func(event, _ string) bool {
				switch event {
				case "synced":
					synced.Add(1)
				case "change":
					told.Add(1)
				}
				return true
			})
		})
	}
	within(t, 2*time.Minute, "all watch", func() error {
		if n := synced.Load(); n < storm {
			return fmt.Errorf("%d of %d", n, storm)
		}
		return nil
	})
	put(t, reg, "second", "1")
	within(t, time.Minute, "all are told of a change", func() error {
		if n := told.Load(); n < storm {
			return fmt.Errorf("%d of %d", n, storm)
		}
		return nil
	})
	fullGoroutines, fullHeap := measure()

	writing, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writes, slowest := 0, time.Duration(0)
	writer.Go(func() {
		for ; writing.Err() == nil; writes++ {
			slowest = max(slowest, put(t, reg, "busy", fmt.Sprint(writes)))
		}
	})
	left := time.Now()
	for _, c := range conns {
		_ = c.Close()
	}
	clients.Wait()
	within(t, time.Minute, "the goroutines are gone", func() error {
		if n := runtime.NumGoroutine(); n > baseGoroutines+20 {
			return fmt.Errorf("%d, %d at the start", n, baseGoroutines)
		}
		return nil
	})
	gone := time.Since(left)
	stop()
	writer.Wait()
	if writes == 0 {
		t.Error("P5: no registration came through while they left")
	}
	clear(conns)
	var goroutines int
	var heap uint64
	within(t, 30*time.Second, "memory is back", func() error {
		goroutines, heap = measure()
		if most := baseHeap + (fullHeap-baseHeap)/10 + 16<<20; heap > most {
			return fmt.Errorf("%d KiB, %d KiB at the start, %d KiB with all", heap>>10, baseHeap>>10, fullHeap>>10)
		}
		return nil
	})
	t.Logf("%d watchers left within %s; %d registrations meanwhile, the slowest %s; goroutines %d, %d, %d and heap %.1f, %.1f, %.1f MiB before, with and after them",
		storm, gone.Round(time.Millisecond), writes, slowest.Round(time.Microsecond), baseGoroutines, fullGoroutines, goroutines,
		float64(baseHeap)/(1<<20), float64(fullHeap)/(1<<20), float64(heap)/(1<<20))
}

// P5, P8, row 34 of the catalogue: over real TCP one watcher stops reading. Writers and the other
// watcher do not wait for it; when it reads again it is told by a reset that it missed
// changes, and by one list what stands.
func TestStalledReaderIsResetAndHoldsNobodyUp(t *testing.T) {
	const changes, remembered = 600, 64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reg := realRegion(t, l, remembered)
	dial := func() (*net.TCPConn, *bufio.Reader) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		tcp := conn.(*net.TCPConn)
		if err := tcp.SetReadBuffer(64 << 10); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, watchOrders); err != nil {
			t.Fatal(err)
		}
		return tcp, bufio.NewReader(conn)
	}
	_, slow := dial()
	if err := frameEvents(slow, func(event, _ string) bool { return event != "synced" }); err != nil {
		t.Fatal(err)
	}
	fastConn, fast := dial()
	var last, fastResets atomic.Int64
	ready := make(chan struct{})
	var reading sync.WaitGroup
	defer reading.Wait()
	defer fastConn.Close()
	reading.Go(func() {
		_ = frameEvents(fast, func(event, data string) bool {
			switch event {
			case "synced":
				close(ready)
			case "reset":
				fastResets.Add(1)
			case "change":
				var f api.Frame
				if err := json.Unmarshal([]byte(data), &f); err == nil {
					last.Store(int64(f.Version.Revision))
				}
			}
			return true
		})
	})
	<-ready
	large := strings.Repeat("x", 12<<10)
	slowest := time.Duration(0)
	begun := time.Now()
	for i := range changes {
		slowest = max(slowest, put(t, reg, fmt.Sprintf("i%d", i%10), large+fmt.Sprint(i)))
		if i%32 == 31 { // at the pace of who reads, or that one would be reset too
			within(t, 10*time.Second, "the other watcher is told", func() error {
				if at, want := last.Load(), int64(reg.Stamp().Version.Revision); at < want {
					return fmt.Errorf("it is at %d of %d", at, want)
				}
				return nil
			})
		}
	}
	wrote := time.Since(begun)
	if wrote > frameTimeout {
		t.Logf("writing took %s: the stalled stream may be cut by now, which the test of cut streams covers", wrote)
	}
	if fastResets.Load() != 0 {
		t.Error("P5: the watcher that reads was reset")
	}
	var events []string
	err = frameEvents(slow, func(event, _ string) bool {
		if n := len(events); n == 0 || events[n-1] != event {
			events = append(events, event)
		}
		return event != "synced"
	})
	got := strings.Join(events, " ")
	if err != nil && wrote < frameTimeout || err == nil && got != "change reset item synced" {
		t.Errorf("P5: the stalled watcher is told %q, %v; want some changes, a reset, items, synced", got, err)
	}
	t.Logf("%d changes of 12 KiB in %s, the slowest write %s, while one watcher did not read; it was then told: %s",
		changes, wrote.Round(time.Millisecond), slowest.Round(time.Microsecond), got)
	if resp, err := http.Get("http://" + l.Addr().String() + api.PathLivez); err != nil || resp.Body.Close() != nil {
		t.Error(err)
	}
}
