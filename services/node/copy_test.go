package node

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/renameio/v2"

	"github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

func copyAt(dir string) *diskCopy {
	return newDiskCopy(Config{DataDir: dir, Region: "us-east", Node: "n1"}, nil)
}

func sampleImage() store.Image {
	return store.Image{
		Epoch: api.Epoch{Generation: 2, Nonce: 7}, Revision: 41,
		Records: []store.Record{{Key: "a", Value: []byte("1"), Revision: 3}, {Key: "b", Value: []byte("2"), Revision: 41}},
	}
}

// P3, P11: what was saved is loaded with its time; none is none; damaged, foreign or refused by
// a full disk, it is never half taken, and what was there stays.
func TestCopyOfTheRecordsOnDisk(t *testing.T) {
	dir := t.TempDir()
	c := copyAt(dir)
	if img, at, err := c.Load(); err != nil || !at.IsZero() || len(img.Records) != 0 {
		t.Errorf("without a file: %v, %v, %v", img, at, err)
	}
	confirmed := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	if err := c.Save(sampleImage(), confirmed); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(c.path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	img, at, err := c.Load()
	if err != nil || !at.Equal(confirmed) || img.Revision != 41 || len(img.Records) != 2 || img.Records[1].Revision != 41 {
		t.Errorf("%+v, %v, %v", img, at, err)
	}
	full := errors.New("full")
	c.room = func(bool) error { return full }
	if err := c.Save(store.Image{Epoch: img.Epoch}, time.Now()); !errors.Is(err, full) {
		t.Errorf("on a full disk: %v", err)
	}
	if again, _, err := c.Load(); err != nil || len(again.Records) != 2 {
		t.Errorf("after a save that failed: %v, %v", again, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("files are left behind: %v", left)
	}
	other := copyAt(dir)
	other.region = "eu-west"
	if _, _, err := other.Load(); err == nil {
		t.Error("another region's copy was taken")
	}
	b, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		bad := bytes.Clone(b)
		bad[n] ^= 0x10
		if err := os.WriteFile(c.path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Load(); !errors.Is(err, backup.ErrDamaged) {
			t.Fatalf("byte %d changed: %v", n, err)
		}
	}
}

// P8, P11: whatever is in the file, an answer; and what is taken is of this region, with a time.
func FuzzCopy(f *testing.F) {
	var b bytes.Buffer
	if err := backup.Write(&b, "us-east", "n1", time.Unix(1_790_000_000, 0), sampleImage()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("nearside-backup\n"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := copyAt(t.TempDir())
		if err := os.WriteFile(c.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if img, at, err := c.Load(); err == nil && (at.IsZero() || img.Epoch.IsZero()) {
			t.Fatalf("took %+v of %v", img, at)
		}
	})
}

// P8, P11: a node that is killed while it writes its copy leaves a half of it, of any size. The next
// start removes it, and nothing else.
func TestHalfWrittenFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	f, err := renameio.NewPendingFile(copyAt(dir).path, renameio.WithTempDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Cleanup()
	half := f.Name()
	if filepath.Dir(half) != dir {
		t.Fatalf("the half is %s", half)
	}
	stay := []string{"records", "head", "token", ".records", ".recordsX1", ".restoring-1", "etcd"}
	for _, name := range stay {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	killed := filepath.Join(dir, ".recovering-77", "copy")
	if err := os.MkdirAll(killed, 0o700); err != nil {
		t.Fatal(err)
	}
	sweepHalves(dir, slog.New(slog.DiscardHandler))
	if _, err := os.Stat(filepath.Dir(killed)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a killed recovery left is still there: %v", err)
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", half, err)
	}
	for _, name := range stay {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	n := start(t, Config{Region: "us-east", Dev: true, HTTPAddr: ":0", Roles: []string{"region"}, DataDir: dirWith(t, ".records123")})
	// It may be writing a copy of its own by now.
	if _, err := os.Stat(filepath.Join(n.dir, ".records123")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a node that runs has left the half of an earlier process: %v", err)
	}
}

// dirWith makes a directory with an empty file of that name.
func dirWith(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
