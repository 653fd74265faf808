package scenarios

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// frozenDisk returns a directory on a small disk of its own, and what freezes and thaws it.
func frozenDisk(t *testing.T) (dir string, freeze, thaw func()) {
	t.Helper()
	file, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	run := func(name string, args ...string) error {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(700 << 20); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	for _, c := range [][]string{{"mkfs.ext4", "-q", "-F", file}, {"mount", "-o", "loop", file, dir}} {
		if err := run(c[0], c[1:]...); err != nil {
			t.Skipf("SKIPPED: needs the right to mount a disk of its own: %v", err)
		}
	}
	t.Cleanup(func() {
		if err := run("umount", "-l", dir); err != nil {
			t.Error(err)
		}
	})
	if err := run("fsfreeze", "-f", dir); err != nil {
		t.Skipf("SKIPPED: needs the right to freeze a disk: %v", err)
	}
	thaw = sync.OnceFunc(func() {
		if err := run("fsfreeze", "-u", dir); err != nil {
			t.Error(err)
		}
	})
	if err := run("fsfreeze", "-u", dir); err != nil {
		t.Fatal(err)
	}
	return dir, func() {
		if err := run("fsfreeze", "-f", dir); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(thaw)
	}, thaw
}

// P10, P11: the disk freezes (a hanging array, a volume that is being copied). Reads, heartbeats and
// watches go on, writes are refused in time; etcd cannot even be killed, and nothing waits for
// it; with the disk everything is back.
func TestFrozenDisk(t *testing.T) {
	t.Parallel() // it waits more than it works
	disk, freeze, thaw := frozenDisk(t)
	c := cluster.New(t, us)
	n := c.Node(us)
	n.DataDir = filepath.Join(disk, "data")
	n.Start()
	o := onlook(t, n)
	h := n.Client()
	writesBack(t, h, "before")
	freeze()
	begun := time.Now()
	_, err := h.Do(http.MethodPut, api.PathInstance("new", "x"), api.Registration{Address: "127.0.0.1", Port: 80}, nil)
	t.Logf("a write to the frozen disk was refused after %s", time.Since(begun).Round(time.Millisecond))
	if api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a write to a frozen disk: %v", err)
	}
	pid := signalStore(t, n, syscall.SIGKILL)
	over := time.NewTimer(8 * time.Second)
	cluster.Within(t, 8*time.Second, "/readyz says so", func() error {
		status, err := h.Do(http.MethodGet, api.PathReadyz, nil, nil)
		if status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d, %v", status, err)
		}
		return nil
	})
	<-over.C
	t.Logf("etcd's process %d, killed 8 s ago on the frozen disk, is in state %q", pid, cluster.StateOf(pid))
	thaw()
	t.Logf("after the thaw writes were taken in %s", writesBack(t, h, "after").Round(time.Millisecond))
	if s := cluster.StateOf(pid); s != "" {
		t.Errorf("etcd's process %d is still there, in state %s", pid, s)
	}
	o.end()
	if err := n.Stop(); err != nil {
		t.Errorf("the node ended with %v", err)
	}
}
