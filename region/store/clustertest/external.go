package clustertest

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nearside/nearside/region/store/etcdcluster"
)

// build builds etcd as its makers ship it, once for all tests of all packages.
var build = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "..", "..", "..")
	dir := filepath.Join(root, "e2e", ".artifacts")
	out := filepath.Join(dir, "etcd-"+version.Version)
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	tmp := fmt.Sprintf("%s.%d", out, os.Getpid()) // another package's test may be building it too
	cmd := exec.Command("go", "build", "-o", tmp, "go.etcd.io/etcd/server/v3")
	cmd.Dir = filepath.Join(root, "region")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building etcd: %w\n%s", err, b)
	}
	return out, os.Rename(tmp, out)
})

// External is a real etcd in a process of its own, as others run it: one member, TCP, no
// knowledge of Nearside.
type External struct {
	t    testing.TB
	URL  string // of its client listener
	args []string
	log  string
	cmd  *exec.Cmd
	tls  *etcdcluster.TLS
}

// NewExternal prepares an etcd; with tls it serves https and demands a certificate of the same CA.
func NewExternal(t testing.TB, tls *etcdcluster.TLS, more ...string) *External {
	t.Helper()
	dir := t.TempDir()
	e := &External{t: t, log: filepath.Join(dir, "log"), tls: tls}
	scheme := "http"
	if tls != nil {
		scheme = "https"
	}
	e.URL = scheme + "://" + FreeAddr(t)
	peer := "http://" + FreeAddr(t)
	e.args = []string{
		"--name", "other", "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", e.URL, "--advertise-client-urls", e.URL,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "other=" + peer,
		"--heartbeat-interval", "20", "--election-timeout", "200", "--log-level", "warn", "--log-outputs", e.log,
	}
	if tls != nil {
		e.args = append(e.args, "--cert-file", tls.CertFile, "--key-file", tls.KeyFile, "--trusted-ca-file", tls.CAFile, "--client-cert-auth")
	}
	e.args = append(e.args, more...)
	t.Cleanup(e.Kill)
	return e
}

// Start starts it, or starts it again on its data, and waits until it answers.
func (e *External) Start() {
	e.t.Helper()
	binary, err := build()
	if err != nil {
		e.t.Fatal(err)
	}
	e.cmd = exec.Command(binary, e.args...)
	e.cmd.Env = append(os.Environ(), "ETCD_UNSUPPORTED_ARCH=")
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	info := transport.TLSInfo{}
	if e.tls != nil {
		info = transport.TLSInfo{CertFile: e.tls.CertFile, KeyFile: e.tls.KeyFile, TrustedCAFile: e.tls.CAFile}
	}
	tr, err := transport.NewTransport(info, time.Second)
	if err != nil {
		e.t.Fatal(err)
	}
	tr.DisableKeepAlives = true
	client := http.Client{Transport: tr, Timeout: time.Second}
	ask := time.NewTicker(20 * time.Millisecond)
	defer ask.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		if resp, err := client.Get(e.URL + "/version"); err == nil { // served once it is ready; /health says no for an alarm too
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-ask.C:
		case <-late.C:
			b, _ := os.ReadFile(e.log)
			e.t.Fatalf("the external etcd does not answer at %s after %s:\n%s", e.URL, patience, tail(b))
		}
	}
}

// Kill ends it as kill -9 does; nothing when it does not run.
func (e *External) Kill() {
	if e.cmd != nil && e.cmd.Process != nil {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
		e.cmd = nil
	}
}

// Pause stops it without ending it (SIGSTOP); Resume lets it go on.
func (e *External) Pause() {
	_ = e.cmd.Process.Signal(syscall.SIGSTOP)
	each := time.NewTicker(time.Millisecond)
	defer each.Stop()
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); <-each.C {
		// The signal takes effect when the process is next looked at.
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", e.cmd.Process.Pid)); err != nil || strings.Contains(string(b), ") T ") {
			return
		}
	}
}

// Resume ends a Pause.
func (e *External) Resume() { _ = e.cmd.Process.Signal(syscall.SIGCONT) }

// Crowd does what others do who share the etcd: it writes under keys of its own and, when compact is set, drops all history.
func (e *External) Crowd(writes int, compact bool) {
	e.t.Helper()
	if e.tls != nil {
		e.t.Fatal("Crowd speaks plain text only")
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.URL}, Logger: zap.NewNop()})
	if err != nil {
		e.t.Fatal(err)
	}
	defer c.Close()
	var head int64
	for i := range writes {
		resp, err := c.Put(e.t.Context(), fmt.Sprintf("/theirs/%d", i), "x")
		if err != nil {
			e.t.Fatal(err)
		}
		head = resp.Header.Revision
	}
	if compact {
		if _, err := c.Compact(e.t.Context(), head); err != nil {
			e.t.Fatal(err)
		}
	}
}

func tail(b []byte) string {
	const most = 4000
	return strings.TrimSpace(string(b[max(0, len(b)-most):]))
}
