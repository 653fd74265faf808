package nearside

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/internal/disk"
	"github.com/nearside/nearside/sdk/internal/view"
)

// P12: a snapshot that was not signed with the program's key is refused, and said so; the next
// one replaces it. The key is nowhere to be seen.
func TestSignedSnapshots(t *testing.T) {
	key, other := []byte("the key: 16 bytes"), []byte("other: 16 or more")
	for name, tc := range map[string]struct {
		wrote, reads []byte
		used         bool
	}{
		"signed": {key, key, true}, "another key": {other, key, false}, "not signed": {nil, key, false},
		"signed, and read by a program without a key": {key, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				w.filledBy(t, func(c *Config) { c.SnapshotDir, c.SnapshotKey = dir, tc.wrote })
				w.killRegistries()
				var log bytes.Buffer
				with := func(c *Config) {
					c.SnapshotDir, c.SnapshotKey, c.Logger = dir, tc.reads, slog.New(slog.NewTextHandler(&log, nil))
				}
				c := w.client("us", with)
				_, err := c.Pick(t.Context(), "orders")
				if used := err == nil; used != tc.used || !used && !errors.Is(err, ErrUnreachable) {
					t.Errorf("%v", err)
				}
				_ = c.Close()
				if said := strings.Contains(log.String(), "not signed with the key"); said == tc.used {
					t.Errorf("the warning: %s", log.String())
				}
				w.regions["us"].start()
				w.filledBy(t, with)
				w.killRegistries()
				c = w.client("us", with)
				if _, err := c.Pick(t.Context(), "orders"); err != nil {
					t.Error("the next one is its own:", err)
				}
				_ = c.Close()
				seen := log.Bytes()
				for _, f := range []string{"nearside-us.snapshot", "nearside-us.snapshot.prev"} {
					b, _ := os.ReadFile(filepath.Join(dir, f))
					seen = append(seen, b...)
				}
				if bytes.Contains(seen, key) || bytes.Contains(seen, other) {
					t.Error("the key is in the log or in a file")
				}
			})
		})
	}
}

// read returns what is on disk.
func onDisk(t *testing.T, dir string) *view.Image {
	t.Helper()
	img, err := disk.New(dir, "nearside-us.snapshot").Read()
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// P8: a snapshot over its limit leaves out what this run does not use, then the largest
// services, says so once, and is whole.
func TestSnapshotOverItsLimit(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		noise := rand64(1)
		fill := func(service string, instances, size int) {
			for i := range instances {
				us.put(service, fmt.Sprint(i), "a:80", func(in *api.Instance) { in.Metadata = map[string]string{"x": noise(size)} })
			}
		}
		fill("unused", 20, 3500)
		fill("used", 40, 1000)
		fill("large", 80, 2000)
		us.put("small", "s", "a:80", nil)
		var log bytes.Buffer
		with := func(c *Config) {
			c.SnapshotDir, c.SnapshotMaxBytes, c.Logger = dir, leastSnapshotBytes, slog.New(slog.NewTextHandler(&log, nil))
		}
		run := func(services ...string) (on []string) {
			t.Helper()
			c := w.client("us", with)
			for i, s := range services {
				if _, err := c.Pick(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				us.put("small", fmt.Sprint("s", i), "a:80", nil)
				time.Sleep(3 * time.Second)
			}
			_ = c.Close()
			for _, si := range onDisk(t, dir).Services {
				on = append(on, string(si.Service))
			}
			slices.Sort(on)
			return on
		}
		if got := run("unused"); !slices.Equal(got, []string{"unused"}) || log.Len() > 0 {
			t.Fatalf("%v %s", got, log.String())
		}
		if got := run("small", "used"); !slices.Equal(got, []string{"small", "used"}) {
			t.Errorf("what the run does not use goes first: %v", got)
		}
		if n := strings.Count(log.String(), "over its limit"); n != 1 {
			t.Errorf("said %d times: %s", n, log.String())
		}
		log.Reset()
		if got := run("small", "large"); slices.Contains(got, "large") || !slices.Contains(got, "small") {
			t.Errorf("then the largest: %v", got)
		}
		st, err := os.Stat(filepath.Join(dir, "nearside-us.snapshot"))
		if err != nil || st.Size() > leastSnapshotBytes {
			t.Errorf("%d bytes, %v", st.Size(), err)
		}
		if n := strings.Count(log.String(), "over its limit"); n != 1 {
			t.Errorf("said %d times: %s", n, log.String())
		}
	})
}

// rand64 makes text that does not pack.
func rand64(seed uint64) func(n int) string {
	return func(n int) string {
		b := make([]byte, n)
		for i := range b {
			seed = seed*6364136223846793005 + 1442695040888963407
			b[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[seed>>58]
		}
		return string(b)
	}
}

// Row 40: a quiet registry keeps the snapshot young; one that does not answer does not.
func TestQuietSnapshotsStayYoung(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.regions["us"].put("orders", "a", "a:80", nil)
		c := w.client("us", func(c *Config) { c.SnapshotDir = dir })
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		age := func() time.Duration {
			img := onDisk(t, dir)
			return time.Since(img.SavedAt) + time.Duration(img.Regions[0].AgeMS)*time.Millisecond
		}
		for range 5 {
			time.Sleep(40 * time.Minute)
			if a := age(); a > saveAgain+time.Minute {
				t.Errorf("a quiet snapshot is %s old", a)
			}
		}
		w.killRegistries()
		time.Sleep(2 * time.Hour)
		if a := age(); a < 110*time.Minute {
			t.Errorf("nobody answered for two hours, and it is %s old", a)
		}
	})
}

// Row 40: a snapshot of a month ago is the last resort: a registry that answers late is waited
// for; it is labelled, and not used beyond the limit that the program sets.
func TestOldSnapshotIsTheLastResort(t *testing.T) {
	for name, tc := range map[string]struct {
		fault  func(*world)
		limit  time.Duration
		within time.Duration
		want   string // "" = ErrUnreachable
	}{
		"nobody answers": {func(w *world) {
			for _, r := range w.regions {
				w.net.hang(r.addr, true)
			}
		}, 0, firstUse, "a"},
		"all refuse": {(*world).killRegistries, 0, 1500 * time.Millisecond, "a"},
		"home answers late": {func(w *world) {
			us := w.regions["us"]
			us.slow = time.Second
			us.remove("orders", "a")
			us.put("orders", "new", "n:80", nil)
		}, 0, 1100 * time.Millisecond, "new"},
		"another region answers": {func(w *world) {
			w.net.kill(w.regions["us"].addr)
			w.regions["us"].remove("orders", "a")
			w.regions["us"].put("orders", "new", "n:80", nil)
		}, 0, firstUse, "new"},
		"within the limit": {(*world).killRegistries, 40 * 24 * time.Hour, firstUse, "a"},
		"beyond the limit": {(*world).killRegistries, 30 * 24 * time.Hour, firstUse, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "us", "eu")
				w.filled(t, dir)
				time.Sleep(31 * 24 * time.Hour)
				tc.fault(w)
				c := w.client("us", func(cfg *Config) { cfg.SnapshotDir, cfg.SnapshotMaxAge = dir, tc.limit })
				start := time.Now()
				res, err := c.Resolve(t.Context(), "orders")
				if took := time.Since(start); took > tc.within {
					t.Errorf("after %s", took)
				}
				if tc.want == "" {
					if !errors.Is(err, ErrUnreachable) {
						t.Error(err)
					}
					return
				}
				if err != nil || string(res.Endpoints[0].ID) != tc.want {
					t.Fatalf("%+v %v", res.Endpoints, err)
				}
				if v := res.Views[0]; tc.want == "a" && (v.State != api.AgeExpired || v.AgeMS < 31*24*3600*1000) {
					t.Errorf("the age must show: %+v", v)
				}
			})
		})
	}
}

// Labels: a service that is asked for only after its registry died is as old as the snapshot
// that knows it, however lately the registry spoke of others. Nor does writing it again make
// it young.
func TestKeptServicesKeepTheirAge(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.filled(t, dir)
		time.Sleep(time.Hour)
		for range 2 { // the second run reads what the first wrote
			c := w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
			if _, err := c.Pick(t.Context(), "orders"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			_ = c.Close()
		}
		c := w.client("us", func(cfg *Config) { cfg.SnapshotDir = dir })
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		w.killRegistries()
		time.Sleep(3 * time.Second)
		res, err := c.Resolve(t.Context(), "payments")
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range res.Views {
			if v.Region == "eu" && (v.AgeMS < 3600*1000 || v.Source != api.SourceSnapshot) {
				t.Errorf("payments is known of an hour ago: %+v", v)
			}
		}
		if res, _ := c.Resolve(t.Context(), "orders"); res.Views[0].AgeMS > 10_000 {
			t.Errorf("orders is young: %+v", res.Views[0])
		}
	})
}
