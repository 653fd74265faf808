package nearside

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// filled lets a client learn orders and payments of two regions and write its snapshot.
func (w *world) filled(t *testing.T, dir string) {
	w.filledBy(t, func(c *Config) { c.SnapshotDir = dir })
}

func (w *world) filledBy(t *testing.T, change func(*Config)) {
	t.Helper()
	w.regions["us"].put("orders", "a", "a:80", nil)
	w.regions["eu"].put("orders", "far", "f:80", nil)
	w.regions["eu"].put("payments", "p", "p:80", nil)
	c := w.client("us", change)
	for _, s := range []string{"orders", "payments"} {
		if _, err := c.Pick(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) killRegistries() {
	for _, r := range w.regions {
		w.net.kill(r.addr)
	}
}

// Row 42, P3: a start with everything down answers from the snapshot within 100 ms, whether
// connections are refused or nothing answers; labelled with its age.
func TestColdStartFromTheSnapshot(t *testing.T) {
	for name, fault := range map[string]func(*world){
		"refused": (*world).killRegistries,
		"hung": func(w *world) {
			for _, r := range w.regions {
				w.net.hang(r.addr, true)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				w.filled(t, dir)
				w.filledBy(t, func(cfg *Config) { cfg.SnapshotDir, cfg.Region = dir, "" })
				fault(w)
				time.Sleep(10 * time.Second)
				// Even the region and the addresses come from the file.
				c := w.client("us", func(cfg *Config) { cfg.SnapshotDir, cfg.Region, cfg.Addresses = dir, "", nil })
				c2 := w.client("us", func(cfg *Config) { cfg.SnapshotDir, cfg.Region = dir, "" })
				const within = 100 * time.Millisecond
				for _, c := range []*Client{c, c2} {
					start := time.Now()
					res, err := c.Resolve(t.Context(), "orders")
					if took := time.Since(start); err != nil || took > within {
						t.Fatalf("%v after %s", err, took)
					}
					if len(res.Endpoints) != 2 || res.Endpoints[0].ID != "a" || res.Decision.Reason != api.ReasonSameRegion {
						t.Errorf("%+v", res)
					}
					if v := res.Views[0]; v.State != api.AgeSuspect || v.Source != api.SourceSnapshot || v.AgeMS < 30_000 {
						t.Errorf("the age must show: %+v", v)
					}
					start = time.Now()
					if _, err := c.Pick(t.Context(), "orders"); err != nil || time.Since(start) > 0 {
						t.Errorf("the second call waits for nothing: %v after %s", err, time.Since(start))
					}
				}
			})
		})
	}
}

// After a cold start the client finds its region again by itself, through what the
// snapshot told of addresses.
func TestColdStartThenHomeReturns(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.filled(t, dir)
		w.killRegistries()
		c := w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		if _, err := c.Pick(t.Context(), "payments"); err != nil {
			t.Fatal(err)
		}
		w.regions["eu"].start()
		w.regions["eu"].put("payments", "q", "q:80", nil)
		time.Sleep(6 * time.Second)
		if got := ids(t, c, "payments"); !slices.Equal(got, []string{"p", "q"}) {
			t.Errorf("from abroad: %v", got)
		}
		w.regions["us"].start()
		time.Sleep(6 * time.Second)
		res, err := c.Resolve(t.Context(), "payments")
		if err != nil || res.Views[0].Region != "us" || res.Views[0].State != api.AgeFresh && res.Views[0].State != api.AgeStale {
			t.Errorf("%+v %v", res.Views, err)
		}
	})
}

// Services that this run did not ask for stay in the snapshot.
func TestSnapshotKeepsWhatThisRunDidNotUse(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.filled(t, dir)
		c := w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		_ = c.Close()
		w.killRegistries()
		c = w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		if _, err := c.Pick(t.Context(), "payments"); err != nil {
			t.Error(err)
		}
	})
}

// Rows 38, 39: a torn or foreign file is a warning; the generation before it is used.
func TestTornSnapshotFallsBackToThePrevious(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.filled(t, dir)
		w.filled(t, dir) // a second generation
		file := filepath.Join(dir, "nearside-us.snapshot")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if st, _ := os.Stat(file); st.Mode().Perm() != 0o600 {
			t.Errorf("P12: mode %s", st.Mode())
		}
		if err := os.WriteFile(file, b[:len(b)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		w.killRegistries()
		var log bytes.Buffer
		c := w.client("us", func(cfg *Config) { cfg.SnapshotDir, cfg.Logger = dir, slog.New(slog.NewTextHandler(&log, nil)) })
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Error(err)
		}
		_ = c.Close()
		if !strings.Contains(log.String(), "snapshot not usable") {
			t.Errorf("no warning: %s", log.String())
		}
	})
}

// Row 41: a directory that cannot be written costs the snapshot, not the answers.
func TestSnapshotDirThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		var log bytes.Buffer
		w.regions["us"].put("orders", "a", "a:80", nil)
		c := w.client("us", func(cfg *Config) { cfg.SnapshotDir, cfg.Logger = dir, slog.New(slog.NewTextHandler(&log, nil)) })
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Error(err)
		}
		for i := range 5 {
			time.Sleep(2 * time.Second)
			w.regions["us"].put("orders", string(rune('b'+i)), "b:80", nil)
		}
		time.Sleep(2 * time.Second)
		_ = c.Close()
		if n := strings.Count(log.String(), "snapshot not written"); n != 1 {
			t.Errorf("%d warnings, want 1: %s", n, log.String())
		}
	})
}

// A snapshot of another home is not used: its distances and its idea of near are wrong.
func TestSnapshotOfAnotherHome(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.filled(t, dir)
		if err := os.Rename(filepath.Join(dir, "nearside-us.snapshot"), filepath.Join(dir, "nearside-eu.snapshot")); err != nil {
			t.Fatal(err)
		}
		w.killRegistries()
		c := w.client("eu", func(cfg *Config) { cfg.SnapshotDir = dir })
		if _, err := c.Pick(t.Context(), "orders"); !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
	})
}

// The client's own transport on real sockets: refused, hung and killed instances, and the
// way home through the keeper's dial.
func TestRealSockets(t *testing.T) {
	w := newWorld(t, "us", "eu")
	listen := func(region api.Region, id string) (*http.Server, net.Listener) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		go func() { _ = srv.Serve(l) }()
		t.Cleanup(func() { _ = srv.Close() })
		w.regions[region].put("orders", id, l.Addr().String(), nil)
		return srv, l
	}
	near, l := listen("us", "near")
	hung, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hung.Close() })
	listen("eu", "far")
	c := w.client("us", func(cfg *Config) { cfg.AttemptTimeout = 100 * time.Millisecond })
	web := &http.Client{Transport: c.Transport(nil)}
	if r, _, _, err := get(t, web, "http://orders/"); r != "us" || err != nil {
		t.Fatal(r, err)
	}
	_ = near.Close()
	w.regions["us"].put("orders", "hung", hung.Addr().String(), nil)
	for range 30 {
		if r, _, _, err := get(t, web, "http://orders/"); r != "eu" || err != nil {
			t.Fatal(r, err)
		}
	}
	again, err := net.Listen("tcp", l.Addr().String())
	if err != nil {
		t.Skip("the port was taken meanwhile:", err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = srv.Serve(again) }()
	t.Cleanup(func() { _ = srv.Close() })
	deadline := time.Now().Add(15 * time.Second)
	for {
		r, _, _, err := get(t, web, "http://orders/")
		if err != nil {
			t.Fatal(err)
		}
		if r == "us" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("calls did not come home")
		}
	}
}
