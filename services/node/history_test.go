package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/backup"
)

// P4, P11: a program that runs on while its region, which has no peers, is restored twice from one backup and then
// wiped believes each new history within seconds: what it holds lifts the store above the generations of the lost ones.
func TestRunningProgramFollowsARegionThatLostItsHistory(t *testing.T) {
	cfg := Config{Region: "us-east", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0"}
	n := start(t, cfg)
	register := func(id api.InstanceID) {
		t.Helper()
		status, err := call(http.DefaultClient, "PUT", n.ready.HTTP+api.PathInstance("orders", id), "", `{"address":"127.0.0.1","port":80,"ttl":"60s"}`, nil)
		if err != nil || status != 201 {
			t.Fatalf("register %s: %d, %v", id, status, err)
		}
	}
	register("o-0")
	resp, err := http.Get(n.ready.HTTP + api.PathSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("snapshot: %d, %v", resp.StatusCode, err)
	}
	file := filepath.Join(t.TempDir(), "saved")
	if err := os.WriteFile(file, saved, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := nearside.New(nearside.Config{Addresses: []string{n.ready.HTTP}, Region: "us-east"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	finds := func(id api.InstanceID) {
		t.Helper()
		within(t, 30*time.Second, "the program finds "+string(id), func() error {
			res, err := c.Resolve(t.Context(), "orders")
			if err != nil {
				return err
			}
			for _, e := range res.Endpoints {
				if e.ID == id {
					return nil
				}
			}
			return fmt.Errorf("%+v", res.Views)
		})
	}
	finds("o-0")
	cfg.HTTPAddr = strings.TrimPrefix(n.ready.HTTP, "http://")
	for i, restored := range []bool{true, true, false} {
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
		if restored {
			if _, err := backup.Restore(t.Context(), backup.Config{File: file, DataDir: cfg.DataDir, Region: "us-east"}); err != nil {
				t.Fatal(err)
			}
		}
		n = start(t, cfg)
		id := api.InstanceID(fmt.Sprintf("o-%d", i+1))
		register(id)
		finds(id)
	}
}

// P1, P11: a node does not begin an empty region where a recovery was cut off in its last step.
func TestNodeDoesNotBeginBesideAStoreThatWasPutAside(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "etcd.swap", "etcd", "member"), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Region: "us-east", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0", DataDir: dir, LogLevel: "info"}
	if err := cfg.Normalize(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := Run(ctx, cfg, io.Discard); !errors.Is(err, backup.ErrHalfDone) {
		t.Errorf("started: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "etcd")); err == nil {
		t.Error("a store was begun")
	}
}
