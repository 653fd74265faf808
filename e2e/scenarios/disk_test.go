package scenarios

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P10, P11, catalogue row 5: the disk fills up. Reads go on, writes get a typed error in
// time, nothing acknowledged is lost, and once there is space again the node takes writes
// without a human step.
func TestFullDiskEndsOnlyWrites(t *testing.T) {
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=320m", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Skipf("needs the right to mount a small file system: %v: %s", err, strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	c := cluster.New(t, us)
	n := c.Node(us)
	n.DataDir = filepath.Join(disk, "data")
	n.Start()
	h := n.Client()

	// Refused before etcd notices: what is acknowledged was so while there was space.
	acked := map[api.InstanceID]bool{}
	for i := range 20 {
		id := api.InstanceID(fmt.Sprintf("before-%02d", i))
		if _, err := h.Do(http.MethodPut, api.PathInstance("orders", id), api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour)}, nil); err != nil {
			t.Fatal(err)
		}
		acked[id] = true
	}
	stuffing := filepath.Join(disk, "stuffing")
	f, err := os.Create(stuffing)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	_ = f.Close()
	var refusal error
	for i := 0; refusal == nil; i++ {
		id := api.InstanceID(fmt.Sprintf("i-%04d", i))
		begun := time.Now()
		_, err := h.Do(http.MethodPut, api.PathInstance("orders", id), api.Registration{
			Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour), Metadata: map[string]string{"k": strings.Repeat("x", 15<<10)},
		}, nil)
		if took := time.Since(begun); took > 6*time.Second {
			t.Errorf("a write took %s", took)
		}
		if err != nil {
			refusal = err
			break
		}
		acked[id] = true
		if i > 20_000 {
			t.Fatal("the disk never filled up")
		}
	}
	if code := api.CodeOf(refusal); code != api.CodeUnavailable && code != api.CodeStorageFull {
		t.Errorf("the write was refused with %v", refusal)
	}
	has := func() error {
		known := map[api.InstanceID]bool{}
		for cursor := ""; ; {
			var l api.InstanceList
			if _, err := h.Do(http.MethodGet, api.PathInstances("orders")+"?cursor="+cursor, nil, &l); err != nil {
				return err
			}
			for _, i := range l.Instances {
				known[i.ID] = true
			}
			if cursor = l.Cursor; cursor == "" {
				break
			}
		}
		for id := range acked {
			if !known[id] {
				return fmt.Errorf("%s was acknowledged and is not there", id)
			}
		}
		return nil
	}
	cluster.Within(t, 10*time.Second, "/readyz says so", func() error {
		status, err := h.Do(http.MethodGet, api.PathReadyz, nil, nil)
		if status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d, %v", status, err)
		}
		return nil
	})
	if err := has(); err != nil {
		t.Errorf("P10: reading with a full disk: %v", err)
	}
	if err := os.Remove(stuffing); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	cluster.Within(t, 60*time.Second, "writes are taken again", func() error {
		status, err := h.Do(http.MethodPut, api.PathInstance("orders", "after"), api.Registration{Address: "127.0.0.1", Port: 80}, nil)
		if err == nil && status >= 300 {
			err = errors.New(http.StatusText(status))
		}
		return err
	})
	t.Logf("%d registrations acknowledged before the disk was full; writes taken %s after there was space again", len(acked), time.Since(begun).Round(time.Millisecond))
	if err := has(); err != nil {
		t.Errorf("P1: %v", err)
	}
}
