package disk

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/internal/view"
)

func image(id api.InstanceID) *view.Image {
	v := api.Version{Region: "us", Epoch: api.Epoch{Generation: 1, Nonce: 2}, Revision: 3}
	return &view.Image{
		Home: "us", SavedAt: time.Unix(1_700_000_000, 0).UTC(),
		Regions: []api.Origin{{Region: "us", Epoch: v.Epoch, Revision: 3, Addresses: []string{"http://us:7400"}}},
		Services: []view.ServiceImage{{Namespace: "default", Service: "orders", Regions: []view.ContentImage{{
			Version: v, Full: true,
			Endpoints: []api.Endpoint{{ID: id, Address: "10.0.0.1", Port: 80, Region: "us", Weight: 100, Status: api.StatusPassing}},
		}}}},
	}
}

func first(img *view.Image) api.InstanceID { return img.Services[0].Regions[0].Endpoints[0].ID }

// Row 38: wherever a write stops, a whole generation is read.
func TestTornFilesFallBack(t *testing.T) {
	f := New(filepath.Join(t.TempDir(), "made"), "s.snapshot")
	if _, err := f.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, id := range []api.InstanceID{"one", "two"} {
		if err := f.Write(image(id)); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(f.Path())
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		if err := os.WriteFile(f.Path(), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := New(filepath.Dir(f.Path()), "s.snapshot").Read()
		if img == nil || first(img) != "one" || !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	// A torn file does not push the good generation out.
	again := New(filepath.Dir(f.Path()), "s.snapshot")
	_, _ = again.Read()
	if err := again.Write(image("three")); err != nil {
		t.Fatal(err)
	}
	if img, err := New(filepath.Dir(f.Path()), "s.snapshot").read(f.Path() + prevSuffix); err != nil || first(img) != "one" {
		t.Errorf("previous: %v", err)
	}
	if img, err := again.Read(); err != nil || first(img) != "three" {
		t.Error(err)
	}
	left, _ := os.ReadDir(filepath.Dir(f.Path()))
	if len(left) != 2 {
		t.Errorf("files left behind: %v", left)
	}
}

// Row 39: every single bent bit is noticed.
func TestBentFilesAreRefused(t *testing.T) {
	whole, err := Encode(image("a"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		b := append([]byte(nil), whole...)
		b[i] ^= 1 << (i % 8)
		if _, err := Decode(b, nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}

// seal makes a file with a good checksum out of any text.
func seal(plain []byte) []byte {
	enc, _ := zstd.NewWriter(nil)
	defer func() { _ = enc.Close() }()
	payload := enc.EncodeAll(plain, nil)
	b := make([]byte, headerLen, headerLen+len(payload))
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], format)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(payload)))
	binary.LittleEndian.PutUint64(b[24:], xxhash.Sum64(payload))
	return append(b, payload...)
}

// Row 39: a file made by somebody else, with a good checksum, brings in nothing that a
// registry would not say.
func TestHostileFilesAreCleaned(t *testing.T) {
	img, err := Decode(seal([]byte(`{"home":"US!","regions":[{"region":"../etc"},{"region":"eu","age_ms":-5,"addresses":["file:///x","http://u:p@h","http://ok:1"]},{"region":"eu"}],
		"services":[{"service":"Bad"},{"service":"orders","regions":[{"version":{"region":"eu"},"total":-1,"endpoints":[
			{"id":"a b","address":"h","port":1,"status":"passing"},{"id":"a","address":"","port":1,"status":"passing"},
			{"id":"b","address":"h","port":0,"status":"passing"},{"id":"c","address":"h","port":1,"status":"odd"},
			{"id":"good","address":"h","port":1,"status":"passing","region":"us","tier":9}]}]}]}`)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if img.Home != "" || len(img.Regions) != 1 || img.Regions[0].AgeMS != 0 || len(img.Regions[0].Addresses) != 1 {
		t.Errorf("%+v", img.Regions)
	}
	if len(img.Services) != 1 || len(img.Services[0].Regions[0].Endpoints) != 1 {
		t.Fatalf("%+v", img.Services)
	}
	if e := img.Services[0].Regions[0].Endpoints[0]; e.ID != "good" || e.Region != "eu" || e.Tier != 0 {
		t.Errorf("%+v", e)
	}
}

// A pipe in the place of the file must not hang the start.
func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "s"), 0o700); err != nil {
		t.Fatal(err)
	}
	if img, err := New(dir, "s").Read(); img != nil || !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

// FuzzDecode: whatever is in the file, Decode returns an image or ErrDamaged, and what it
// returns loads.
func FuzzDecode(f *testing.F) {
	whole, _ := Encode(image("a"), nil, 0)
	f.Add(whole, false)
	f.Add(whole[:len(whole)-3], false)
	f.Add([]byte(magic), false)
	bysomebody, _ := Encode(image("a"), []byte("somebody's key"), 0)
	f.Add(bysomebody, false)
	f.Add([]byte(`{"home":"us","regions":[{"region":"us"}],"services":[{"service":"orders","regions":[{"version":{"region":"us"},"endpoints":[{"id":"a"}]}]}]}`), true)
	f.Add([]byte(`{"saved_at":"9999-12-31T23:59:59Z","regions":[{"region":"us","age_ms":9223372036854775807}]}`), true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed {
			b = seal(b)
		}
		if _, err := Decode(b, []byte("nobody's key")); !errors.Is(err, ErrDamaged) {
			t.Fatalf("P12: taken for signed: %v", err)
		}
		img, err := Decode(b, nil)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		now := time.Unix(1_800_000_000, 0)
		book := view.New("")
		book.Load(*img, now)
		for _, s := range img.Services {
			key := api.ServiceKey{Namespace: s.Namespace, Service: s.Service}
			book.Want(key)
			book.LoadService(s, now)
			for _, r := range book.View(key, now).Regions {
				if r.Origin.AgeMS < 0 {
					t.Fatalf("age %d", r.Origin.AgeMS)
				}
			}
		}
		again := book.Image(now)
		if _, err := Encode(&again, nil, 0); err != nil {
			t.Fatal(err)
		}
	})
}

// A file of the first program, which knew of no policies and drains, is read; and what a
// policy and a drain say comes back, within their bounds.
func TestFilesOfTheFirstProgramAreRead(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "format1.snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := Decode(b, nil)
	if err != nil || first(img) != "one" || img.Services[0].Policy != nil || img.Regions[0].Drained != 0 {
		t.Fatalf("%+v %v", img, err)
	}
	img.Regions[0].Drained = 250
	img.Services[0].Policy = &api.Policy{Allowed: []api.Region{"us"}}
	if b, err = Encode(img, nil, 0); err != nil {
		t.Fatal(err)
	}
	img, err = Decode(b, nil)
	if err != nil || img.Regions[0].Drained != 100 || len(img.Services[0].Policy.Allowed) != 1 {
		t.Fatalf("%+v %v", img, err)
	}
}
