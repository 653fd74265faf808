package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

const hundredThousand = 100_000

// BenchmarkMemory loads 100,000 instances from a store in memory, and counts what is in use
// beside that store.
func BenchmarkMemory(b *testing.B) {
	if b.N > 1 {
		return
	}
	b.ReportMetric(0, "ns/op")
	m, err := memstore.New("eu-west")
	if err != nil {
		b.Fatal(err)
	}
	meta := map[string]string{}
	for i := range 5 {
		meta[fmt.Sprintf("key-%d", i)] = fmt.Sprintf("value of key %d", i)
	}
	var ops []store.Op
	for n := range hundredThousand {
		in := api.Instance{
			Namespace: api.DefaultNamespace, Service: api.ServiceName(fmt.Sprintf("s%d", n/10)), ID: api.InstanceID(fmt.Sprintf("i%d", n)),
			Address: fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255), Port: 8080, Zone: "a", Weight: 100, Version: "1.4.2", Tags: []string{"http"},
			Metadata: meta, TTL: api.Duration(api.MaxTTL), Incarnation: 1, Status: api.StatusPassing, StatusSince: time.Now(), RegisteredAt: time.Now(),
		}
		value, err := catalog.EncodeInstance(in)
		if err != nil {
			b.Fatal(err)
		}
		ops = append(ops, store.Op{Key: catalog.InstanceRecordKey(in.Key()), Value: value})
		if len(ops) == store.MaxOps {
			if _, err := m.Commit(b.Context(), ops); err != nil {
				b.Fatal(err)
			}
			ops = ops[:0]
		}
	}
	if _, err := m.Commit(b.Context(), ops); err != nil {
		b.Fatal(err)
	}
	before := inUse()
	r, err := registry.New(registry.Config{Region: "eu-west", Store: m})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ran := make(chan error, 1)
	began := time.Now()
	go func() { ran <- r.Run(ctx) }()
	<-r.Loaded()
	took := time.Since(began)
	loaded := inUse()
	for n := range hundredThousand / 10 {
		if _, _, err := r.Resolve(ctx, registry.ResolveQuery{Service: api.ServiceName(fmt.Sprintf("s%d", n))}); err != nil {
			b.Fatal(err)
		}
	}
	each := float64(inUse()-before) / hundredThousand
	stop()
	<-ran
	runtime.KeepAlive(m)
	report(b, figure{
		what: "memory of an instance, 5 metadata keys, of 100,000", got: fmt.Sprintf("%.0f bytes, every service resolved", each),
		yardstick: fmt.Sprintf("loaded only %.0f; loading took %s", float64(loaded-before)/hundredThousand, took.Round(time.Millisecond)),
		goal:      "≤ 1,536 bytes, etcd apart", reached: each <= 1536,
	})
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkRestart kills a node of 100,000 instances and starts it again, as the binary.
func BenchmarkRestart(b *testing.B) {
	if b.N > 1 {
		return
	}
	b.ReportMetric(0, "ns/op")
	dir := b.TempDir()
	binary := program(b, dir)
	p, addr, _ := startNode(b, binary, dir)
	began := time.Now()
	seed(b, &server{places: places{Node: addr}}, hundredThousand/10, 5)
	b.Logf("%d instances registered in batches through HTTP: %.0f/s", hundredThousand, hundredThousand/time.Since(began).Seconds())
	var took []time.Duration
	rss, store := 0, 0
	for range 3 {
		_ = p.Process.Kill()
		_ = p.Wait()
		var d time.Duration
		p, _, d = startNode(b, binary, dir)
		took = append(took, d)
		rss, store = residentKiB(p.Process.Pid), 0
		for _, child := range childrenOf(p.Process.Pid) { // etcd
			store += residentKiB(child)
		}
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	_ = p.Wait()
	slices.Sort(took)
	report(b, figure{
		what: "restart after kill -9, 100,000 instances", got: fmt.Sprintf("ready in %s", took[1].Round(time.Millisecond)),
		yardstick: fmt.Sprintf("%s to %s; resident %d MiB, and etcd %d MiB", took[0].Round(time.Millisecond), took[2].Round(time.Millisecond), rss/1024, store/1024),
		goal:      "≤ 5 s", reached: took[1] <= 5*time.Second,
	})
}

// program returns the binary, built into dir unless NEARSIDE_BINARY names one.
func program(b *testing.B, dir string) string {
	b.Helper()
	if binary := os.Getenv("NEARSIDE_BINARY"); binary != "" {
		return binary
	}
	binary := filepath.Join(dir, "nearside")
	build := exec.Command("go", "build", "-o", binary, "github.com/nearside/nearside/services/cmd/nearside")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// startNode starts the binary and returns once /readyz is fine, and how long that took.
func startNode(b *testing.B, binary, dir string) (*exec.Cmd, string, time.Duration) {
	b.Helper()
	p, r, took := startRegion(b, binary, dir, "eu-west", "--roles", "region")
	return p, r.HTTPAddr, took
}

// startRegion is startNode for any region, with further flags.
func startRegion(b *testing.B, binary, dir, region string, flags ...string) (*exec.Cmd, api.ReadyFile, time.Duration) {
	b.Helper()
	ready := filepath.Join(dir, "ready")
	_ = os.Remove(ready)
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	p := exec.Command(binary, append([]string{
		"server", "--dev", "--region", region, "--data-dir", filepath.Join(dir, "data"), "--http-addr", "127.0.0.1:0", "--ready-file", ready,
	}, flags...)...)
	p.Stdout, p.Stderr = log, log
	began := time.Now()
	if err := p.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Process.Kill() })
	for time.Since(began) < time.Minute {
		var r api.ReadyFile
		if text, err := os.ReadFile(ready); err == nil && json.Unmarshal(text, &r) == nil {
			resp, err := http.Get(r.HTTP + api.PathReadyz)
			if err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return p, r, time.Since(began)
				}
			}
		}
		<-time.After(2 * time.Millisecond)
	}
	text, _ := os.ReadFile(filepath.Join(dir, "log"))
	b.Fatalf("the node is not ready:\n%s", text)
	return nil, api.ReadyFile{}, 0
}

// childrenOf returns the processes whose parent a process is.
func childrenOf(pid int) (out []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		// The name may hold anything; what follows its closing bracket is state and parent.
		fields := strings.Fields(string(text)[strings.LastIndex(string(text), ")")+1:])
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			out = append(out, child)
		}
	}
	return out
}

func residentKiB(pid int) (kib int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib
		}
	}
	return 0
}
