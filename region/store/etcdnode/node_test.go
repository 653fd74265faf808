package etcdnode_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdnode"
)

func start(t *testing.T, cfg etcdnode.Config) *etcdnode.Node {
	t.Helper()
	n, err := etcdnode.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func socketOf(n *etcdnode.Node) string { return strings.TrimPrefix(n.Endpoint(), "unix://") }

// P8, P11: a node starts and stops on one directory as often as one likes, quietly, and
// leaves nothing running.
func TestStartsAgainAndLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := t.TempDir()
	var log bytes.Buffer
	for range 3 {
		cfg := config(dir)
		cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		begun := time.Now()
		n := start(t, cfg)
		up := time.Since(begun)
		begun = time.Now()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		t.Logf("ready after %s, closed after %s", up.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
		if err, open := <-n.Err(); err != nil || open {
			t.Errorf("a closed node reported %v", err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
	}
	if log.Len() > 0 {
		t.Errorf("starting and closing logged:\n%s", log.String())
	}
}

// P12: only this user reaches the store, and only over its socket.
func TestTheOnlyDoorIsAPrivateSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	before := listening(t)
	n := start(t, config(dir))
	for path, want := range map[string]fs.FileMode{
		dir:                               0o700,
		filepath.Join(dir, "etcd"):        0o700,
		filepath.Dir(socketOf(n)):         0o700,
		socketOf(n):                       0o600,
		filepath.Join(dir, "region"):      0o600,
		filepath.Join(dir, "lock"):        0o600,
		filepath.Join(dir, "etcd/member"): 0o700,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	if now := listening(t); now > before {
		t.Errorf("the node opened %d TCP listeners", now-before)
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socketOf(n))
		},
		DisableKeepAlives: true,
	}}
	// As a web page would that found its way here, and with the only host that is let in.
	for host, want := range map[string]int{"evil.example": http.StatusMisdirectedRequest, "nearside.invalid": http.StatusNotFound} {
		resp, err := client.Post("http://"+host+"/v3/kv/put", "application/json", strings.NewReader(`{"key":"YQ==","value":"YQ=="}`))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("a put over HTTP for %s: %s", host, resp.Status)
		}
	}
}

// listening counts this process's TCP listeners.
func listening(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	mine := make(map[string]bool)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if link, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			if inode, ok := strings.CutPrefix(link, "socket:["); ok {
				mine[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	n := 0
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			// sl local remote st tx:rx tr:when retrnsmt uid timeout inode
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" && mine[f[9]] {
				n++
			}
		}
	}
	return n
}

func TestAnotherRegionIsRefused(t *testing.T) {
	dir := t.TempDir()
	_ = start(t, config(dir)).Close()
	cfg := config(dir)
	cfg.Region = "us-east"
	_, err := etcdnode.Start(t.Context(), cfg)
	if !errors.Is(err, store.ErrWrongRegion) {
		t.Fatalf("started as another region: %v", err)
	}
	for _, want := range []string{dir, `"eu-west"`, `"us-east"`, "--region eu-west", "--data-dir"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %s", err, want)
		}
	}
	_ = start(t, config(dir)).Close() // and it is not locked after the refusal
}

func TestUnusableDirectoryIsRefused(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dirs := []string{file, filepath.Join(file, "below")}
	if os.Getuid() != 0 {
		closed := filepath.Join(base, "closed")
		if err := os.Mkdir(closed, 0o500); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, closed, filepath.Join(closed, "below"))
	}
	for _, dir := range dirs {
		_, err := etcdnode.Start(t.Context(), config(dir))
		if !errors.Is(err, etcdnode.ErrNotWritable) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--data-dir") {
			t.Errorf("started in %s: %v", dir, err)
		}
	}
}

func TestPathsThatNoSocketTakes(t *testing.T) {
	for name, sub := range map[string]string{
		"long": strings.Repeat("long/", 30),
		"odd":  "a dir % with ? odd # names ü",
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), sub)
			n := start(t, config(dir))
			s, err := openStore(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Commit(t.Context(), []store.Op{{Key: "a"}}); err != nil {
				t.Error(err)
			}
			private := filepath.Dir(socketOf(n))
			if info, err := os.Stat(private); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("the socket's directory: %v, %v", info, err)
			}
			if err := errors.Join(s.Close(), n.Close()); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(private); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left behind", private)
			}
		})
	}
}

// A damaged log must not be taken for an empty one, nor end the process.
func TestDamagedLogIsRefused(t *testing.T) {
	dir := t.TempDir()
	n := start(t, config(dir))
	s, err := openStore(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := s.Commit(t.Context(), []store.Op{{Key: "a", Value: make([]byte, 500)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Close(), n.Close()); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "etcd/member/wal/*.wal"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("%v, %v", logs, err)
	}
	f, err := os.OpenFile(logs[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 3000); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()

	_, err = etcdnode.Start(t.Context(), config(dir))
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "crc mismatch") || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("started on a damaged log: %v", err)
	}
}

// Files that were cut off end the start in seconds, with the file, the cause and the remedy.
// etcd itself would wait for ever: for a goroutine that ended, or for a log to catch up.
func TestFilesCutOffAreRefusedSoon(t *testing.T) {
	for name, tt := range map[string]struct {
		file string
		size int64
		want string
	}{
		"database": {"etcd/member/snap/db", 1000, "invalid database"},
		"log":      {"etcd/member/wal/0000000000000000-0000000000000000.wal", 5000, "the end of the log was lost"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := start(t, config(dir))
			s, err := openStore(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			for range 60 {
				if _, err := s.Commit(t.Context(), []store.Op{{Key: "a", Value: make([]byte, 500)}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(s.Close(), n.Close()); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, tt.file)
			if err := os.Truncate(file, tt.size); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			_, err = etcdnode.Start(t.Context(), config(dir))
			if !errors.Is(err, etcdnode.ErrCorrupt) || time.Since(begun) > 10*time.Second {
				t.Fatalf("after %s: %v", time.Since(begun), err)
			}
			for _, want := range []string{filepath.Dir(file), tt.want, "restore a backup", "move " + filepath.Join(dir, "etcd") + " away"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			t.Logf("after %s: %v", time.Since(begun).Round(time.Millisecond), err)
		})
	}
}

func TestBadConfigIsRefused(t *testing.T) {
	for name, change := range map[string]func(*etcdnode.Config){
		"region":             func(c *etcdnode.Config) { c.Region = "EU" },
		"node":               func(c *etcdnode.Config) { c.Node = "a,b=c" },
		"no directory":       func(c *etcdnode.Config) { c.DataDir = "" },
		"small quota":        func(c *etcdnode.Config) { c.QuotaBytes = 1 },
		"negative quota":     func(c *etcdnode.Config) { c.QuotaBytes = -1 },
		"negative retention": func(c *etcdnode.Config) { c.Retention = -time.Hour },
		"short retention":    func(c *etcdnode.Config) { c.Retention = time.Second },
		"negative timeout":   func(c *etcdnode.Config) { c.StartTimeout = -1 },
	} {
		cfg := config(filepath.Join(t.TempDir(), "data"))
		change(&cfg)
		if n, err := etcdnode.Start(t.Context(), cfg); err == nil {
			_ = n.Close()
			t.Errorf("%s was taken", name)
		}
		if _, err := os.Stat(cfg.DataDir); cfg.DataDir != "" && err == nil {
			t.Errorf("%s: a refused configuration made %s", name, cfg.DataDir)
		}
	}
}

func TestCancelledStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if _, err := etcdnode.Start(ctx, config(dir)); !errors.Is(err, context.Canceled) {
		t.Errorf("start with a cancelled context: %v", err)
	}
}
