package shop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// A key does its work once, however many ask at the same time; failures are not kept.
func TestLedgerOnce(t *testing.T) {
	l := newLedger[int]()
	var runs atomic.Int32
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			v, _, err := l.do(t.Context(), "k", "same", func() (int, error) {
				if runs.Add(1) == 1 {
					return 0, errors.New("the first one fails")
				}
				return 7, nil
			})
			if err == nil && v != 7 {
				t.Errorf("got %d", v)
			}
		})
	}
	all.Wait()
	if runs.Load() != 2 {
		t.Errorf("%d runs, want one that failed and one that counts", runs.Load())
	}
	if _, _, err := l.do(t.Context(), "k", "other", nil); err == nil {
		t.Error("a key was taken for other work")
	}
}

// Whoever waits may stop waiting, and a panic leaves nobody waiting.
func TestLedgerWaits(t *testing.T) {
	l := newLedger[int]()
	func() {
		defer func() { _ = recover() }()
		_, _, _ = l.do(t.Context(), "k", "", func() (int, error) { panic("bug") })
	}()
	started, release, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _, _ = l.do(context.Background(), "k", "", func() (int, error) { close(started); <-release; return 1, nil })
	}()
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var busy *failure
	if _, _, err := l.do(ctx, "k", "", nil); !errors.As(err, &busy) || busy.status != 503 {
		t.Errorf("error %v", err)
	}
	close(release)
	<-ended
}

// P8: what an instance remembers is bounded.
func TestLedgerIsBounded(t *testing.T) {
	l := newLedger[int]()
	for i := range maxLedger + 10 {
		_, _, _ = l.do(t.Context(), fmt.Sprint(i), "", func() (int, error) { return i, nil })
	}
	if len(l.entries) != maxLedger || len(l.order) != maxLedger {
		t.Errorf("%d entries, %d in order", len(l.entries), len(l.order))
	}
	if _, ok := l.find("5"); ok {
		t.Error("the oldest is still there")
	}
	if v, ok := l.find(fmt.Sprint(maxLedger + 9)); !ok || v != maxLedger+9 {
		t.Error("the newest is gone")
	}
}

// The same seed plays the same shoppers; a second run buys anew.
func TestPlanIsSeeded(t *testing.T) {
	a, b, c := newPlan(1, "x"), newPlan(1, "y"), newPlan(2, "x")
	differs := 0
	for range 200 {
		ca, cb, cc := a.next(), b.next(), c.next()
		if ca.target != cc.target {
			differs++
		}
		if ca.key != "" && ca.key == cb.key {
			t.Errorf("both runs use key %s", ca.key)
		}
		ca.key, cb.key = "", ""
		if !reflect.DeepEqual(ca, cb) {
			t.Fatalf("%+v and %+v with the same seed", ca, cb)
		}
	}
	if differs == 0 {
		t.Error("another seed plays the same")
	}
}

func TestPace(t *testing.T) {
	t0 := time.Unix(100, 0)
	p := pace{next: t0, every: 100 * time.Millisecond}
	if starts, skipped := p.due(t0.Add(-time.Millisecond)); len(starts) != 0 || skipped != 0 {
		t.Errorf("early: %v, %d", starts, skipped)
	}
	if starts, skipped := p.due(t0.Add(250 * time.Millisecond)); len(starts) != 3 || skipped != 0 || !starts[2].Equal(t0.Add(200*time.Millisecond)) {
		t.Errorf("in time: %v, %d", starts, skipped)
	}
	// 5 s asleep: calls of the last second are made, those before are skipped, none is lost.
	starts, skipped := p.due(t0.Add(5250 * time.Millisecond))
	if len(starts) != 10 || skipped != 40 {
		t.Errorf("after a pause: %d calls, %d skipped", len(starts), skipped)
	}
	if starts, skipped := p.due(t0.Add(5300 * time.Millisecond)); len(starts) != 1 || skipped != 0 {
		t.Errorf("afterwards: %v, %d", starts, skipped)
	}
}

func TestItems(t *testing.T) {
	items, err := parseItems("sku-1:2,sku-7")
	if err != nil || !reflect.DeepEqual(items, []item{{"sku-1", 2}, {"sku-7", 1}}) {
		t.Errorf("%v, %v", items, err)
	}
	if got := formatItems(items); got != "sku-1:2,sku-7:1" {
		t.Errorf("formatted %q", got)
	}
}

func FuzzItems(f *testing.F) {
	f.Add("sku-1:2,sku-7")
	f.Add(":,:1,,")
	f.Fuzz(func(t *testing.T, s string) {
		items, err := parseItems(s)
		if err != nil {
			return
		}
		again, err := parseItems(formatItems(items))
		if err != nil || !reflect.DeepEqual(items, again) {
			t.Errorf("%q: %v became %v, %v", s, items, again, err)
		}
	})
}

// P8: traces take a bounded place: two files, each of at most the limit.
func TestTraceFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spans.ndjson")
	if err := os.WriteFile(path, []byte(`{"torn":`), 0o600); err != nil {
		t.Fatal(err)
	}
	const limit = 4000
	file, err := openSpanFile(path, limit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	traces := &tracing{file: file, spans: sdktrace.NewSimpleSpanProcessor(file)}
	tracer := traces.provider("orders", "orders-a-eu-west", "eu-west", "a").Tracer("test")
	for range 100 {
		_, span := tracer.Start(t.Context(), "GET /quote")
		span.End()
	}
	if err := traces.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + ".1"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() == 0 || info.Size() > limit {
			t.Errorf("%s has %d bytes", name, info.Size())
		}
		for _, line := range readLines[spanLine](t, name) {
			if line.Service != "orders" || line.Name != "GET /quote" || len(line.Trace) != 32 {
				t.Errorf("line %+v", line)
			}
		}
	}
}

func TestCommandRefusesBadFlags(t *testing.T) {
	for name, c := range map[string]struct{ args, want string }{
		"unknown service": {"run --region eu-west --registry http://127.0.0.1:1 --services cart,orders", `service "cart" is not known`},
		"no region":       {"run --registry http://127.0.0.1:1", "--region"},
		"bad registry":    {"load --region eu-west --registry localhost", "http://127.0.0.1:7400"},
		"rate 0":          {"load --region eu-west --registry http://127.0.0.1:1 --rate 0", "rate"},
		"rate too high":   {"load --region eu-west --registry http://127.0.0.1:1 --rate 1e9", "rate"},
		"rate NaN":        {"load --region eu-west --registry http://127.0.0.1:1 --rate NaN", "rate"},
		"no duration":     {"load --region eu-west --registry http://127.0.0.1:1 --duration -1s", "duration"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			shop := Command()
			shop.SilenceUsage, shop.SilenceErrors = true, true
			shop.SetOut(&out)
			shop.SetErr(&out)
			shop.SetArgs(strings.Fields(c.args))
			err := shop.ExecuteContext(t.Context())
			var usage interface{ ExitCode() int }
			if !errors.As(err, &usage) || usage.ExitCode() != 2 || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}
