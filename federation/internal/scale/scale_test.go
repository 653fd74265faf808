package scale

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/replica"
)

const (
	services = 100_000
	origins  = 19
)

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func mib(n int) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// BenchmarkScale prints what a federation of 20 regions of 100,000 services costs one of them,
// beside the estimates of the protocol's text. SCALE_ORIGINS asks for fewer origins.
func BenchmarkScale(b *testing.B) {
	if b.N > 1 {
		return
	}
	b.ReportMetric(0, "ns/op")
	most := origins
	if s := os.Getenv("SCALE_ORIGINS"); s != "" {
		most, _ = strconv.Atoi(s)
	}
	began := time.Now()
	keys, index := serviceKeys(services)
	say := func(format string, args ...any) { fmt.Printf("scale: "+format+"\n", args...) } // a benchmark's log ends after ten lines
	fmt.Println()
	before := heap()
	src := newCatalog(regionName(0), keys, index)
	l := newLink(b, src)

	// Bytes and CPU of one link.
	var rows []replica.Row
	l.keep = &rows
	boot := l.measure(l.heal)
	l.keep = nil
	say("bootstrap of %d rows: raw %s (%d B a row), zstd %s (%d B a row); the text estimates 89 B and 34 B a row, without fail-over sets",
		boot.rows, mib(boot.raw), boot.raw/boot.rows, mib(boot.compressed), boot.compressed/boot.rows)
	say("  CPU: origin makes rows and frames %s, compresses %s; reader reads frames %s, checks and applies rows %s",
		round(boot.origin), round(boot.squeeze), round(boot.decode), round(boot.step))
	book := l.bookHeap(b)
	idle := l.measure(func() {
		for range 100 {
			if err := l.run(false); err != nil {
				b.Fatal(err)
			}
		}
	})
	say("idle: raw %d B/s, zstd %d B/s a link, whatever the number of services", idle.raw/100, idle.compressed/100)
	l.full = true
	full := l.measure(func() {
		for range 100 {
			if err := l.run(false); err != nil {
				b.Fatal(err)
			}
		}
	})
	l.full = false
	ack, err := json.Marshal(l.replica.Ack(l.now))
	if err != nil {
		b.Fatal(err)
	}
	say("  with 19 standings, canary and signature: raw %d B/s, zstd %d B/s a link, and up an ack of %d B a second without the head of its request; the text estimates <1 KB/s a link: %s",
		full.raw/100, full.compressed/100, len(ack), map[bool]string{true: "reached", false: "SHORT"}[full.compressed/100+len(ack) < 1000])
	change := l.measure(func() {
		for i := range 200 {
			src.touch(i * 487 % services)
			if err := l.run(false); err != nil {
				b.Fatal(err)
			}
		}
	})
	say("one change, with its heartbeat: raw %d B, zstd %d B; the text estimates 89 B and 38 B a row", change.raw/200, change.compressed/200)
	churn := l.measure(func() {
		for s := range 5 { // 1,667 rows a second, coalesced each 200 ms
			var rows []int
			for i := range 1667 / 5 {
				rows = append(rows, (i*59+s*7919)%services)
			}
			src.touch(rows...)
			if err := l.run(false); err != nil {
				b.Fatal(err)
			}
		}
	})
	say("1,667 changes a second: raw %d KB/s, zstd %d KB/s, CPU of the origin %s and of the reader %s a second; the text: 149 and 63 KB/s",
		churn.raw/1000, churn.compressed/1000, round(churn.origin+churn.squeeze), round(churn.decode+churn.step))
	load := l.measure(func() {
		l.loads = l.loads.Next(src.Loads())
		if err := l.run(true); err != nil {
			b.Fatal(err)
		}
	})
	say("the load of all %d services at once: raw %s, zstd %s; each 5 s at most", services, mib(load.raw), mib(load.compressed))

	same := l.measure(l.heal)
	l.book = newLink(b, src).book
	src.forget()
	restarted := l.measure(l.heal)
	say("heal of an unchanged replica: raw %d B, zstd %d B; after the origin's restart %d and %d B down, %d B up",
		same.raw, same.compressed, restarted.raw, restarted.compressed, restarted.up)
	l.book = newLink(b, src).book
	var scattered []int
	for i := range services / 100 {
		scattered = append(scattered, i*97)
	}
	src.touch(scattered...)
	src.forget()
	heal := l.measure(l.heal)
	say("heal of a 1 %% changed replica after the origin's restart: %d rows, raw %s down, zstd %s down, %d KiB up; CPU of the origin %s, of the reader %s; row by row would be %s",
		heal.rows, mib(heal.raw), mib(heal.compressed), heal.up>>10, round(heal.origin+heal.squeeze), round(heal.decode+heal.step), mib(heal.rows*boot.raw/boot.rows))
	if heal.rows != len(scattered) {
		b.Fatalf("%d rows were sent for %d changes", heal.rows, len(scattered))
	}
	if s := same.raw + restarted.raw + restarted.up; s > 16<<10 {
		b.Fatalf("heals of unchanged replicas cost %d B", s)
	}

	// The receiving region: two links at a time, one for each processor.
	l.session, l.book, l.loads, l.keep = nil, nil, nil, nil
	others := make([]*replica.Replica, most-1)
	spent := make([]time.Duration, most-1)
	var wg sync.WaitGroup
	places := make(chan struct{}, 2)
	wall := time.Now()
	for i := range others {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			var err error
			if others[i], spent[i], err = follow(regionName(i+1), src.region, rows); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	clock := time.Since(wall)
	rows = nil
	apply := boot.step
	for _, d := range spent {
		apply += d
	}
	cpu := apply + time.Duration(most)*boot.decode
	all := heap() - before
	say("%d origins of %d rows: heap of the receiving region %s, %d B a row (the text: 160 to 500 MB for 2,000,000 rows of 89 B); of an origin for each reader %s",
		most, services, mib(int(all)), int(all)/(most*services), mib(int(book)))
	say("  cold start: %s of one processor to read frames (%d times the first) and to check and apply rows (measured, %s by the clock on two processors); %s compressed, which would take %.0f s at 100 Mbit/s: an estimate, there is no line here (the text: 64 MB, 5 s)",
		round(cpu), most, round(clock), mib(boot.compressed*most), float64(boot.compressed*most)*8/100e6)
	say("  all of this took %s", round(time.Since(began)))
	b.ReportMetric(float64(boot.compressed)/float64(boot.rows), "B/row")
	b.ReportMetric(float64(all)/float64(most*services), "heapB/row")
	b.ReportMetric(float64(change.compressed)/200, "B/change")
	b.ReportMetric(float64(idle.compressed)/100, "idleB/s")
	b.ReportMetric(float64(full.compressed)/100+float64(len(ack)), "idleFullB/s")
	b.ReportMetric(float64(heal.compressed+heal.up)/1024, "healKiB")
	b.ReportMetric(cpu.Seconds(), "cpu-s")
	runtime.KeepAlive(others)
	runtime.KeepAlive(l)
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// bookHeap measures what an origin keeps for one reader.
func (l *link) bookHeap(b *testing.B) uint64 {
	before := heap()
	x := newLink(b, l.src)
	x.book.Page(l.src)
	after := heap()
	runtime.KeepAlive(x)
	return after - before
}
