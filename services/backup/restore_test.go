package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/sdk/api"
)

var saved = store.Image{
	Epoch: api.Epoch{Generation: 4, Nonce: 0xabc}, Revision: 900,
	Records: []store.Record{
		{Key: "an empty one", Revision: 3},
		{Key: "kv/default/blob", Value: bytes.Repeat([]byte{0, 1, 2, 255}, 200_000), Revision: 5},
	},
}

// write makes a backup file of saved and of n small records.
func write(t *testing.T, n int) (string, store.Image) {
	t.Helper()
	img := saved
	img.Records = append([]store.Record(nil), saved.Records...)
	for i := range n {
		img.Records = append(img.Records, store.Record{Key: fmt.Sprintf("small/%06d", i), Value: fmt.Appendf(nil, "value %d", i), Revision: uint64(10 + i)})
	}
	name := filepath.Join(t.TempDir(), "saved.nearside")
	var b bytes.Buffer
	if err := backup.Write(&b, "us-east", "us-east-1", time.Now(), img); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name, img
}

// P1, P4: every record is back, whatever its key, in an epoch above the saved one, and a
// node of any name may start there.
func TestRestoreCarriesEveryRecord(t *testing.T) {
	name, img := write(t, 5000)
	dir := filepath.Join(t.TempDir(), "new", "data")
	begun := time.Now()
	res, err := Restore(t.Context(), Config{File: name, DataDir: dir, Region: "us-east"})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d records restored in %s", res.Records, time.Since(begun).Round(time.Millisecond))
	if res.NewEpoch.Generation != 5 || res.NewEpoch.Nonce == img.Epoch.Nonce || res.DataDir != dir {
		t.Errorf("%+v", res)
	}
	n, err := etcdnode.Start(t.Context(), etcdnode.Config{Region: "us-east", Node: "another", DataDir: filepath.Join(dir, "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{n.Endpoint()}, Region: "us-east"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Load(t.Context())
	if err != nil || got.Epoch != res.NewEpoch || len(got.Records) != len(img.Records) {
		t.Fatalf("%d records, epoch %s, %v", len(got.Records), got.Epoch, err)
	}
	for i, r := range got.Records {
		if r.Key != img.Records[i].Key || !bytes.Equal(r.Value, img.Records[i].Value) {
			t.Fatalf("record %d is %s", i, r.Key)
		}
	}
	if _, err := s.Commit(t.Context(), []store.Op{{Key: "after"}}); err != nil {
		t.Errorf("a write afterwards: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

// What must not be restored is refused, with the remedy, and leaves nothing behind.
func TestRestoreRefuses(t *testing.T) {
	name, _ := write(t, 1)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	put := func(path string, b []byte) string {
		path = filepath.Join(base, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	broken := bytes.Clone(whole)
	broken[len(broken)/2] ^= 4
	put("used/token", []byte("x"))
	put("half/.restoring-1/etcd/lock", nil)
	running, err := openSite(filepath.Join(base, "half/.restoring-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer running.release()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for what, c := range map[string]struct {
		cfg  Config
		ctx  context.Context
		want error
		says string
	}{
		"a used directory":           {Config{File: name, DataDir: filepath.Join(base, "used")}, nil, ErrNotEmpty, `"token"`},
		"one of a restore that runs": {Config{File: name, DataDir: filepath.Join(base, "half")}, nil, ErrBusy, ".restoring-1"},
		"another region":             {Config{File: name, DataDir: filepath.Join(base, "a"), Region: "eu-west"}, nil, ErrWrongRegion, "--region us-east"},
		"a damaged file":             {Config{File: put("broken", broken), DataDir: filepath.Join(base, "a")}, nil, backup.ErrDamaged, "broken"},
		"half a file":                {Config{File: put("short", whole[:len(whole)-10]), DataDir: filepath.Join(base, "a")}, nil, backup.ErrDamaged, "ends early"},
		"something else":             {Config{File: put("text", []byte("hello, this is not a backup at all")), DataDir: filepath.Join(base, "a")}, nil, backup.ErrDamaged, "text"},
		"no file":                    {Config{File: filepath.Join(base, "none"), DataDir: filepath.Join(base, "a")}, nil, os.ErrNotExist, "none"},
		"an interrupt":               {Config{File: name, DataDir: filepath.Join(base, "b")}, gone, context.Canceled, ""},
	} {
		ctx := c.ctx
		if ctx == nil {
			ctx = t.Context()
		}
		_, err := Restore(ctx, c.cfg)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.Stat(filepath.Join(base, "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused restore made its directory: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Join(base, "b")); err != nil || len(entries) > 0 {
		t.Errorf("an interrupted restore left %v, %v", entries, err)
	}
}

// P11: what a restore that was killed left goes with the next one or with the next node, and
// that of one that runs stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{".restoring-1/etcd/member/wal", ".restoring-2", "etcd", ".restoring", "x.restoring-3"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{".restoring-1/etcd/lock", ".restoring-file", "token"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	running, err := newSite(dir)
	if err != nil {
		t.Fatal(err)
	}
	swept, err := Sweep(dir)
	if !slices.Equal(swept, []string{".restoring-1", ".restoring-2"}) || !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), running.path) {
		t.Errorf("swept %q, %v", swept, err)
	}
	if err := running.release(); err != nil { // as the kernel does when the process is killed
		t.Fatal(err)
	}
	if swept, err = Sweep(dir); err != nil || len(swept) != 1 {
		t.Errorf("swept %q, %v", swept, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if swept, err := Sweep(filepath.Join(dir, "none")); err != nil || swept != nil {
		t.Errorf("%q, %v", swept, err)
	}
}

func TestARestoreSweepsBeforeItBegins(t *testing.T) {
	name, _ := write(t, 3)
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, ".restoring-1/etcd/member"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), Config{File: name, DataDir: dir}); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "etcd" {
		t.Errorf("%v, %v", entries, err)
	}
}
