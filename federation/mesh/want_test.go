package mesh

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/sdk/api"
)

// P11: a service is read whole after two seconds of use, until a minute after the last, and at most
// 64 of one region, the last used first.
func TestWant(t *testing.T) {
	key := func(origin, service string) detailKey {
		return detailKey{api.Region(origin), regiontest.Key(service)}
	}
	const s = time.Second
	for _, c := range []struct {
		name        string
		now         time.Duration
		first, last time.Duration
		open, want  bool
	}{
		{"just begun", 10 * s, 10 * s, 10 * s, false, false},
		{"for a moment", 11 * s, 10 * s, 11 * s, false, false},
		{"for more than a moment", 12 * s, 10 * s, 12 * s, false, true},
		{"once, a while ago", 40 * s, 10 * s, 10 * s, false, false},
		{"now and then", 40 * s, 10 * s, 38 * s, false, true},
		{"open, and used anew", 12 * s, 11 * s, 11 * s, true, true},
		{"open, almost a minute unused", 80*s - 1, 10 * s, 20 * s, true, true},
		{"open, a minute unused", 80 * s, 10 * s, 20 * s, true, false},
		{"a minute unused", 80 * s, 10 * s, 20 * s, false, false},
	} {
		k := key("eu-west", "orders")
		got := want(c.now, []use{{k, c.first, c.last}}, func(detailKey) bool { return c.open })
		if slices.Contains(got, k) != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	var uses []use
	for i := range 100 {
		uses = append(uses, use{key("eu-west", fmt.Sprintf("s%03d", i)), 0, 10*s + time.Duration(i)})
	}
	uses = append(uses, use{key("ap-south", "orders"), 0, 3 * s})
	before := slices.Clone(uses)
	got := want(11*s, uses, func(detailKey) bool { return false })
	if len(got) != maxOpenDetails+1 || got[0] != key("eu-west", "s099") || !slices.Contains(got, key("eu-west", "s036")) ||
		slices.Contains(got, key("eu-west", "s035")) || !slices.Contains(got, key("ap-south", "orders")) {
		t.Errorf("%d: %v", len(got), got)
	}
	if !slices.Equal(uses, before) {
		t.Error("the uses were changed")
	}
}
