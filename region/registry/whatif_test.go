package registry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

func lose(regions ...api.Region) (out []api.Loss) {
	for _, r := range regions {
		out = append(out, api.Loss{Region: r})
	}
	return out
}

func link(a, b api.Region) []api.Loss { return []api.Loss{{Link: []api.Region{a, b}}} }

func (b *bed) whatIf(q WhatIfQuery) api.WhatIf {
	b.t.Helper()
	out, stamp, err := b.WhatIf(b.t.Context(), q)
	if err != nil {
		b.t.Fatal(err)
	}
	if stamp.Version != b.Stamp().Version {
		b.t.Errorf("stamp %+v", stamp)
	}
	return out
}

// near puts a region before all others.
func (f *fakeReplicas) near(r api.Region) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.origins[r]
	o.RTTMS = 1
	f.origins[r] = o
}

// rows tells an answer's entries in short.
func rows(w api.WhatIf) string {
	var out []string
	for _, s := range w.Services {
		text := fmt.Sprintf("%s from %s %s", s.Service, s.From, s.Effect)
		for _, r := range s.Regions {
			text += fmt.Sprintf(" %s:%v>%v", r.Region, r.Before, r.After)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// What an operator asks before switching a region off, and what the region does when it is off: the very
// same (design, section 1, "what happens if").
func TestWhatIfForetellsWhatIsResolved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		f.near("us-east")
		b.register("orders", "a")
		f.set("us-east", "orders", 7, "u1")
		f.set("us-east", "payments", 8, "p1", "p2")
		f.set("us-east", "search", 9, "s1", "s2", "s3", "s4")
		f.set("ap-south", "search", 3, "s5", "s6", "s7", "s8")
		f.set("us-east", "mail", 10, "m1", "m2")
		f.set("ap-south", "mail", 4, "m3")
		w := b.whatIf(WhatIfQuery{Losses: lose("us-east")})
		if got, want := rows(w), "payments from eu-west down us-east:1>0; mail from eu-west over us-east:1>0 ap-south:0>1; search from eu-west moved us-east:1>0 ap-south:0>1"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if want := (api.EffectCounts{Services: 4, Down: 1, Over: 1, Moved: 1, Unaffected: 1}); w.Counts != want || w.Effect != api.EffectDown {
			t.Errorf("%+v, %s", w.Counts, w.Effect)
		}
		if want := []api.WhatIfRegion{{Region: "ap-south", More: 6, Services: 2, Over: 1}, {Region: "eu-west"}, {Region: "us-east", Lost: true}}; !reflect.DeepEqual(w.Regions, want) {
			t.Errorf("%+v", w.Regions)
		}
		if !reflect.DeepEqual(w.Callers, []string{"eu-west"}) || len(w.Views) != 3 || !strings.HasPrefix(w.Detail, "without us-east, of 4 services 1 would be down") {
			t.Errorf("%+v", w)
		}
		if f.uses("ap-south", "search") != 0 {
			t.Error("somebody was told that ap-south serves, for a question")
		}

		for _, s := range []api.ServiceName{"orders", "payments", "search", "mail"} {
			f.set("us-east", s, 20) // now it happens
		}
		for _, row := range w.Services {
			res, _, err := b.Resolve(t.Context(), ResolveQuery{Service: row.Service})
			if row.Effect == api.EffectDown {
				b.wantCode(err, api.CodeServiceNotFound)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range row.Regions {
				got := 0.0
				for _, tier := range res.Decision.Tiers {
					if tier.Region == r.Region {
						got += tier.Weight
					}
				}
				if math.Abs(got-r.After) > 1e-5 {
					t.Errorf("%s: %s was to get %v and gets %v", row.Service, r.Region, r.After, got)
				}
			}
		}
	})
}

// Whose calls are looked at: this region's; of the others when it is lost itself; of the place that is named.
func TestWhatIfWhoseCallers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		f.near("us-east")
		b.register("orders", "a")
		f.set("us-east", "search", 9, "s1")
		f.set("ap-south", "search", 3, "s2")
		w := b.whatIf(WhatIfQuery{Losses: lose("eu-west")})
		if want := "orders from ap-south down eu-west:1>0; orders from us-east down eu-west:1>0"; rows(w) != want {
			t.Errorf("got  %s\nwant %s", rows(w), want)
		}
		if w.Counts.Down != 1 || w.Counts.Services != 2 {
			t.Errorf("one service is down, for two kinds of callers: %+v", w.Counts)
		}
		if len(w.Notes) == 0 || !strings.Contains(w.Notes[0], "callers in other regions") {
			t.Errorf("it does not say what is not known: %q", w.Notes)
		}
		w = b.whatIf(WhatIfQuery{Losses: lose("us-east"), FromRegion: "ap-south", FromZone: "z", Services: []api.ServiceName{"search", "orders"}})
		if want := "orders from ap-south/z unaffected eu-west:1>1; search from ap-south/z unaffected ap-south:1>1"; rows(w) != want {
			t.Errorf("got  %s\nwant %s", rows(w), want)
		}
		w = b.whatIf(WhatIfQuery{Losses: link("eu-west", "us-east"), FromRegion: "us-east", Services: []api.ServiceName{"orders"}})
		if want := "orders from us-east down eu-west:1>0"; rows(w) != want {
			t.Errorf("got  %s\nwant %s", rows(w), want)
		}
	})
}

// A zone: the rest of its region carries what it can, the remainder goes on.
func TestWhatIfLosesAZone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		f.near("us-east")
		for i, zone := range []api.Zone{"a", "b"} {
			in := reg()
			in.Zone = zone
			if _, _, err := b.Register(t.Context(), ikey("orders", fmt.Sprint(i)), in); err != nil {
				t.Fatal(err)
			}
		}
		f.set("us-east", "orders", 7, "u1", "u2")
		w := b.whatIf(WhatIfQuery{Losses: []api.Loss{{Region: "eu-west", Zone: "b"}}})
		if want := "orders from eu-west moved eu-west:1>0.7 us-east:0>0.3"; rows(w) != want {
			t.Errorf("got  %s\nwant %s", rows(w), want)
		}
		w = b.whatIf(WhatIfQuery{Losses: []api.Loss{{Region: "us-east", Zone: "z"}}})
		if w.Effect != api.EffectNone || len(w.Services) != 0 {
			t.Errorf("%+v", w)
		}
	})
}

// What cannot be answered is refused, with the thing, the cause and the remedy; above all what would be
// answered with "all is well" for a typing error.
func TestWhatIfRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		f.near("us-east")
		b.register("orders", "a")
		f.set("us-east", "orders", 7, "u1")
		for name, tc := range map[string]struct {
			q    WhatIfQuery
			code api.Code
			say  string
		}{
			"nothing lost":            {WhatIfQuery{}, api.CodeInvalidField, "lose=REGION"},
			"no such region":          {WhatIfQuery{Losses: lose("us-eats")}, api.CodeRegionNotFound, "known are eu-west, ap-south, us-east"},
			"no such end of a link":   {WhatIfQuery{Losses: link("eu-west", "mars")}, api.CodeRegionNotFound, "mars"},
			"no such zone here":       {WhatIfQuery{Losses: []api.Loss{{Region: "eu-west", Zone: "q"}}}, api.CodeInvalidField, "there are a"},
			"no such zone there":      {WhatIfQuery{Losses: []api.Loss{{Region: "us-east", Zone: "q"}}}, api.CodeInvalidField, "there are z"},
			"no such place":           {WhatIfQuery{Losses: lose("us-east"), FromRegion: "mars"}, api.CodeRegionNotFound, "mars"},
			"callers who are lost":    {WhatIfQuery{Losses: lose("us-east"), FromRegion: "us-east"}, api.CodeInvalidField, "leave from out"},
			"callers in a lost zone":  {WhatIfQuery{Losses: []api.Loss{{Region: "eu-west", Zone: "a"}}, FromRegion: "eu-west", FromZone: "a"}, api.CodeInvalidField, "eu-west/a"},
			"nobody is left":          {WhatIfQuery{Losses: lose("us-east", "eu-west", "ap-south")}, api.CodeInvalidField, "fewer"},
			"a link of others":        {WhatIfQuery{Losses: link("us-east", "ap-south")}, api.CodeInvalidField, "from=us-east"},
			"no such service":         {WhatIfQuery{Losses: lose("us-east"), Services: []api.ServiceName{"orders", "order"}}, api.CodeServiceNotFound, `"order"`},
			"no name of a service":    {WhatIfQuery{Losses: lose("us-east"), Services: []api.ServiceName{"A"}}, api.CodeInvalidField, ""},
			"no name of a namespace":  {WhatIfQuery{Losses: lose("us-east"), Namespace: "A"}, api.CodeInvalidField, ""},
			"too many losses":         {WhatIfQuery{Losses: make([]api.Loss, 65)}, api.CodeInvalidField, "64"},
			"somebody else's cursor":  {WhatIfQuery{Losses: lose("us-east"), Cursor: "orders"}, api.CodeInvalidField, "cursor"},
			"too many services named": {WhatIfQuery{Losses: lose("us-east"), Services: slices.Repeat([]api.ServiceName{"orders"}, 257)}, api.CodeInvalidField, "256"},
		} {
			_, _, err := b.WhatIf(t.Context(), tc.q)
			b.wantCode(err, tc.code)
			if err == nil || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%s: %v does not say %q", name, err, tc.say)
			}
		}
	})
}

// P8: a large catalogue costs a bounded time; what is left is behind the cursor, and the parts add up. The
// entries are bounded too, and the worst are told.
func TestWhatIfIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		f.near("us-east")
		for i := range 200 {
			f.set("us-east", api.ServiceName(fmt.Sprintf("s%03d", i)), 1, "u1")
			if i%4 > 0 {
				f.set("ap-south", api.ServiceName(fmt.Sprintf("s%03d", i)), 1, "p1")
			}
		}
		whole := b.whatIf(WhatIfQuery{Losses: lose("us-east")})
		if want := (api.EffectCounts{Services: 200, Down: 50, Moved: 150}); whole.Counts != want || len(whole.Services) != 200 || whole.Omitted != 0 || whole.Cursor != "" {
			t.Fatalf("%+v, %d told, %d not", whole.Counts, len(whole.Services), whole.Omitted)
		}
		few := b.whatIf(WhatIfQuery{Losses: lose("us-east"), Limit: 60})
		if few.Counts != whole.Counts || len(few.Services) != 60 || few.Omitted != 140 || !reflect.DeepEqual(few.Services, whole.Services[:60]) {
			t.Errorf("%+v, %d told, %d not", few.Counts, len(few.Services), few.Omitted)
		}
		b.whatIfBudget = new(time.Duration) // there is no time
		sum, seen, cursor := api.EffectCounts{}, 0, ""
		for range 200 {
			part := b.whatIf(WhatIfQuery{Losses: lose("us-east"), Cursor: cursor})
			sum.Services, sum.Down, sum.Moved = sum.Services+part.Counts.Services, sum.Down+part.Counts.Down, sum.Moved+part.Counts.Moved
			seen += len(part.Services)
			if cursor = part.Cursor; cursor == "" {
				break
			}
			if !strings.Contains(part.Detail, "there was no time") {
				t.Fatal(part.Detail)
			}
		}
		if cursor != "" || sum != whole.Counts || seen != 200 {
			t.Errorf("the parts are %+v, %d entries, cursor %q", sum, seen, cursor)
		}
	})
}

// P8: a node thinks about one what-if at a time; the others wait for a while, and are told.
func TestWhatIfOneAtATime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		f.near("us-east")
		f.set("us-east", "orders", 7, "u1")
		q := WhatIfQuery{Losses: lose("us-east")}
		done, err := b.wonder(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_, _, err = b.WhatIf(t.Context(), q)
		b.wantCode(err, api.CodeTooManyRequests)
		if waited := time.Since(begin); waited != whatIfWait {
			t.Errorf("it was refused after %s", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := b.WhatIf(ctx, q); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		time.AfterFunc(time.Second, done)
		if w := b.whatIf(q); w.Counts.Down != 1 {
			t.Errorf("%+v", w)
		}
	})
}

// Loads that instances report decide what is over, where they are known of both regions.
func TestWhatIfGoesByLoads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		f.near("us-east")
		key := api.ServiceKey{Namespace: "default", Service: "search"}
		for _, load := range []int{30, 80} {
			f.set("us-east", "search", 1, "u1", "u2")
			f.set("ap-south", "search", 1, "p1", "p2")
			f.rows["us-east"][key].Load, f.rows["ap-south"][key].Load = 60, load
			w := b.whatIf(WhatIfQuery{Losses: lose("us-east")})
			want := map[int]api.Effect{30: api.EffectMoved, 80: api.EffectOver}[load]
			if row := w.Services[0]; row.Effect != want || row.Regions[1].LoadAfter != float64(60+load) {
				t.Errorf("60 %% go where %d %% are: %+v", load, row)
			}
		}
	})
}
