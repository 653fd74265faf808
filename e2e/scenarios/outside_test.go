package scenarios

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/nearside/nearside/e2e/cluster"
	nearside "github.com/nearside/nearside/sdk"
)

// maxOutsideModules is how many modules a program of the SDK's README may get by it, besides the SDK.
const maxOutsideModules = 8

// outsider is a module of somebody else, in a folder outside the checkout.
type outsider struct {
	t   *testing.T
	dir string
}

// goTool runs the go command as a user would who has no workspace. What it needs is in the module
// cache, since the SDK was built from there.
func (o *outsider) goTool(args ...string) string {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = o.dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off", "GOSUMDB=off")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		o.t.Fatalf("go %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), said.String())
	}
	return out.String()
}

// shell runs commands of the README, as they are, in a shell that knows where the checkout is.
func (o *outsider) shell(commands string) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-euc", commands)
	cmd.Dir = o.dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOPROXY=off", "GOSUMDB=off", "NEARSIDE="+checkout())
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Fatalf("%v\n%s\n%s", err, commands, out)
	}
}

// checkout is where the repository is.
func checkout() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..")
}

// Blocks of the README: a program's first line is its file, commands' the module they are for.
var (
	codeBlock  = regexp.MustCompile("(?s)```go\n// (\\S+\\.go)\n.*?```")
	shellBlock = regexp.MustCompile("(?s)```sh\n# (outside\\S*): .*?```")
)

// fromReadme makes a fresh module of what the SDK's README says, to the letter: its commands in
// their order, and between the first and the others the files.
func fromReadme(t *testing.T, module string, files ...string) *outsider {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(checkout(), "sdk", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	o := &outsider{t: t, dir: t.TempDir()}
	var commands []string
	for _, b := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		if b[1] == module {
			commands = append(commands, strings.TrimSuffix(strings.TrimPrefix(b[0], "```sh\n"), "```"))
		}
	}
	if len(commands) < 2 {
		t.Fatalf("%d blocks of commands for the module %s in sdk/README.md", len(commands), module)
	}
	o.shell(commands[0])
	write := func(name, content string) {
		path := filepath.Join(o.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, b := range codeBlock.FindAllStringSubmatch(string(text), -1) {
		if slices.Contains(files, b[1]) {
			write(b[1], strings.TrimSuffix(strings.TrimPrefix(b[0], "```go\n"), "```"))
			n++
		}
	}
	if n != len(files) {
		t.Fatalf("%d of the files %q in sdk/README.md", n, files)
	}
	for _, more := range commands[1:] {
		o.shell(more)
	}
	return o
}

// program is a process of the outsider's, and what it printed.
type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan error

	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func (o *outsider) run(name string, args ...string) *program {
	o.t.Helper()
	p := &program{t: o.t, cmd: exec.Command(filepath.Join(o.dir, "bin", name), args...), done: make(chan error, 1), more: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		o.t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	_ = w.Close()
	go func() {
		defer r.Close()
		for s := bufio.NewScanner(r); s.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
		}
		p.done <- p.cmd.Wait()
	}()
	o.t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// says waits until the program has printed n lines with a text after those it had printed when
// says was called.
func (p *program) says(text string, n int) {
	p.t.Helper()
	late := time.After(30 * time.Second)
	p.mu.Lock()
	seen := len(p.lines)
	p.mu.Unlock()
	for from := seen; ; {
		p.mu.Lock()
		lines, more := p.lines[from:], p.more
		p.mu.Unlock()
		for _, line := range lines {
			if strings.Contains(line, text) {
				n--
			}
		}
		from += len(lines)
		if n <= 0 {
			return
		}
		select {
		case <-more:
		case <-late:
			p.t.Fatalf("%s did not say %q %d times more:\n%s", filepath.Base(p.cmd.Path), text, n, p.output())
		}
	}
}

func (p *program) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// ends asks the program to end, and wants it to do so well.
func (p *program) ends() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case err := <-p.done:
		if err != nil {
			p.t.Errorf("%s: %v\n%s", filepath.Base(p.cmd.Path), err, p.output())
		}
	case <-time.After(30 * time.Second):
		p.t.Errorf("%s does not end\n%s", filepath.Base(p.cmd.Path), p.output())
	}
}

// P3, P10, P11 as an outsider has them: the programs of the SDK's README, in a module of their own,
// build, pass vet and their own test, bring few modules along, and go on when an instance dies, and when the
// registry dies and comes back.
func TestTheReadmesProgramsOutliveTheirRegistry(t *testing.T) {
	o := fromReadme(t, "outside", "orders/main.go", "shop/main.go", "shop/main_test.go")
	o.goTool("vet", "./...")

	var modules []string
	for line := range strings.Lines(o.goTool("list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./...")) {
		m := strings.TrimSpace(line)
		if m != "" && !strings.HasPrefix(m, "example.com/") && m != "github.com/nearside/nearside/sdk" && !slices.Contains(modules, m) {
			modules = append(modules, m)
		}
	}
	slices.Sort(modules)
	t.Logf("the program gets %d modules by the SDK: %s", len(modules), strings.Join(modules, " "))
	if n := len(modules); n == 0 || n > maxOutsideModules {
		t.Errorf("%d modules come along, and %d are the most", n, maxOutsideModules)
	}

	c := cluster.New(t, "us-east")
	registry := c.Node("us-east")
	registry.Start()
	a, b := o.run("orders", "-registry", registry.URL()), o.run("orders", "-registry", registry.URL())
	for _, p := range []*program{a, b} {
		cluster.Within(t, 30*time.Second, "orders is registered", func() error {
			if out := p.output(); !strings.Contains(out, "serving as orders-") {
				return fmt.Errorf("%q", out)
			}
			return nil
		})
	}
	says := func(p *program) string { return fmt.Sprintf("says process %d", p.cmd.Process.Pid) }
	snapshots := filepath.Join(o.dir, "snapshots")
	shop := o.run("shop", "-registry", registry.URL(), "-snapshots", snapshots)
	shop.says(says(a), 2)
	shop.says(says(b), 2)

	registry.Kill()
	shop.says("order 42", 10)
	shop.ends()
	again := o.run("shop", "-registry", registry.URL(), "-snapshots", snapshots)
	again.says(says(a), 2) // there is no registry: from the snapshot
	a.signal(syscall.SIGKILL)
	again.says(says(b), 10)

	registry.Start()
	third := o.run("orders", "-registry", registry.URL())
	again.says(says(third), 2)
	b.signal(syscall.SIGSTOP)
	again.says(says(third), 10)
	b.signal(syscall.SIGCONT)
	b.ends()
	again.says(says(third), 2)
	again.ends()
	third.ends()
	for _, p := range []*program{shop, again} {
		if strings.Contains(p.output(), "failed") {
			t.Errorf("a call failed:\n%s", p.output())
		}
	}
}

// The README's program for gRPC, in a module of its own with two replacements, builds, and calls a
// server that is registered.
func TestTheReadmesProgramForGRPC(t *testing.T) {
	o := fromReadme(t, "outside-grpc", "healthy/main.go")
	o.goTool("vet", "./...")

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-served })

	c := cluster.New(t, "us-east")
	registry := c.Node("us-east")
	registry.Start()
	client, err := nearside.New(nearside.Config{Addresses: []string{registry.URL()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	_, err = client.Register(t.Context(), nearside.Registration{
		Service: "orders", Address: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, DrainDelay: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	asker := o.run("healthy", "-registry", registry.URL())
	select {
	case err := <-asker.done:
		if out := asker.output(); err != nil || out != "SERVING" {
			t.Errorf("%v, %q", err, out)
		}
	case <-time.After(time.Minute):
		t.Fatalf("it does not end:\n%s", asker.output())
	}
}
