package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// P3: what programs write into their metadata does not make a file that nobody can read: only
// what becomes an object or a value in memory counts.
func TestMetadataFullOfCommas(t *testing.T) {
	f := New(t.TempDir(), "s.snapshot")
	img := image("a")
	list := &img.Services[0].Regions[0].Endpoints
	for i := range 40 {
		e := (*list)[0]
		e.ID = api.InstanceID(fmt.Sprintf("i%d", i))
		e.Metadata = map[string]string{"cpus": strings.Repeat("1,", 1000), "shape": strings.Repeat(`{\"`, 1000)}
		*list = append(*list, e)
	}
	for range 2 { // both generations
		if err := f.Write(img); err != nil {
			t.Fatal(err)
		}
	}
	got, err := New(filepath.Dir(f.Path()), "s.snapshot").Read()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got.Services[0].Regions[0].Endpoints); n != len(*list) {
		t.Errorf("%d of %d endpoints", n, len(*list))
	}
}

// What would be refused when it is read is not written over a file that is whole.
func TestNothingUnreadableIsWritten(t *testing.T) {
	img := image("a")
	img.Services[0].Regions[0].Endpoints[0].Tags = make([]string, 1<<20) // three bytes each
	if _, err := Encode(img, nil, 0); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, want %v", err, ErrTooLarge)
	}
}

func TestPlausible(t *testing.T) {
	for name, c := range map[string]struct {
		json string
		want bool
	}{
		"empty objects":         {"[" + strings.Repeat("{},", 1<<20) + "{}]", false},
		"empty strings":         {"[" + strings.Repeat(`"",`, 1<<20) + `""]`, false},
		"behind an escape":      {`["\\",` + strings.Repeat("{},", 1<<20) + "{}]", false},
		"one string of objects": {`["\"` + strings.Repeat("{},", 1<<20) + `"]`, true},
	} {
		if got := plausible([]byte(c.json)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
