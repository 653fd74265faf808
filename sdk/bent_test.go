//go:build unix

package nearside

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/internal/disk"
	"github.com/nearside/nearside/sdk/internal/view"
)

// snap is a snapshot in which orders has one instance.
func snap(home api.Region, id string, saved time.Time) *view.Image {
	v := api.Version{Region: home, Epoch: api.Epoch{Generation: 1, Nonce: 2}, Revision: 3}
	return &view.Image{
		Home: home, SavedAt: saved, Regions: []api.Origin{{Region: home, Epoch: v.Epoch, Revision: 3, Complete: true, Addresses: []string{"http://gone:1"}}},
		Services: []view.ServiceImage{{Namespace: "default", Service: "orders", Regions: []view.ContentImage{{Version: v, Full: true, Endpoints: []api.Endpoint{
			{ID: api.InstanceID(id), Address: "10.0.0.1", Port: 80, Region: home, Weight: 100, Status: api.StatusPassing},
		}}}}},
	}
}

func encoded(t *testing.T, img *view.Image, key []byte) []byte {
	t.Helper()
	b, err := disk.Encode(img, key, 0)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// around puts a header with a good checksum before a payload.
func around(payload []byte) []byte {
	b := append([]byte("NEARSNAP"), 1, 0, 0, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(payload)))
	b = binary.LittleEndian.AppendUint64(b, xxhash.Sum64(payload))
	return append(b, payload...)
}

func packed(plain []byte) []byte {
	enc, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	defer func() { _ = enc.Close() }()
	return enc.EncodeAll(plain, nil)
}

// bench is a directory with two generations, "two" in place and "one" before it, which a bend
// changes.
type bench struct {
	r        *rand.Rand
	now      time.Time
	key      []byte
	path     string // prev is beside it
	one, two []byte
	t        *testing.T
}

func (b *bench) put(path string, content []byte) {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) prev() string { return b.path + ".prev" }

// flip changes some bits.
func (b *bench) flip(whole []byte) []byte {
	c := bytes.Clone(whole)
	for range 1 + b.r.IntN(8) {
		at := b.r.IntN(len(c) * 8)
		c[at/8] ^= 1 << (at % 8)
	}
	if bytes.Equal(c, whole) {
		c[len(c)-1] ^= 1
	}
	return c
}

// foreign is a file of some other program.
func (b *bench) foreign() []byte {
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	_, _ = g.Write(b.two)
	_ = g.Close()
	junk := make([]byte, b.r.IntN(1<<14))
	for i := range junk {
		junk[i] = byte(b.r.Uint32())
	}
	return [][]byte{
		nil, junk, z.Bytes(), []byte("{}"), []byte(`{"home":"us","services":[{"service":"orders"}]}`), []byte("SQLite format 3\x00"),
		append([]byte("\x7fELF"), junk...), []byte("NEARSNAP"), append([]byte("NEARSNAP"), junk...), append(bytes.Clone(b.two), junk...), append(bytes.Clone(b.two), 0),
	}[b.r.IntN(11)]
}

// The bends, and what may come of each: the newest generation, the one before, or nothing.
// "any" is one of the three; evil is never shown.
var bends = []struct {
	name string
	do   func(*bench)
	want string
}{
	{"as it is", func(*bench) {}, "two"},
	{"flipped bits", func(b *bench) { b.put(b.path, b.flip(b.two)) }, "one"},
	{"flipped bits in both", func(b *bench) { b.put(b.path, b.flip(b.two)); b.put(b.prev(), b.flip(b.one)) }, ""},
	{"cut off", func(b *bench) { b.put(b.path, b.two[:b.r.IntN(len(b.two))]) }, "one"},
	{"both cut off", func(b *bench) {
		b.put(b.path, b.two[:b.r.IntN(len(b.two))])
		b.put(b.prev(), b.one[:b.r.IntN(len(b.one))])
	}, ""},
	{"generations swapped", func(b *bench) { b.put(b.path, b.one); b.put(b.prev(), b.two) }, "one"},
	{"gone", func(b *bench) { _ = os.Remove(b.path) }, "one"},
	{"both gone", func(b *bench) { _ = os.Remove(b.path); _ = os.Remove(b.prev()) }, ""},
	{"of another program", func(b *bench) { b.put(b.path, b.foreign()) }, "one"},
	{"two of other programs", func(b *bench) { b.put(b.path, b.foreign()); b.put(b.prev(), b.foreign()) }, ""},
	{"another format", func(b *bench) {
		c := bytes.Clone(b.two)
		binary.LittleEndian.PutUint32(c[8:], []uint32{0, 2, 3, 256, 1 << 31}[b.r.IntN(5)])
		b.put(b.path, c)
	}, "one"},
	{"other flags", func(b *bench) {
		c := bytes.Clone(b.two)
		binary.LittleEndian.PutUint32(c[12:], 2+b.r.Uint32N(1<<31))
		b.put(b.path, c)
	}, "one"},
	{"another length", func(b *bench) {
		c := bytes.Clone(b.two)
		binary.LittleEndian.PutUint64(c[16:], []uint64{0, 1, 1 << 31, 1 << 40, 1<<63 - 1, 1<<64 - 1}[b.r.IntN(6)])
		b.put(b.path, c)
	}, "one"},
	{"the head of one and the body of the other", func(b *bench) { b.put(b.path, append(bytes.Clone(b.two[:32]), b.one[32:]...)) }, "one"},
	{"a large file of nothing", func(b *bench) {
		b.put(b.path, b.two)
		_ = os.Truncate(b.path, 1<<40)
	}, "one"},
	{"not unpackable", func(b *bench) { b.put(b.path, around(b.foreign())) }, "one"},
	{"packs everything into nothing", func(b *bench) { b.put(b.path, around(bombs()[b.r.IntN(len(bombs()))])) }, "one"},
	{"of another home", func(b *bench) { b.put(b.path, encoded(b.t, snap("eu", "evil", b.now), b.key)); _ = os.Remove(b.prev()) }, ""},
	{"30 days old", func(b *bench) { b.put(b.path, encoded(b.t, snap("us", "two", b.now.AddDate(0, 0, -30)), b.key)) }, "two"},
	{"of the year 1", func(b *bench) { b.put(b.path, encoded(b.t, snap("us", "two", time.Time{}), b.key)) }, "two"},
	{"of the future", func(b *bench) { b.put(b.path, encoded(b.t, snap("us", "two", b.now.AddDate(5000, 0, 0)), b.key)) }, "two"},
	{"a directory", func(b *bench) { _ = os.Remove(b.path); _ = os.Mkdir(b.path, 0o700) }, "one"},
	{"a pipe", func(b *bench) { _ = os.Remove(b.path); _ = syscall.Mkfifo(b.path, 0o600) }, "one"},
	{"two pipes", func(b *bench) {
		for _, p := range []string{b.path, b.prev()} {
			_ = os.Remove(p)
			_ = syscall.Mkfifo(p, 0o600)
		}
	}, ""},
	{"a link to itself", func(b *bench) { b.link(b.path) }, "one"},
	{"a link to nowhere", func(b *bench) { b.link(b.path + ".gone") }, "one"},
	{"a link to a device", func(b *bench) { b.link("/dev/zero") }, "one"},
	{"a link to the other generation", func(b *bench) { b.link(b.prev()) }, "one"},
	{"not readable", func(b *bench) { _ = os.Chmod(b.path, 0) }, map[bool]string{true: "two", false: "one"}[os.Geteuid() == 0]},
}

// With a key, what somebody else made is refused, however well it is made.
var forged = []struct {
	name string
	do   func(*bench)
	want string
}{
	{"not signed", func(b *bench) { b.put(b.path, encoded(b.t, snap("us", "evil", b.now), nil)) }, "one"},
	{"neither signed", func(b *bench) {
		b.put(b.path, encoded(b.t, snap("us", "evil", b.now), nil))
		b.put(b.prev(), encoded(b.t, snap("us", "evil", b.now), nil))
	}, ""},
	{"signed with another key", func(b *bench) { b.put(b.path, encoded(b.t, snap("us", "evil", b.now), []byte("another key of 16"))) }, "one"},
	{"the signature of another file", func(b *bench) {
		c := encoded(b.t, snap("us", "evil", b.now), []byte("another key of 16"))
		b.put(b.path, append(c[:len(c)-32], b.two[len(b.two)-32:]...))
	}, "one"},
	{"the signature is cut off, and the flag", func(b *bench) {
		c := bytes.Clone(b.two[:len(b.two)-32])
		binary.LittleEndian.PutUint32(c[12:], 0)
		b.put(b.path, c)
	}, "one"},
}

func (b *bench) link(to string) {
	_ = os.Remove(b.path)
	if err := os.Symlink(to, b.path); err != nil {
		b.t.Fatal(err)
	}
}

// bombs are payloads that are small on disk and large in memory, or deep.
var bombs = sync.OnceValue(func() [][]byte {
	repeat := func(head, s string, n int, tail string) []byte {
		return packed([]byte(head + string(bytes.Repeat([]byte(s), n)) + tail))
	}
	return [][]byte{
		repeat("", " ", disk.MaxPlain+1, ""),
		repeat(`{"regions":[{}`, `,{}`, 10<<20, `]}`),
		repeat(`{"services":[{"service":"orders","regions":[{"endpoints":[{"tags":[""`, `,""`, 10<<20, `]}]}]}]}`),
		repeat(`{"services":`, `[`, 8<<20, ""),
		repeat(`{"x":`, `{"x":`, 1<<20, ""),
	}
})

// Rows 38 to 40, 42: 2,000 bent snapshots (300 with the race detector), and a start from each
// while no registry answers: never a panic, never two seconds lost, never anything that was not
// known, and the generation before it where that is whole.
func TestBentSnapshots(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d (SEED=%d replays it)", seed, seed)
	count := 2000
	if raced {
		count = 300
	}
	var now time.Time
	synctest.Test(t, func(*testing.T) { now = time.Now() }) // that of the bubbles below
	dir, key := t.TempDir(), []byte("a key of 16 bytes")
	worst := time.Duration(0)
	for i := range count {
		b := &bench{r: rand.New(rand.NewPCG(seed, uint64(i))), now: now, t: t, path: filepath.Join(dir, fmt.Sprint(i), "nearside-us.snapshot")}
		_ = os.MkdirAll(filepath.Dir(b.path), 0o700)
		list := bends
		if b.r.IntN(2) == 0 {
			b.key, list = key, slices.Concat(bends, forged)
		}
		b.one, b.two = encoded(t, snap("us", "one", now.Add(-time.Hour)), b.key), encoded(t, snap("us", "two", now.Add(-time.Minute)), b.key)
		b.put(b.prev(), b.one)
		b.put(b.path, b.two)
		bend := list[b.r.IntN(len(list))]
		bend.do(b)
		began := time.Now()
		synctest.Test(t, func(t *testing.T) {
			got, view, took := startFrom(t, b)
			if got != bend.want {
				t.Errorf("start %d, %s (signed %v): %q, want %q", i, bend.name, b.key != nil, got, bend.want)
			}
			if took > firstUse {
				t.Errorf("start %d, %s: %s", i, bend.name, took)
			}
			if bend.name == "30 days old" && (view.State != api.AgeExpired || view.AgeMS < 30*24*3600*1000 || view.Source != api.SourceSnapshot) {
				t.Errorf("start %d: the age must show: %+v", i, view)
			}
		})
		worst = max(worst, time.Since(began))
		_ = os.RemoveAll(filepath.Dir(b.path))
	}
	t.Logf("%d bent snapshots, the longest start took %s", count, worst.Round(time.Millisecond))
	if limit := 2 * time.Second; worst > limit && !raced {
		t.Errorf("a start took %s", worst)
	}
}

// startFrom starts a client from the bench while nothing answers, and returns whom it picks and
// what it says of the region.
func startFrom(t *testing.T, b *bench) (id string, v api.Origin, took time.Duration) {
	net := newMemNet()
	web := &http.Transport{DialContext: net.DialContext}
	defer web.CloseIdleConnections()
	c, err := New(Config{
		Addresses: []string{"http://us.registry:7400"}, Region: "us", SnapshotDir: filepath.Dir(b.path), SnapshotKey: b.key,
		HTTPClient: &http.Client{Transport: web},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	start := time.Now()
	res, err := c.Resolve(t.Context(), "orders")
	took = time.Since(start)
	if errors.Is(err, ErrUnreachable) {
		return "", v, took
	}
	if err != nil || len(res.Endpoints) != 1 || len(res.Views) == 0 {
		t.Fatalf("%+v %v", res, err)
	}
	p, err := c.Pick(t.Context(), "orders")
	if err != nil || p.Endpoint.ID != res.Endpoints[0].ID {
		t.Fatal(p, err)
	}
	return string(p.Endpoint.ID), res.Views[0], took
}
