package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/sdk/api"
)

// writerEnv names the directory in which this test binary, started again, writes for ever.
const writerEnv = "NEARSIDE_TEST_SNAPSHOT_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		f := New(dir, "s")
		_, _ = f.Read()
		for i := 0; ; i++ {
			img := image(api.InstanceID(fmt.Sprintf("p%d-%d", os.Getpid(), i)))
			img.Services[0].Regions[0].Endpoints[0].Metadata = map[string]string{"x": strings.Repeat(fmt.Sprint(i), 2000)}
			if err := f.Write(img); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	goleak.VerifyTestMain(m)
}

func writer(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), writerEnv+"="+dir)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// Rows 38 and 41: two real processes write one snapshot as quickly as they can and are killed,
// again and again: from the first write on every read finds a whole generation; and what they
// left behind goes once it is old.
func TestTwoProcessesAndManyKills(t *testing.T) {
	dir := t.TempDir()
	if err := New(dir, "s").Write(image("first")); err != nil {
		t.Fatal(err)
	}
	reads, writers := 0, map[string]bool{}
	for range 15 {
		a, b := writer(t, dir), writer(t, dir)
		// Until both have been seen, and then some: a kill may come at any point of a write.
		for seen, more := map[string]bool{}, 0; more < 20; reads++ {
			img, err := New(dir, "s").Read()
			if img == nil || err != nil {
				t.Fatalf("P11: after %d reads: %v", reads, err)
			}
			who, _, _ := strings.Cut(string(first(img)), "-")
			seen[who] = true
			if seen[fmt.Sprintf("p%d", a.Process.Pid)] && seen[fmt.Sprintf("p%d", b.Process.Pid)] {
				more++
			}
			writers[who] = true
		}
		for _, c := range []*exec.Cmd{a, b} {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		if img, err := New(dir, "s").Read(); img == nil || err != nil {
			t.Fatalf("P11: after a kill: %v", err)
		}
	}
	left, _ := os.ReadDir(dir)
	t.Logf("%d reads of what %d processes wrote, each whole; the killed left %d files", reads, len(writers), len(left)-2)
	old := time.Now().Add(-2 * leftFor)
	for _, f := range append([]string{".s12345", "s.prev.4711"}, names(left)...) {
		path := filepath.Join(dir, f)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			_ = os.WriteFile(path, []byte("left"), 0o600)
		}
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	for _, keep := range []string{".s-other", ".sx1", "s.snapshot"} { // not ours
		_ = os.WriteFile(filepath.Join(dir, keep), nil, 0o600)
		_ = os.Chtimes(filepath.Join(dir, keep), old, old)
	}
	f := New(dir, "s")
	_, _ = f.Read()
	if err := f.Write(image("last")); err != nil {
		t.Fatal(err)
	}
	left, _ = os.ReadDir(dir)
	if got := strings.Join(names(left), " "); got != ".s-other .sx1 s s.prev s.snapshot" {
		t.Errorf("P8: left are %s", got)
	}
}

func names(list []os.DirEntry) (out []string) {
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// mounted returns a directory on a file system of its own, or skips.
func mounted(t *testing.T, flags uintptr, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("nearside-test", dir, "tmpfs", flags, options); err != nil {
		t.Skip("no file system can be mounted here (that takes root):", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Row 41: a full disk refuses the write and keeps what is there, whole; with room it goes on.
func TestFullDisk(t *testing.T) {
	dir := mounted(t, 0, "size=256k")
	f := New(dir, "s")
	if err := f.Write(image("one")); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal("the disk is not full:", err)
	}
	for range 20 {
		if err := f.Write(image("two")); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("on a full disk: %v", err)
		}
		if img, err := New(dir, "s").Read(); err != nil || first(img) != "one" {
			t.Fatalf("P11: what was there: %v", err)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(image("two")); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("files left behind: %v", left)
	}
}

// Row 41: a disk that is read-only is read; a write is refused by the system.
func TestReadOnlyDisk(t *testing.T) {
	dir := mounted(t, 0, "size=1m")
	if err := New(dir, "s").Write(image("one")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("nearside-test", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=1m"); err != nil {
		t.Skip("it cannot be made read-only here:", err)
	}
	f := New(dir, "s")
	if img, err := f.Read(); err != nil || first(img) != "one" {
		t.Fatal(err)
	}
	if err := f.Write(image("two")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("on a read-only disk: %v", err)
	}
	if img, err := New(dir, "s").Read(); err != nil || first(img) != "one" {
		t.Error(err)
	}
}
