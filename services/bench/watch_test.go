package bench

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// watchers are open watches that note when each change came.
type watchers struct {
	b     *testing.B
	conns []*conn
	came  []atomic.Int64 // nanoseconds since began, of the latest change of each
	left  atomic.Int64   // watches that have not had the change under way
	all   chan struct{}  // told when none is left
	began time.Time
	done  sync.WaitGroup
}

// watch opens n watches of a service and waits until all are synced.
func watch(b *testing.B, s *server, n int, service func(i int) string) *watchers {
	b.Helper()
	w := &watchers{b: b, came: make([]atomic.Int64, n), all: make(chan struct{}, 1), began: time.Now()}
	var synced sync.WaitGroup
	synced.Add(n)
	for i := range n {
		c := dial(b, s.Node)
		w.conns = append(w.conns, c)
		if _, err := c.Write(request("GET", "/v1/watch?service="+service(i), nil)); err != nil {
			b.Fatal(err)
		}
		w.done.Go(func() { w.read(i, synced.Done) })
	}
	synced.Wait()
	return w
}

// read looks for the names of frames; the rest of a stream does not matter here.
func (w *watchers) read(i int, synced func()) {
	buf, kept := make([]byte, 8<<10), 0
	for {
		n, err := w.conns[i].Conn.Read(buf[kept:])
		if err != nil {
			return
		}
		now := time.Since(w.began)
		all := buf[:kept+n]
		if synced != nil && bytes.Contains(all, []byte("event: synced")) {
			synced()
			synced = nil
		}
		if k := bytes.Count(all, []byte("event: change")); k > 0 {
			w.came[i].Store(int64(now))
			if w.left.Add(-int64(k)) == 0 {
				w.all <- struct{}{}
			}
		}
		// A name may be cut in two; a whole one must not be counted again.
		kept = min(len(all), len("event: change")-1)
		copy(buf, all[len(all)-kept:])
	}
}

func (w *watchers) close() {
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.done.Wait()
}

// changes registers an instance anew, again and again, and returns how long after each
// acknowledgement the last watch had it; negative when it was before.
func (w *watchers) changes(s *server, service string, times int) []time.Duration {
	w.b.Helper()
	c := dial(w.b, s.Node)
	defer c.Close()
	after := make([]time.Duration, 0, times)
	for n := range times {
		body := fmt.Appendf(nil, `{"address":"10.1.0.1","port":%d,"zone":"a","ttl":"24h","version":"1.4.2","metadata":{"shard":"7","owner":"checkout"}}`, 1000+n%2)
		w.left.Store(int64(len(w.conns)))
		status, answer, err := c.call(request("PUT", "/v1/services/"+service+"/instances/changing", body), true)
		if err != nil || status/100 != 2 {
			w.b.Fatalf("status %d, %v: %.200s", status, err, answer)
		}
		acked := time.Since(w.began)
		select {
		case <-w.all:
		case <-time.After(5 * time.Second):
			w.b.Fatalf("change %d did not reach %d of %d watches", n, w.left.Load(), len(w.conns))
		}
		last := int64(0)
		for i := range w.came {
			last = max(last, w.came[i].Load())
		}
		after = append(after, time.Duration(last)-acked)
	}
	return after
}

// percentile returns the p-th hundredth of the durations.
func percentile(d []time.Duration, p int) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*p/100)].Round(10 * time.Microsecond)
}

// BenchmarkWatch takes the figures of watches over HTTP.
func BenchmarkWatch(b *testing.B) {
	if b.N > 1 {
		return
	}
	b.ReportMetric(0, "ns/op")
	s := startServer(b, b.TempDir())
	seed(b, s, 1000, 2)

	one := watch(b, s, 1, func(int) string { return "s1" })
	one.changes(s, "s1", 50)
	late := one.changes(s, "s1", 500)
	p99 := percentile(late, 99)
	report(b, figure{
		what: "change to one watch, after the acknowledgement", got: fmt.Sprintf("p99 %s", p99), yardstick: fmt.Sprintf("p50 %s", percentile(late, 50)),
		goal: "p99 ≤ 1 ms", reached: p99 <= time.Millisecond,
	})
	one.close()

	before, goroutines := s.memory()
	const many, other = 1000, 5000
	thousand := watch(b, s, many, func(int) string { return "s1" })
	thousand.changes(s, "s1", 20)
	if p := os.Getenv("NEARSIDE_BENCH_PROFILE"); p != "" {
		s.tell("profile " + p + "-watch.prof")
	}
	used := s.cpu()
	late = thousand.changes(s, "s1", 150)
	used = s.cpu() - used
	s.tell("profile")
	p99 = percentile(late, 99)
	report(b, figure{
		what: "change to the last of 1,000 watches", got: fmt.Sprintf("p99 %s", p99),
		yardstick: fmt.Sprintf("p50 %s; server %s a change", percentile(late, 50), (used / 150).Round(10*time.Microsecond)),
		goal:      "p99 ≤ 25 ms", reached: p99 <= 25*time.Millisecond,
	})
	thousand.close()

	idle := watch(b, s, other, func(i int) string { return fmt.Sprintf("s%d", 100+i%500) })
	after, more := s.memory()
	b.Logf("%d watches of one service each: %.1f KiB and %.1f goroutines a watch", other, float64(after-before)/other/1024, float64(more-goroutines)/other)
	one = watch(b, s, 1, func(int) string { return "s1" })
	used = s.cpu()
	late = one.changes(s, "s1", 200)
	used = s.cpu() - used
	b.Logf("beside them, a change of another service: server %s each, p99 %s after the acknowledgement", (used / 200).Round(10*time.Microsecond), percentile(late, 99))
	one.close()
	idle.close()
}
