package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	nearside "github.com/nearside/nearside/sdk"
)

// BenchmarkClientMemory is what a client of the SDK keeps of the services that it watches: 1,000
// of them, of 3 and of 100 instances, of a real node. What the instances alone take as JSON is beside it.
func BenchmarkClientMemory(b *testing.B) {
	if b.N > 1 {
		return
	}
	b.ReportMetric(0, "ns/op")
	for _, c := range []struct{ each, most int }{{3, 16 << 10}, {100, 256 << 10}} {
		s := startServer(b, b.TempDir())
		const services = 1000
		seedEach(b, s, services, c.each, 2)
		before := inUse()
		client, err := nearside.New(nearside.Config{Addresses: []string{"http://" + s.Node}})
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		size := watchAll(b, client, services)
		took := time.Since(began)
		each := int(inUse()-before) / services
		runtime.KeepAlive(client)
		if err := client.Close(); err != nil {
			b.Error(err)
		}
		report(b, figure{
			what: fmt.Sprintf("SDK: memory of a watched service of %d", c.each), got: fmt.Sprintf("%d bytes, of 1,000 services", each),
			yardstick: fmt.Sprintf("as JSON %d; all known after %s", size/services, took.Round(10*time.Millisecond)),
			goal:      fmt.Sprintf("≤ %d bytes", c.most), reached: each <= c.most,
		})
	}
}

// watchAll asks for every service once, and returns the size of all answers as JSON.
func watchAll(b *testing.B, client *nearside.Client, services int) (size int) {
	b.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for i := range services {
		all.Go(func() {
			name := fmt.Sprintf("s%d", i)
			r, err := client.Resolve(b.Context(), name)
			for tries := 0; errors.Is(err, nearside.ErrUnreachable) && tries < 60; tries++ {
				r, err = client.Resolve(b.Context(), name) // a thousand at once may take longer than the first may wait
			}
			text, _ := json.Marshal(r.Endpoints)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || len(r.Endpoints) == 0 {
				errs = append(errs, fmt.Errorf("%s: %d endpoints, %w", name, len(r.Endpoints), err))
			}
			size += len(text)
		})
	}
	all.Wait()
	if len(errs) > 0 {
		b.Fatalf("%d services without an answer, %v", len(errs), errs[0])
	}
	return size
}

// BenchmarkClientDependencies counts what the SDK brings into a program: modules, packages, and bytes of
// the binary beside the same program with net/http alone.
func BenchmarkClientDependencies(b *testing.B) {
	if b.N > 1 {
		return
	}
	b.ReportMetric(0, "ns/op")
	const sdk = "github.com/nearside/nearside/sdk"
	out := goTool(b, "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{.Module.Path}}{{end}}", sdk)
	modules, packages := map[string]bool{}, 0
	for line := range strings.Lines(out) {
		if _, module, ok := strings.Cut(strings.TrimSpace(line), " "); ok && module != sdk {
			packages++
			modules[module] = true
		}
	}
	dir := b.TempDir()
	size := func(name, source string) int64 {
		file := filepath.Join(dir, name+".go")
		if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
			b.Fatal(err)
		}
		goTool(b, "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), file)
		f, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			b.Fatal(err)
		}
		return f.Size()
	}
	plain := size("plain", "package main\n\nimport \"net/http\"\n\nfunc main() { _, _ = http.Get(\"http://orders/\") }\n")
	ours := size("ours", "package main\n\nimport (\n\t\"net/http\"\n\n\tnearside \""+sdk+"\"\n)\n\n"+
		"func main() {\n\tc, err := nearside.New(nearside.Config{Addresses: []string{\"http://127.0.0.1:7400\"}})\n\tif err != nil {\n\t\tpanic(err)\n\t}\n"+
		"\t_, _ = (&http.Client{Transport: c.Transport(nil)}).Get(\"http://orders/\")\n}\n")
	const most = 12 // as the house rules list them
	report(b, figure{
		what: "SDK: modules that it brings into a program", got: fmt.Sprintf("%d modules, %d packages", len(modules), packages),
		yardstick: fmt.Sprintf("binary %.1f MiB, with net/http alone %.1f", float64(ours)/(1<<20), float64(plain)/(1<<20)),
		goal:      fmt.Sprintf("≤ %d modules", most), reached: len(modules) <= most,
	})
}

// goTool runs the go command in this module, and returns what it says.
func goTool(b *testing.B, args ...string) string {
	b.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath")
	var failure strings.Builder
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("go %s: %v: %s", strings.Join(args, " "), err, failure.String())
	}
	return string(out)
}
