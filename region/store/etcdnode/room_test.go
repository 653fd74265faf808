package etcdnode

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/nearside/nearside/region/store"
)

// P8, P10: what grows is refused while the reserve is touched, everything before the disk
// is full, and nothing flaps at the line.
func TestRoomHasThreeLevels(t *testing.T) {
	free, known := uint64(0), true
	r := newRoom("/data", 128*mib, func(string) (uint64, bool) { return free, known }, slog.New(slog.DiscardHandler))
	if r.check(true) != nil {
		t.Error("refused before anything is known")
	}
	for _, c := range []struct {
		free          uint64 // MiB
		puts, deletes error
	}{
		{500, nil, nil},
		{128, nil, nil},
		{127, store.ErrFull, nil},
		{140, store.ErrFull, nil},
		{143, store.ErrFull, nil},
		{144, nil, nil},
		{140, nil, nil},
		{20, store.ErrFull, nil},
		{15, store.ErrFull, store.ErrUnavailable},
		{0, store.ErrFull, store.ErrUnavailable},
		{20, store.ErrFull, nil},
		{130, store.ErrFull, nil},
		{145, nil, nil},
	} {
		free = c.free * mib
		r.look()
		puts, deletes := r.check(true), r.check(false)
		if !errors.Is(puts, c.puts) || !errors.Is(deletes, c.deletes) || (puts == nil) != (c.puts == nil) || (deletes == nil) != (c.deletes == nil) {
			t.Errorf("%d MiB free: puts %v, deletes %v", c.free, puts, deletes)
		}
		if puts != nil && !strings.Contains(puts.Error(), "/data") {
			t.Errorf("%q does not name the directory", puts)
		}
	}
	free, known = 0, false
	r.look()
	if err := r.check(true); err != nil {
		t.Errorf("where it cannot be told: %v", err)
	}
}
