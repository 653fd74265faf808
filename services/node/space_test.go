package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P10: a full disk stops registrations, by name and before etcd would notice; reads and
// heartbeats go on, the node lives, and with the disk the registrations come back.
func TestFullDiskStopsRegistrationsOnly(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("SKIPPED: a small disk can be mounted by root on Linux only")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "mount", "-t", "tmpfs", "-o", "size=320m", "nearside-test", dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no small disk can be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	n := start(t, Config{Region: "us-east", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0", DataDir: filepath.Join(dir, "data")})
	ask := func(want int, method, path, body string, out any) error {
		status, err := call(http.DefaultClient, method, n.ready.HTTP+path, "", body, out)
		if err == nil && status != want {
			err = fmt.Errorf("%s %s: %d, want %d", method, path, status, want)
		}
		return err
	}
	registration := `{"address":"127.0.0.1","port":80,"ttl":"1h"}`
	orders := func(id api.InstanceID) string { return api.PathInstance("orders", id) }
	if err := ask(201, "PUT", orders("o-1"), registration, nil); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign")
	fill(t, foreign)
	if err := ask(507, "PUT", orders("o-2"), registration, nil); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"resolve":   ask(200, "GET", api.PathResolve("orders"), "", nil),
		"list":      ask(200, "GET", api.PathInstances("orders"), "", nil),
		"strong":    ask(200, "GET", api.PathInstances("orders")+"?consistency=strong", "", nil),
		"heartbeat": ask(200, "PUT", orders("o-1")+"/heartbeat", "", nil),
		"refresh":   ask(200, "PUT", orders("o-1"), registration, nil),
		"live":      ask(200, "GET", api.PathLivez, "", nil),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	var told string
	if resp, err := http.Get(n.ready.HTTP + api.PathReadyz); err != nil {
		t.Error(err)
	} else {
		b := make([]byte, 4096)
		m, _ := resp.Body.Read(b)
		_ = resp.Body.Close()
		told = string(b[:m])
		if resp.StatusCode != 503 || !strings.Contains(told, filepath.Join(dir, "data")) || !strings.Contains(told, "free") {
			t.Errorf("%d %s", resp.StatusCode, told)
		}
	}
	t.Logf("/readyz: %s", told)
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	within(t, 5*time.Second, "registrations are taken again", func() error { return ask(201, "PUT", orders("o-2"), registration, nil) })
	t.Logf("registrations were taken again %s after the disk had room", time.Since(begun).Round(time.Millisecond))
	within(t, 15*time.Second, "the node is ready again", func() error { return ask(200, "GET", api.PathReadyz, "", nil) })
	if err := n.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}

	// P11: a start on the full disk needs no human either.
	fill(t, foreign)
	url, ended := run(t, Config{Region: "us-east", DataDir: filepath.Join(dir, "data")})
	again := func(want int, path string) error {
		select {
		case err := <-ended:
			t.Fatalf("the node ended: %v", err)
		default:
		}
		status, err := call(http.DefaultClient, "GET", url+path, "", "", nil)
		if err == nil && status != want {
			err = fmt.Errorf("%s: %d, want %d", path, status, want)
		}
		return err
	}
	within(t, 20*time.Second, "a node that was started on the full disk reads from its copy", func() error {
		return errors.Join(again(200, orders("o-1")), again(503, api.PathReadyz))
	})
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	within(t, 60*time.Second, "it is ready once there is room", func() error { return again(200, api.PathReadyz) })
}

// fill writes to a file until its disk takes nothing more.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	_ = f.Close()
}

// The quota that a node is told is its store's.
func TestStoreQuotaReachesTheStore(t *testing.T) {
	n := start(t, Config{Region: "us-east", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0", StoreQuota: 32 << 20})
	within(t, 20*time.Second, "the quota is among the metrics", func() error {
		resp, err := http.Get(n.ready.HTTP + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && !regexp.MustCompile(`(?m)^nearside_store_quota_bytes(\{.*\})? 3\.3554432e\+07$`).Match(b) {
			err = errors.New("it is not")
		}
		return err
	})
}
