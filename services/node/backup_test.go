package node

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/backup"
)

// P1, P2, P4: a region restored from a backup is what it was when that was taken, in a new
// epoch; nobody is taken for dead although nobody sent a heartbeat since, and a watch that
// has seen more is reset.
func TestRestoredRegionBeginsANewEpoch(t *testing.T) {
	cfg := Config{Region: "us-east", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0"}
	first := start(t, cfg)
	put := func(n *running, id api.InstanceID, want int) {
		t.Helper()
		status, err := call(http.DefaultClient, "PUT", n.ready.HTTP+api.PathInstance("orders", id), "", `{"address":"127.0.0.1","port":80,"ttl":"2s"}`, nil)
		if err != nil || status != want {
			t.Fatalf("register %s: %d, %v", id, status, err)
		}
	}
	put(first, "o-1", 201)
	put(first, "o-2", 201)
	file := filepath.Join(t.TempDir(), "saved")
	resp, err := http.Get(first.ready.HTTP + api.PathSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("snapshot: %d, %v", resp.StatusCode, err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	put(first, "o-3", 201) // after the backup: gone in the restored region
	var list api.InstanceList
	resp, err = http.Get(first.ready.HTTP + api.PathInstances("orders"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	seen := fmt.Sprintf("us-east/%s/%s", resp.Header.Get(api.HeaderEpoch), resp.Header.Get(api.HeaderRevision))
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}

	cfg.DataDir = filepath.Join(t.TempDir(), "restored")
	res, err := backup.Restore(t.Context(), backup.Config{File: file, DataDir: cfg.DataDir, Region: "us-east"})
	if err != nil {
		t.Fatal(err)
	}
	if res.Services != 1 || res.Instances != 2 || res.Epoch != first.ready.Epoch || res.NewEpoch.Generation != first.ready.Epoch.Generation+1 {
		t.Fatalf("%+v", res)
	}
	// A heartbeat's time has passed since they registered, and another since the backup.
	<-time.After(time.Until(res.Created.Add(4 * time.Second)))
	second := start(t, cfg)
	if second.ready.Epoch != res.NewEpoch {
		t.Errorf("epoch %s, want %s", second.ready.Epoch, res.NewEpoch)
	}
	if status, err := call(http.DefaultClient, "GET", second.ready.HTTP+api.PathInstances("orders"), "", "", &list); err != nil || status != 200 {
		t.Fatalf("list: %d, %v", status, err)
	}
	var ids []string
	for _, i := range list.Instances {
		ids = append(ids, string(i.ID))
		if i.Overdue {
			t.Errorf("%s is overdue at once", i.ID)
		}
	}
	if strings.Join(ids, " ") != "o-1 o-2" {
		t.Errorf("restored: %v", ids)
	}
	watch, err := http.Get(second.ready.HTTP + api.PathWatch + "?service=orders&from=" + seen)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()
	var events []string
	for lines := bufio.NewScanner(watch.Body); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			if events = append(events, name); name == "synced" {
				break
			}
		}
	}
	if got := strings.Join(events, " "); got != "reset item item synced" {
		t.Errorf("a watch from %s was told: %s", seen, got)
	}
	put(second, "o-1", 200)
	if err := second.stop(); err != nil {
		t.Error(err)
	}
}
