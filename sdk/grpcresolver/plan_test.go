package grpcresolver

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// resolution makes one from words like "us:3@1", a tier of three in us with all the traffic;
// "zone" and "last" before the region make it such a tier.
func resolution(tiers ...string) *api.Resolution {
	res := &api.Resolution{}
	for i, word := range tiers {
		kind := api.TierFar
		if i == 0 {
			kind = api.TierRegion
		}
		if rest, ok := strings.CutPrefix(word, "zone "); ok {
			word, kind = rest, api.TierZone
		}
		if rest, ok := strings.CutPrefix(word, "last "); ok {
			word, kind = rest, api.TierOverflow
		}
		name, rest, _ := strings.Cut(word, ":")
		var n int
		var weight float64
		_, _ = fmt.Sscanf(rest, "%d@%g", &n, &weight)
		t := api.Tier{Tier: i, Kind: kind, Region: api.Region(name), Weight: weight}
		res.Decision.Tiers = append(res.Decision.Tiers, t)
		for k := range n {
			res.Endpoints = append(res.Endpoints, api.Endpoint{ID: api.InstanceID(fmt.Sprint(i, ".", k)), Region: t.Region, Tier: i})
		}
	}
	return res
}

func count(list []*api.Endpoint) string {
	m := map[string]int{}
	var names []string
	for _, e := range list {
		if m[string(e.Region)]++; m[string(e.Region)] == 1 {
			names = append(names, string(e.Region))
		}
	}
	var out []string
	for _, n := range names {
		out = append(out, fmt.Sprintf("%s %d", n, m[n]))
	}
	return strings.Join(out, ", ")
}

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		name         string
		tiers        []string
		lost         string // regions
		warm, most   int
		needed, kept string
	}{
		{"all at home, two warm in the next region", []string{"us:3@1", "eu:3@0", "ap:3@0"}, "", 2, 128, "us 3", "eu 2"},
		{"nothing is kept warm", []string{"us:3@1", "eu:3@0"}, "", 0, 128, "us 3", ""},
		{"the next region has fewer", []string{"us:3@1", "eu:1@0", "ap:3@0"}, "", 2, 128, "us 3", "eu 1"},
		{"the next region has none", []string{"us:3@1", "eu:0@0", "ap:3@0"}, "", 2, 128, "us 3", "ap 2"},
		{"a spill is connected to, the one after it is warm", []string{"us:3@0.7", "eu:3@0.3", "ap:3@0"}, "", 2, 128, "us 3, eu 3", "ap 2"},
		{"home cannot be had: the next before the client knows", []string{"us:3@1", "eu:3@0", "ap:3@0"}, "us", 2, 128, "us 3, eu 3", "ap 2"},
		{"nor can the next", []string{"us:3@1", "eu:3@0", "ap:3@0"}, "us eu", 2, 128, "us 3, eu 3, ap 3", ""},
		{"nobody can be had", []string{"us:3@1", "eu:3@0"}, "us eu", 2, 128, "us 3, eu 3", ""},
		{"the zone cannot be had: its region is next", []string{"zone us:1@1", "us:2@0", "eu:3@0"}, "us", 2, 128, "us 3, eu 3", ""},
		{"a last resort is not called in normal times", []string{"us:3@1", "eu:3@0", "last us:2@0"}, "", 2, 128, "us 3", "eu 2"},
		{"a last resort that is all there is", []string{"last us:2@1"}, "", 2, 128, "us 2", ""},
		{"a large service", []string{"us:1000@1", "eu:32@0"}, "", 2, 100, "us 100", "eu 2"},
		{"a large service that spills", []string{"us:300@0.9", "eu:100@0.1"}, "", 2, 100, "us 75, eu 25", ""},
		{"a small part is not none", []string{"us:1000@0.9", "eu:1@0.1"}, "", 2, 100, "us 99, eu 1", ""},
		{"nothing", nil, "", 2, 128, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lost := func(k key) bool { return strings.Contains(tc.lost, string(k.region)) }
			w := plan(resolution(tc.tiers...), lost, tc.warm, tc.most, rankBy(maphash.MakeSeed()))
			if got := count(w.needed); got != tc.needed {
				t.Errorf("needed: %s, want %s", got, tc.needed)
			}
			if got := count(w.warm); got != tc.kept {
				t.Errorf("warm: %s, want %s", got, tc.kept)
			}
		})
	}
}

// Channels take different parts of a large service, each the same all the time, and all
// instances are somebody's.
func TestPartsOfALargeService(t *testing.T) {
	res := resolution("us:200@1")
	served := map[api.InstanceID]int{}
	for range 200 {
		rank := rankBy(maphash.MakeSeed())
		never := func(key) bool { return false }
		first := plan(res, never, 0, 20, rank).needed
		if again := plan(res, never, 0, 20, rank).needed; !slices.Equal(first, again) {
			t.Fatal("the part of a channel changes by itself")
		}
		for _, e := range first {
			served[e.ID]++
		}
	}
	for id, n := range served {
		if n > 50 { // 20 on average
			t.Errorf("%s has %d connections", id, n)
		}
	}
	if len(served) != 200 {
		t.Errorf("%d of 200 instances have a connection", len(served))
	}
}
