package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/sdk/api"
)

// childMode makes the test binary play the program that register runs.
const childMode = "NEARSIDE_CLI_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(playChild(mode, os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// playChild listens on the port in args[0] and tells its life to the file in args[1].
func playChild(mode string, args []string) int {
	tell := func(what string) {
		f, err := os.OpenFile(args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintln(f, what)
			f.Close()
		}
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	tell("started " + os.Getenv("NEARSIDE_SERVICE") + "/" + os.Getenv("NEARSIDE_INSTANCE_ID"))
	if mode == "dies" {
		return 7
	}
	if mode != "silent" {
		l, err := net.Listen("tcp", "127.0.0.1:"+args[0])
		if err != nil {
			return 99
		}
		defer l.Close()
		mux := http.NewServeMux()
		mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) { tell("asked") })
		mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(5) })
		go func() { _ = http.Serve(l, mux) }()
	}
	for sig := range signals {
		tell("signal " + sig.String())
		switch {
		case mode == "stubborn":
		case sig == syscall.SIGTERM:
			return 3
		case sig == os.Interrupt:
			return 4
		}
	}
	return 0
}

// registry is a fake region node: it acknowledges instances and writes down what it heard.
type registry struct {
	*httptest.Server
	journal string
	refuse  *api.Error

	mu    sync.Mutex
	inst  *api.Instance
	heard chan struct{} // closed and replaced at every request
}

func newRegistry(t *testing.T, journal string) *registry {
	t.Helper()
	r := &registry{journal: journal, heard: make(chan struct{})}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *registry) serve(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { close(r.heard); r.heard = make(chan struct{}) }()
	w.Header().Set(api.HeaderRegion, "eu-west")
	path := strings.TrimPrefix(q.URL.Path, "/v1/services/")
	parts := strings.Split(path, "/") // service, "instances", id, what
	switch {
	case r.refuse != nil:
		w.Header().Set("Content-Type", api.ProblemType)
		w.WriteHeader(r.refuse.Code.HTTPStatus())
		_ = json.NewEncoder(w).Encode(r.refuse.Problem("req-9"))
	case len(parts) < 3:
		w.WriteHeader(http.StatusNotFound)
	case q.Method == http.MethodPut && len(parts) == 3:
		var reg api.Registration
		if err := api.DecodeStrict(q.Body, &reg); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		i := api.Instance{
			Namespace: "default", Service: api.ServiceName(parts[0]), ID: api.InstanceID(parts[2]), Region: "eu-west", Zone: reg.Zone,
			Address: reg.Address, Port: reg.Port, Weight: *reg.Weight, TTL: reg.TTL, Incarnation: reg.Incarnation, Status: api.StatusPassing,
			Tags: reg.Tags, Metadata: reg.Metadata,
		}
		r.inst = &i
		r.write("put " + parts[0] + "/" + parts[2])
		_ = json.NewEncoder(w).Encode(i)
	case q.Method == http.MethodPut && parts[3] == "status":
		var c api.StatusChange
		_ = api.DecodeStrict(q.Body, &c)
		r.inst.Status = c.Status
		r.write("status " + string(c.Status))
		_ = json.NewEncoder(w).Encode(r.inst)
	case q.Method == http.MethodPut:
		_ = json.NewEncoder(w).Encode(api.HeartbeatAck{ID: r.inst.ID, Status: r.inst.Status, TTL: r.inst.TTL})
	case q.Method == http.MethodDelete:
		r.inst = nil
		r.write("delete " + parts[0] + "/" + parts[2])
		w.WriteHeader(http.StatusNoContent)
	}
}

func (r *registry) write(what string) {
	f, err := os.OpenFile(r.journal, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintln(f, what)
		f.Close()
	}
}

// instance waits until an instance is registered.
func (r *registry) instance(t *testing.T) api.Instance {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		inst, heard := r.inst, r.heard
		r.mu.Unlock()
		if inst != nil {
			return *inst
		}
		select {
		case <-heard:
		case <-deadline:
			t.Fatal("no instance was registered within 20 s")
		}
	}
}

// running is a register in the background.
type running struct {
	signals chan os.Signal
	done    chan struct{}
	code    int
	out     *notifying
}

func startRegister(t *testing.T, ctx context.Context, addr string, args ...string) *running {
	t.Helper()
	r := &running{signals: make(chan os.Signal, 4), done: make(chan struct{}), out: &notifying{}}
	a := &app{
		stdin: strings.NewReader(""), stdout: r.out, stderr: r.out, now: time.Now,
		lookupEnv:     func(k string) (string, bool) { return addr, k == "NEARSIDE_ADDR" },
		notifySignals: func() (<-chan os.Signal, func()) { return r.signals, func() {} },
	}
	go func() {
		defer close(r.done)
		r.code = a.run(ctx, append([]string{"register"}, args...))
	}()
	return r
}

func (r *running) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-r.done:
		return r.code
	case <-time.After(30 * time.Second):
		t.Fatalf("register did not end within 30 s; it said:\n%s", r.out.text())
		return 0
	}
}

// story is the setting of a test with a child: a free port and a journal that child and
// registry both write.
type story struct {
	port    string
	journal string
	reg     *registry
}

func newStory(t *testing.T, mode string) story {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	journal := filepath.Join(t.TempDir(), "journal")
	t.Setenv(childMode, mode)
	return story{port: port, journal: journal, reg: newRegistry(t, journal)}
}

func (s story) start(t *testing.T, flags ...string) *running {
	t.Helper()
	args := append([]string{"web", "--port", s.port, "--id", "web-1", "--drain", "10ms"}, flags...)
	return startRegister(t, t.Context(), s.reg.URL, append(args, "--", os.Args[0], s.port, s.journal)...)
}

func (s story) want(t *testing.T, lines ...string) {
	t.Helper()
	b, _ := os.ReadFile(s.journal)
	if got, want := string(b), strings.Join(lines, "\n")+"\n"; got != want {
		t.Errorf("what happened:\n%s\nwant:\n%s", got, want)
	}
}

// The whole life: the program starts, its port opens, it is registered; a signal drains
// and deregisters it first and reaches it last; its exit code is ours.
func TestRegisterCommandLife(t *testing.T) {
	s := newStory(t, "serves")
	r := s.start(t, "--zone", "a", "--tag", "blue", "--tag", "v1", "--meta", "owner=shop", "--weight", "50", "--ttl", "30s")
	got := s.reg.instance(t)
	if got.Address != "127.0.0.1" || strconv.Itoa(got.Port) != s.port || got.Zone != "a" || got.Weight != 50 ||
		got.TTL.D() != 30*time.Second || strings.Join(got.Tags, ",") != "blue,v1" || got.Metadata["owner"] != "shop" {
		t.Errorf("registered %+v", got)
	}
	r.signals <- syscall.SIGTERM
	if code := r.wait(t); code != 3 {
		t.Errorf("exit %d, want the program's 3:\n%s", code, r.out.text())
	}
	s.want(t, "started web/web-1", "put web/web-1", "status draining", "status draining", "delete web/web-1", "signal terminated")
}

// Ctrl-C arrives as SIGINT, not as something else.
func TestRegisterForwardsTheSameSignal(t *testing.T) {
	s := newStory(t, "serves")
	r := s.start(t)
	s.reg.instance(t)
	r.signals <- os.Interrupt
	if code := r.wait(t); code != 4 {
		t.Errorf("exit %d, want 4:\n%s", code, r.out.text())
	}
}

// With --check the instance is registered only after its own health endpoint said yes.
func TestRegisterWaitsForTheCheck(t *testing.T) {
	s := newStory(t, "serves")
	r := s.start(t, "--check", "http=/healthz")
	s.reg.instance(t)
	r.signals <- syscall.SIGTERM
	r.wait(t)
	s.want(t, "started web/web-1", "asked", "put web/web-1", "status draining", "status draining", "delete web/web-1", "signal terminated")
}

// A program that ends by itself is deregistered, and its exit code is ours.
func TestRegisterProgramEnds(t *testing.T) {
	s := newStory(t, "serves")
	r := s.start(t, "--drain", "1h")
	s.reg.instance(t)
	if resp, err := http.Get("http://127.0.0.1:" + s.port + "/exit"); err == nil {
		resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	if code := r.wait(t); code != 5 {
		t.Errorf("exit %d, want 5:\n%s", code, r.out.text())
	}
	s.want(t, "started web/web-1", "put web/web-1", "status draining", "delete web/web-1")
}

// A program that ends before its port opens was never registered.
func TestRegisterProgramDiesEarly(t *testing.T) {
	s := newStory(t, "dies")
	if code := s.start(t).wait(t); code != 7 {
		t.Errorf("exit %d, want 7", code)
	}
	s.want(t, "started web/web-1")
}

// A signal before the port opens goes straight to the program.
func TestRegisterSignalBeforeReady(t *testing.T) {
	s := newStory(t, "silent")
	r := s.start(t)
	waitForFile(t, s.journal)
	r.signals <- syscall.SIGTERM
	if code := r.wait(t); code != 3 {
		t.Errorf("exit %d, want 3:\n%s", code, r.out.text())
	}
	s.want(t, "started web/web-1", "signal terminated")
}

// A program that will not stop is killed after --stop-timeout: 128 + SIGKILL.
func TestRegisterKillsTheStubborn(t *testing.T) {
	s := newStory(t, "stubborn")
	r := s.start(t, "--stop-timeout", "50ms")
	s.reg.instance(t)
	r.signals <- syscall.SIGTERM
	if code := r.wait(t); code != 128+int(syscall.SIGKILL) {
		t.Errorf("exit %d, want 137:\n%s", code, r.out.text())
	}
}

// A second signal cuts the drain short.
func TestRegisterSecondSignalEndsTheDrain(t *testing.T) {
	s := newStory(t, "serves")
	r := s.start(t, "--drain", "1h")
	s.reg.instance(t)
	r.signals <- syscall.SIGTERM
	r.signals <- syscall.SIGTERM
	if code := r.wait(t); code != 3 {
		t.Errorf("exit %d, want 3:\n%s", code, r.out.text())
	}
}

// A hang-up is the program's business and ends nothing.
func TestRegisterPassesHangUpOn(t *testing.T) {
	s := newStory(t, "serves")
	r := s.start(t)
	s.reg.instance(t)
	r.signals <- syscall.SIGHUP
	r.signals <- syscall.SIGTERM
	if code := r.wait(t); code != 3 {
		t.Errorf("exit %d, want 3:\n%s", code, r.out.text())
	}
	b, _ := os.ReadFile(s.journal)
	wantContains(t, "journal", string(b), "signal hangup\n")
}

// A definite no ends the program and is the exit code.
func TestRegisterRefused(t *testing.T) {
	s := newStory(t, "serves")
	s.reg.refuse = &api.Error{Code: api.CodeForbidden, Detail: "this token may not register web"}
	r := s.start(t)
	if code := r.wait(t); code != ExitNotAllowed {
		t.Errorf("exit %d, want %d:\n%s", code, ExitNotAllowed, r.out.text())
	}
	s.want(t, "started web/web-1", "signal terminated")
	wantContains(t, "stderr", r.out.text(), "this token may not register web")
}

// A registry that is away does not keep the program from running.
func TestRegisterWithoutRegistry(t *testing.T) {
	s := newStory(t, "serves")
	s.reg.Close()
	r := s.start(t)
	r.out.waitFor(t, "waits for the registry")
	r.signals <- syscall.SIGTERM
	if code := r.wait(t); code != 3 {
		t.Errorf("exit %d, want 3:\n%s", code, r.out.text())
	}
}

// Without a command it stays until a signal, deregisters and exits 0; ctx counts as a signal.
func TestRegisterAlone(t *testing.T) {
	reg := newRegistry(t, filepath.Join(t.TempDir(), "journal"))
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r := startRegister(t, ctx, reg.URL, "legacy", "--service-addr", "10.0.0.9:3306", "--drain", "0s")
	if got := reg.instance(t); got.Address != "10.0.0.9" || got.Port != 3306 || !strings.HasPrefix(string(got.ID), "legacy-") || !strings.HasSuffix(string(got.ID), "-3306") {
		t.Errorf("registered %+v", got)
	}
	interrupt()
	if code := r.wait(t); code != ExitOK {
		t.Errorf("exit %d, want 0:\n%s", code, r.out.text())
	}
	wantContains(t, "stderr", r.out.text(), "deregistered legacy/legacy-")
}

// Mistakes are found before anything runs.
func TestRegisterUsage(t *testing.T) {
	s := newStory(t, "serves")
	for args, part := range map[string]string{
		"web -- true": "either --port or --service-addr",
		"web --port 80 --service-addr h:80 -- true":  "either --port or --service-addr",
		"web --port 99999 -- true":                   "port 99999 is out of range",
		"web --service-addr nohost -- true":          "not HOST:PORT",
		"web --port 80 --meta x -- true":             "not KEY=VALUE",
		"web --port 80 --weight 0 -- true":           "--weight 0",
		"web --port 80 --ttl 1ms -- true":            "ttl 1ms is out of range",
		"web --port 80 --check ping -- true":         `--check "ping"`,
		"web --port 80 --check tcp=x -- true":        `"x" is not a port`,
		"web --port 80 --id a/b -- true":             "instance id",
		"Web --port 80 -- true":                      `service "Web"`,
		"web --port 80 --":                           "no command after --",
		"web true --port 80":                         `unexpected argument "true"`,
		"--port 80 -- true":                          "the service is missing",
		"web --port 80 -- /nowhere/to/be/found":      "cannot run",
		"web --port 80 --check http=:0/x -- /bin/ls": `"0" is not a port`,
	} {
		t.Run(args, func(t *testing.T) {
			r := startRegister(t, t.Context(), s.reg.URL, strings.Fields(args)...)
			if code := r.wait(t); code != ExitUsage {
				t.Errorf("exit %d, want 2:\n%s", code, r.out.text())
			}
			wantContains(t, "stderr", r.out.text(), part)
		})
	}
	if b, err := os.ReadFile(s.journal); err == nil {
		t.Errorf("something ran: %s", b)
	}
}

func waitForFile(t *testing.T, path string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(path); err == nil && strings.HasSuffix(string(b), "\n") {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s was not written within 20 s", path)
		}
	}
}
