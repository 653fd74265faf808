package etcdchild_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/etcdchild"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/sdk/api"
)

const (
	measureStarts    = 10
	measureInstances = 20_000
	measureClients   = 64
	measureSingles   = 300
)

// BenchmarkInProcessAndAsChild measures a registry whose etcd runs in its own process, and one
// whose etcd is a supervised child, in turn and each in a fresh process:
//
//	go test -run '^$' -bench InProcessAndAsChild -benchtime 1x ./region/store/etcdchild
func BenchmarkInProcessAndAsChild(b *testing.B) {
	for range b.N {
		runs := map[string][]measurement{}
		for i := range measureStarts {
			for _, way := range []string{"in-process", "child"} {
				n := 0
				if i%5 == 0 { // 2 of 10 starts are followed by the work
					n = measureInstances
				}
				cmd := exec.Command(os.Args[0], "measure", way, strconv.Itoa(n))
				cmd.Stderr = os.Stderr
				out, err := cmd.Output()
				if err != nil {
					b.Fatal(err)
				}
				var m measurement
				if err := json.Unmarshal(out, &m); err != nil {
					b.Fatal(err)
				}
				runs[way] = append(runs[way], m)
			}
		}
		for _, way := range []string{"in-process", "child"} {
			var starts, singles []time.Duration
			var rate []float64
			var first, last measurement
			for _, m := range runs[way] {
				starts = append(starts, m.Ready)
				if m.Rate > 0 {
					rate, singles, last = append(rate, m.Rate), append(singles, m.Single), m
				} else {
					first = m
				}
			}
			b.Logf("%s: start to ready p50 %s, slowest %s; memory (RSS) empty: node %d MiB, child %d MiB; with %d instances: node %d MiB, child %d MiB; registrations/s with %d clients %.0f; one registration at a time p50 %s",
				way, mid(starts), slices.Max(starts), first.Node>>20, first.Child>>20, measureInstances, last.NodeFull>>20, last.ChildFull>>20, measureClients, rate, mid(singles))
			b.ReportMetric(mid(starts).Seconds()*1e3, way+"-ready-ms")
			b.ReportMetric(slices.Max(rate), way+"-registrations/s")
		}
	}
}

func mid(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2].Round(100 * time.Microsecond)
}

// measurement is what one process found. Memory is in bytes.
type measurement struct {
	Ready               time.Duration // from nothing to a loaded catalogue
	Node, Child         int64         // with no instance
	Rate                float64       // registrations a second, 64 at a time
	Single              time.Duration // p50 of one registration at a time
	NodeFull, ChildFull int64
}

// measured is the process that measures one way.
func measured(way, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nearside-measure-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var m measurement
	begun := time.Now()
	var member interface {
		Endpoint() string
		Room(bool) error
		Close() error
	}
	pid := func() int { return 0 }
	if way == "child" {
		s, err := etcdchild.Start(etcdchild.Config{Config: config(dir)})
		if err != nil {
			return err
		}
		if err := s.Await(ctx); err != nil {
			return err
		}
		member, pid = s, func() int { return s.State().PID }
	} else {
		s, err := etcdnode.Start(ctx, config(dir))
		if err != nil {
			return err
		}
		member = s
	}
	st, err := etcdstore.Open(ctx, etcdstore.Config{Endpoints: []string{member.Endpoint()}, Region: "eu-west", Room: member.Room})
	if err != nil {
		return err
	}
	r, err := registry.New(registry.Config{Region: "eu-west", Node: "n1", Store: st})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Loaded()
	m.Ready = time.Since(begun)
	m.Node, m.Child = resident(os.Getpid()), resident(pid())
	if n > 0 {
		if err := m.register(ctx, r, n); err != nil {
			return err
		}
		m.NodeFull, m.ChildFull = resident(os.Getpid()), resident(pid())
	}
	cancel()
	if err := errors.Join(<-done, st.Close(), member.Close()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}

func (m *measurement) register(ctx context.Context, r *registry.Registry, n int) error {
	one := func(id int) error {
		key := api.InstanceKey{Namespace: "default", Service: api.ServiceName("s" + strconv.Itoa(id%200)), ID: api.InstanceID("i" + strconv.Itoa(id))}
		_, _, err := r.Register(ctx, key, api.Registration{
			Address: "10.0.0.1", Port: 80, TTL: api.Duration(time.Hour),
			Metadata: map[string]string{"team": "shop", "build": "4711", "commit": "0123456789abcdef", "rack": "r17", "owner": "payments"},
		})
		return err
	}
	var next, failed atomic.Int64
	var clients sync.WaitGroup
	begun := time.Now()
	for range measureClients {
		clients.Go(func() {
			for id := int(next.Add(1)); id <= n; id = int(next.Add(1)) {
				if one(id) != nil {
					failed.Add(1)
				}
			}
		})
	}
	clients.Wait()
	m.Rate = float64(n) / time.Since(begun).Seconds()
	if f := failed.Load(); f > 0 {
		return fmt.Errorf("%d registrations failed", f)
	}
	var took []time.Duration
	for i := range measureSingles {
		begun := time.Now()
		if err := one(n + 1 + i); err != nil {
			return err
		}
		took = append(took, time.Since(begun))
	}
	m.Single = mid(took)
	return nil
}

// resident is the memory of a process that is in use, in bytes; 0 for none.
func resident(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}
