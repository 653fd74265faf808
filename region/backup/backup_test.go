package backup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

var created = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// sample is an image with instances, records of others and odd sizes.
func sample(t testing.TB, instances int) store.Image {
	t.Helper()
	img := store.Image{Epoch: api.Epoch{Generation: 7, Nonce: 0xbeef}, Revision: 4242}
	img.Records = append(img.Records, store.Record{Key: "a", Revision: 1}, store.Record{Key: "future/kind", Value: bytes.Repeat([]byte{0, 255}, 300_000), Revision: 9})
	for s := range 3 {
		for i := range instances / 3 {
			key := api.InstanceKey{Namespace: "default", Service: api.ServiceName(fmt.Sprintf("s%d", s)), ID: api.InstanceID(fmt.Sprintf("i%06d", i))}
			value, err := catalog.EncodeInstance(api.Instance{
				Namespace: key.Namespace, Service: key.Service, ID: key.ID, Address: "10.0.0.1", Port: 80, Weight: 100,
				TTL: api.Duration(15 * time.Second), Incarnation: 1, Status: api.StatusPassing,
			})
			if err != nil {
				t.Fatal(err)
			}
			img.Records = append(img.Records, store.Record{Key: catalog.InstanceRecordKey(key), Value: value, Revision: uint64(10 + i)})
		}
	}
	return img
}

func file(t testing.TB, img store.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, "us-east", "us-east-1", created, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEveryRecordComesBackAsItWas(t *testing.T) {
	for _, n := range []int{0, 3, 30_000} {
		img := sample(t, n)
		b := file(t, img)
		var got []store.Record
		h, err := Read(iotest.HalfReader(bytes.NewReader(b)), func(r store.Record) error { got = append(got, r); return nil })
		if err != nil {
			t.Fatal(err)
		}
		want := Header{Format: 1, Region: "us-east", Epoch: img.Epoch, Revision: 4242, Records: len(img.Records), Created: created, Node: "us-east-1"}
		if h != want {
			t.Errorf("header %+v, want %+v", h, want)
		}
		if len(got) != len(img.Records) {
			t.Fatalf("%d records, want %d", len(got), len(img.Records))
		}
		for i, r := range got {
			w := img.Records[i]
			if r.Key != w.Key || r.Revision != w.Revision || !bytes.Equal(r.Value, w.Value) {
				t.Fatalf("record %d: %s", i, r.Key)
			}
		}
		info, err := Inspect(bytes.NewReader(b))
		if err != nil || info.Instances != n || info.Bytes != int64(len(b)) || info.Broken != 0 || (n > 0) != (info.Services == 3) {
			t.Errorf("%+v, %v", info, err)
		}
		t.Logf("%d instances: %d bytes", n, len(b))
	}
}

// P11: a backup that is cut short or changed anywhere is refused, never half taken.
func TestDamagedFilesAreRefused(t *testing.T) {
	img := sample(t, 9)
	img.Records[1].Value = img.Records[1].Value[:100]
	whole := file(t, img)
	ignore := func(store.Record) error { return nil }
	for n := range whole {
		if _, err := Read(bytes.NewReader(whole[:n]), ignore); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(whole), err)
		}
		for _, bit := range []byte{1, 0x80} {
			b := bytes.Clone(whole)
			b[n] ^= bit
			if _, err := Read(bytes.NewReader(b), ignore); !errors.Is(err, ErrDamaged) {
				t.Fatalf("byte %d changed: %v", n, err)
			}
		}
	}
	if _, err := Read(bytes.NewReader(append(bytes.Clone(whole), 0)), ignore); !errors.Is(err, ErrDamaged) {
		t.Errorf("with a byte more: %v", err)
	}
	later := bytes.Replace(whole, []byte(`"format":1`), []byte(`"format":9`), 1)
	if _, err := Read(bytes.NewReader(later), ignore); err == nil || !strings.Contains(err.Error(), "form 9") {
		t.Errorf("of a later version: %v", err)
	}
	mine := errors.New("mine")
	if _, err := Read(bytes.NewReader(whole), func(store.Record) error { return mine }); !errors.Is(err, mine) || errors.Is(err, ErrDamaged) {
		t.Errorf("a failing reader of records: %v", err)
	}
	if _, err := Read(iotest.ErrReader(mine), ignore); !errors.Is(err, mine) || errors.Is(err, ErrDamaged) {
		t.Errorf("a failing disk: %v", err)
	}
	if err := Write(io.Discard, "us-east", "n", created, store.Image{Epoch: img.Epoch, Records: []store.Record{{Key: "b"}, {Key: "a"}}}); err == nil {
		t.Error("records out of order were written")
	}
}

// P8: whatever the bytes, an answer in bounded memory; and what is taken can be written
// again and is the same.
func FuzzRead(f *testing.F) {
	small := store.Image{Epoch: api.Epoch{Generation: 1, Nonce: 2}, Revision: 3, Records: []store.Record{{Key: "a", Value: []byte("1"), Revision: 2}, {Key: "b", Revision: 3}}}
	f.Add(file(f, small))
	f.Add(file(f, store.Image{Epoch: small.Epoch}))
	f.Add(file(f, sample(f, 3)))
	f.Add([]byte(magic))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var img store.Image
		h, err := Read(bytes.NewReader(b), func(r store.Record) error {
			if len(img.Records) < 1000 {
				img.Records = append(img.Records, r)
			}
			return nil
		})
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%v", err)
			}
			return
		}
		if y := h.Created.UTC().Year(); h.Records > 1000 || y < 0 || y > 9999 {
			return
		}
		img.Epoch, img.Revision = h.Epoch, h.Revision
		var out bytes.Buffer
		if err := Write(&out, h.Region, h.Node, h.Created, img); err != nil {
			t.Fatal(err)
		}
		n := 0
		if _, err := Read(&out, func(r store.Record) error {
			if r.Key != img.Records[n].Key || !bytes.Equal(r.Value, img.Records[n].Value) {
				t.Fatalf("record %d is another", n)
			}
			n++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// P8: a file that unpacks to more than a store holds is refused, and says so; to look at a file keeps none of its
// records.
func TestFileThatUnpacksToTooMuchIsRefused(t *testing.T) {
	var stream bytes.Buffer
	if err := writeRecords(&stream, []store.Record{{Key: "a", Value: make([]byte, 600)}, {Key: "b", Value: make([]byte, 600)}}); err != nil {
		t.Fatal(err)
	}
	for most, want := range map[uint64]bool{1202: true, 1201: false} {
		_, err := readRecords(bufio.NewReader(bytes.NewReader(stream.Bytes())), most, func(store.Record) error { return nil })
		if (err == nil) != want || err != nil && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "1201 bytes")) {
			t.Errorf("at most %d bytes: %v", most, err)
		}
	}

	img := store.Image{Epoch: api.Epoch{Generation: 1, Nonce: 2}, Revision: 3}
	zeros := make([]byte, 1<<20)
	for i := range 128 {
		img.Records = append(img.Records, store.Record{Key: fmt.Sprintf("kv/%03d", i), Value: zeros, Revision: 1})
	}
	whole := file(t, img)
	runtime.GC()
	var before, during runtime.MemStats
	runtime.ReadMemStats(&before)
	peak, seen := uint64(0), 0
	in := readerFunc(func(p []byte) (int, error) {
		if seen == len(whole) {
			return 0, io.EOF
		}
		n := copy(p[:min(len(p), 512)], whole[seen:])
		seen += n
		runtime.GC()
		runtime.ReadMemStats(&during)
		peak = max(peak, during.HeapAlloc)
		return n, nil
	})
	if _, err := Inspect(in); err != nil {
		t.Fatal(err)
	}
	if grown := int64(peak) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("%d bytes of file, 128 MiB of records: Inspect kept %d MiB", len(whole), grown>>20)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
