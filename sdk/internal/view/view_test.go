package view

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

var (
	key = api.ServiceKey{Namespace: "default", Service: "orders"}
	t0  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func at(region api.Region, gen, rev uint64) api.Version {
	return api.Version{Region: region, Epoch: api.Epoch{Generation: gen, Nonce: gen}, Revision: rev}
}

func inst(id string) *api.Instance {
	return &api.Instance{Service: "orders", Namespace: "default", ID: api.InstanceID(id), Address: "h", Port: 1, Weight: 100, Status: api.StatusPassing}
}

func item(v api.Version, id string) api.Frame {
	return api.Frame{Kind: api.FrameItem, Version: v, Instance: inst(id), Service: "orders"}
}

func change(v api.Version, op api.Op, id string, more bool) api.Frame {
	return api.Frame{Kind: api.FrameChange, Version: v, Op: op, Instance: inst(id), Service: "orders", More: more}
}

func synced(v api.Version, origins ...api.Origin) api.Frame {
	return api.Frame{Kind: api.FrameSynced, Version: v, Origins: origins}
}

func origin(v api.Version) api.Origin {
	return api.Origin{Region: v.Region, Epoch: v.Epoch, Revision: v.Revision, Complete: true}
}

func replica(from, v api.Version, ids ...string) api.Frame {
	o := origin(v)
	f := api.Frame{Kind: api.FrameReplica, Version: from, Origin: &o, Service: "orders"}
	if len(ids) > 0 {
		f.Summary = &api.Summary{Namespace: "default", Service: "orders", Total: len(ids), Passing: len(ids), Complete: true}
		for _, id := range ids {
			f.Summary.Endpoints = append(f.Summary.Endpoints, inst(id).Endpoint())
		}
	}
	return f
}

// script applies frames at one time.
func script(t *testing.T, b *Book, now time.Time, frames ...api.Frame) {
	t.Helper()
	for i, f := range frames {
		if _, err := b.Apply(f, now); err != nil {
			t.Fatalf("frame %d (%s): %v", i, f.Kind, err)
		}
	}
}

// has checks what is known; "!" marks those that are only held.
func has(t *testing.T, b *Book, now time.Time, region api.Region, want ...string) {
	t.Helper()
	var got []string
	for _, r := range b.View(key, now).Regions {
		if r.Origin.Region != region {
			continue
		}
		for _, e := range r.Endpoints {
			id := string(e.ID)
			if e.Overdue {
				t.Errorf("%s/%s is offered last although nothing speaks against it", region, id)
			}
			if !b.services[key].content[region].endpoints[e.ID].until.IsZero() {
				id += "!"
			}
			got = append(got, id)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", region, got, want)
	}
}

func book() *Book {
	b := New("us")
	b.Want(key)
	return b
}

func begin(b *Book, resumed bool) { b.Begin(b.Wanted(), resumed) }

// P5: a list becomes visible as one, at synced; changes of one revision come together.
func TestListsAndRevisionsAreAtomic(t *testing.T) {
	b := book()
	begin(b, false)
	script(t, b, t0, item(at("us", 1, 5), "a"), replica(at("us", 1, 5), at("eu", 1, 9), "f"))
	if b.Synced(key) {
		t.Error("not before synced")
	}
	has(t, b, t0, "us")
	script(t, b, t0, synced(at("us", 1, 5)))
	has(t, b, t0, "us", "a")
	has(t, b, t0, "eu", "f")
	script(t, b, t0, change(at("us", 1, 6), api.OpPut, "b", true))
	has(t, b, t0, "us", "a")
	script(t, b, t0, change(at("us", 1, 6), api.OpDelete, "a", false))
	has(t, b, t0, "us", "b")
}

// P4: older knowledge never replaces newer, whoever brings it; also not what is gone.
func TestNoTimeTravel(t *testing.T) {
	b := book()
	begin(b, false)
	script(t, b, t0, item(at("us", 2, 5), "a"), replica(at("us", 2, 5), at("eu", 3, 50), "f"), synced(at("us", 2, 5), origin(at("eu", 3, 50))))
	script(t, b, t0,
		replica(at("us", 2, 5), at("eu", 3, 49), "older"), replica(at("us", 2, 5), at("eu", 2, 90), "older-epoch"),
		change(at("us", 2, 4), api.OpDelete, "a", false), change(at("us", 1, 90), api.OpDelete, "a", false))
	has(t, b, t0, "us", "a")
	has(t, b, t0, "eu", "f")
	script(t, b, t0, replica(at("us", 2, 5), at("eu", 3, 60)))
	has(t, b, t0, "eu")
	script(t, b, t0, replica(at("us", 2, 5), at("eu", 3, 55), "f"))
	has(t, b, t0, "eu")
	if o := b.Origin("eu", t0); o.Revision != 60 {
		t.Errorf("the version shown went back: %+v", o)
	}
	for _, f := range []api.Frame{synced(at("us", 2, 4)), synced(at("us", 1, 400)), {Kind: api.FrameBookmark, Version: at("us", 2, 4)}} {
		begin(b, false)
		if _, err := b.Apply(f, t0); !errors.Is(err, ErrOlder) {
			t.Errorf("a node that lags was believed: %v", err)
		}
	}
	has(t, b, t0, "us", "a")
}

// P4: two histories of one generation cannot be ordered. The region itself is believed,
// hearsay is not.
func TestConflictingHistories(t *testing.T) {
	b := book()
	begin(b, false)
	script(t, b, t0, item(at("us", 1, 5), "a"), synced(at("us", 1, 5)))
	other := at("us", 1, 3)
	other.Epoch.Nonce = 77
	begin(b, false)
	script(t, b, t0, replica(at("eu", 1, 1), other, "hearsay"))
	has(t, b, t0, "us", "a")
	begin(b, false)
	script(t, b, t0, api.Frame{Kind: api.FrameItem, Version: other, Instance: inst("b"), Service: "orders"}, synced(other))
	has(t, b, t0, "us", "a!", "b")
}

// P7: after a new epoch or a reset, instances that are merely missing stay for the hold
// as they were; explicit deletes apply at once; silence of the region keeps them longer.
func TestMissingAfterANewHistoryIsHeld(t *testing.T) {
	for name, frames := range map[string][]api.Frame{
		"new epoch": {item(at("us", 2, 1), "b"), synced(at("us", 2, 1))},
		"reset":     {{Kind: api.FrameReset, Version: at("us", 1, 9)}, item(at("us", 1, 9), "b"), synced(at("us", 1, 9))},
	} {
		t.Run(name, func(t *testing.T) {
			b := book()
			begin(b, false)
			script(t, b, t0, item(at("us", 1, 5), "a"), item(at("us", 1, 5), "b"), item(at("us", 1, 5), "c"), synced(at("us", 1, 5)))
			begin(b, true)
			script(t, b, t0, frames...)
			has(t, b, t0, "us", "a!", "b", "c!")
			v := frames[len(frames)-1].Version
			v.Revision++
			script(t, b, t0, change(v, api.OpDelete, "a", false))
			has(t, b, t0, "us", "b", "c!")
			late := t0.Add(Hold + time.Second)
			if len(b.Tick(late)) > 0 {
				has(t, b, late, "us", "b", "c!")
			}
			b.Alive("us", late)
			b.Tick(late)
			has(t, b, late, "us", "b")
		})
	}
}

// A list of the same history is complete: what is missing was deregistered or evicted.
func TestMissingInTheSameHistoryIsGone(t *testing.T) {
	b := book()
	begin(b, false)
	script(t, b, t0, item(at("us", 1, 5), "a"), synced(at("us", 1, 5)))
	begin(b, false)
	script(t, b, t0, item(at("us", 1, 7), "b"), synced(at("us", 1, 7)))
	has(t, b, t0, "us", "b")
}

// An origin of which everything is known and that is not named does not have the service;
// one of which not everything is known keeps it.
func TestFarAbsence(t *testing.T) {
	b := book()
	begin(b, false)
	script(t, b, t0, replica(at("us", 1, 1), at("eu", 1, 5), "f"), replica(at("us", 1, 1), at("ap", 1, 5), "g"), synced(at("us", 1, 1)))
	begin(b, true)
	partial := origin(at("ap", 1, 8))
	partial.Complete = false
	script(t, b, t0, synced(at("us", 1, 1), origin(at("eu", 1, 8)), partial))
	has(t, b, t0, "eu")
	has(t, b, t0, "ap", "g")
}

// What a stranger knows of home does not forget what home itself told, unless it is all.
func TestHomeThroughAStranger(t *testing.T) {
	b := book()
	begin(b, false)
	script(t, b, t0, item(at("us", 1, 5), "a"), item(at("us", 1, 5), "b"), synced(at("us", 1, 5)))
	begin(b, false)
	part := replica(at("eu", 1, 1), at("us", 1, 9), "b", "c")
	part.Summary.Complete = false
	script(t, b, t0, part)
	has(t, b, t0, "us", "a", "b", "c")
	script(t, b, t0, replica(at("eu", 1, 1), at("us", 1, 10), "c"))
	has(t, b, t0, "us", "c")
	same := book()
	begin(same, false)
	script(t, same, t0, item(at("us", 1, 5), "a"), item(at("us", 1, 5), "b"), synced(at("us", 1, 5)))
	begin(same, false)
	script(t, same, t0, replica(at("eu", 1, 1), at("us", 1, 5), "a"))
	has(t, same, t0, "us", "a", "b")
}

// Ages count by our clock from when the origin spoke, and only classes that route
// differently are news.
func TestAges(t *testing.T) {
	b := book()
	begin(b, false)
	o := origin(at("eu", 1, 5))
	o.AgeMS = 2000
	far := replica(at("us", 1, 1), at("eu", 1, 5), "f")
	far.Origin.AgeMS = 2000
	script(t, b, t0, item(at("us", 1, 1), "a"), far, synced(at("us", 1, 1), o))
	b.View(key, t0)
	if got := b.Origin("eu", t0.Add(time.Second)); got.AgeMS != 3000 || got.State != api.AgeFresh {
		t.Errorf("%+v", got)
	}
	if changed := b.Tick(t0.Add(5 * time.Second)); len(changed) != 0 {
		t.Error("between two bookmarks nothing is news")
	}
	news := 0
	for at := 6 * time.Second; at < 20*time.Minute; at += time.Second {
		if now := t0.Add(at); len(b.Tick(now)) != 0 {
			b.View(key, now)
			news++
		}
	}
	if news < 9 || news > 20 { // steps of two regions, some of them together
		t.Errorf("%d times in the ageing of two regions it is decided anew", news)
	}
	has(t, b, t0.Add(365*24*time.Hour), "us", "a") // P10
	if s := b.Origin("us", t0.Add(time.Hour)).State; s != api.AgeExpired {
		t.Error(s)
	}
}

// Distances count from home only.
func TestDistancesAreThoseOfHome(t *testing.T) {
	b := book()
	begin(b, false)
	o := origin(at("ap", 1, 5))
	o.RTTMS = 200
	script(t, b, t0, synced(at("us", 1, 1), o))
	begin(b, false)
	o.RTTMS = 10
	script(t, b, t0, synced(at("eu", 1, 1), o))
	if got := b.Origin("ap", t0).RTTMS; got != 200 {
		t.Errorf("rtt %d", got)
	}
}

// A snapshot survives the round trip, is suspect at best, and any answer outranks it.
func TestImage(t *testing.T) {
	b := book()
	begin(b, false)
	script(t, b, t0, item(at("us", 1, 5), "a"), replica(at("us", 1, 5), at("eu", 1, 9), "f"), synced(at("us", 1, 5), origin(at("eu", 1, 9))))
	img := b.Image(t0)
	img.Stamp()
	c := New("")
	c.Load(img, t0)
	c.Want(key)
	c.LoadService(img.Services[0], t0)
	if c.Home() != "us" || c.Synced(key) || !c.Known(key) {
		t.Error("loaded, not synced")
	}
	has(t, c, t0, "us", "a")
	has(t, c, t0, "eu", "f")
	if o := c.Origin("us", t0); o.State != api.AgeSuspect || o.Source != api.SourceSnapshot {
		t.Errorf("%+v", o)
	}
	old := New("")
	old.Load(img, t0.Add(30*24*time.Hour)) // row 40
	if o := old.Origin("us", t0.Add(30*24*time.Hour)); o.State != api.AgeExpired {
		t.Errorf("%+v", o)
	}
	begin(c, false)
	script(t, c, t0, item(at("us", 1, 6), "b"), synced(at("us", 1, 6), origin(at("eu", 1, 9))))
	has(t, c, t0, "us", "b")
	has(t, c, t0, "eu") // all of eu is known, and orders is not there
}

// Frames of strangers change nothing and break nothing.
func TestOddFrames(t *testing.T) {
	b := book()
	script(t, b, t0, item(at("us", 1, 1), "a")) // before a stream
	begin(b, false)
	script(t, b, t0, api.Frame{Kind: api.FrameItem}, api.Frame{Kind: api.FrameReplica}, api.Frame{Kind: "later"},
		api.Frame{Kind: api.FrameChange}, api.Frame{Kind: api.FrameReplica, Origin: &api.Origin{Region: "eu"}},
		api.Frame{Kind: api.FrameItem, Version: at("us", 1, 1), Instance: &api.Instance{Service: "other", ID: "x"}},
		synced(at("us", 1, 1)))
	has(t, b, t0, "us")
	script(t, b, t0, change(at("us", 1, 2), api.OpDelete, "unknown", false))
}

// Drains, and regions that are down, are the word of the node that is asked, whatever version
// it knows; they are told by synced and bookmark, and its own region only while it is drained.
func TestWishes(t *testing.T) {
	b := book()
	begin(b, false)
	us, eu, ap := origin(at("us", 1, 9)), origin(at("eu", 1, 5)), origin(at("ap", 1, 5))
	script(t, b, t0, item(at("us", 1, 9), "a"), replica(at("us", 1, 9), at("eu", 1, 5), "f"))
	us.Drained, eu.Drained, ap.Down = 30, 70, true
	script(t, b, t0, synced(at("us", 1, 9), eu, ap, us))
	has(t, b, t0, "us", "a")
	state := func() [3]float64 {
		return [3]float64{b.Origin("us", t0).Drained, b.Origin("eu", t0).Drained, b.Origin("ap", t0).Drained}
	}
	if state() != [3]float64{30, 70, 0} || !b.Origin("ap", t0).Down {
		t.Errorf("%v", state())
	}
	bookmark := func(origins ...api.Origin) []api.ServiceKey {
		eff, err := b.Apply(api.Frame{Kind: api.FrameBookmark, Version: at("us", 1, 9), Origins: origins}, t0)
		if err != nil {
			t.Fatal(err)
		}
		return eff.Changed
	}
	if changed := bookmark(us, eu, ap); len(changed) != 0 {
		t.Error("nothing new")
	}
	eu.Drained, eu.Revision = 250, 4 // out of range, and told by a node that lags behind
	if changed := bookmark(eu, ap); len(changed) != 1 || state() != [3]float64{0, 100, 0} {
		t.Errorf("%v %v", changed, state())
	}
	ap.Down = false
	if changed := bookmark(eu, ap); len(changed) != 0 || b.Origin("ap", t0).Down {
		t.Error("no service that is asked for is in ap")
	}
	later := New("us")
	ap.Down = true
	bookmark(eu, ap)
	later.Load(b.Image(t0), t0.Add(time.Hour))
	if later.Origin("eu", t0).Drained != 100 || later.Origin("ap", t0).Down {
		t.Error("the image keeps drains, and not who was down")
	}
}

// A policy is home's, is told before synced, and is gone when it is not told then.
func TestPolicies(t *testing.T) {
	b := book()
	rule := func(v api.Version, allowed ...api.Region) api.Frame {
		f := api.Frame{Kind: api.FramePolicy, Version: v, Service: "orders"}
		if len(allowed) > 0 {
			f.Policy = &api.Policy{Allowed: allowed}
		}
		return f
	}
	allowed := func() string {
		p, _ := b.Policy(key)
		if p == nil {
			return "all"
		}
		return string(p.Allowed[0])
	}
	want := func(when, want string) {
		t.Helper()
		if got := allowed(); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	begin(b, false)
	script(t, b, t0, item(at("us", 1, 9), "a"), rule(at("us", 1, 9), "us"), synced(at("us", 1, 9)))
	want("told", "us")
	script(t, b, t0, rule(at("us", 1, 9), "eu"))
	want("changed", "eu")
	img := b.Image(t0)
	img.Stamp()
	begin(b, true)
	script(t, b, t0, rule(at("ap", 1, 1), "ap"), synced(at("ap", 1, 1)))
	want("another region's word", "eu")
	begin(b, true)
	script(t, b, t0, rule(at("us", 1, 9), "eu"), synced(at("us", 1, 9)))
	want("told again", "eu")
	begin(b, true)
	script(t, b, t0, synced(at("us", 1, 9)))
	want("not told again", "all")
	script(t, b, t0, rule(at("us", 1, 9), "us"), rule(at("us", 1, 9)))
	want("taken back", "all")
	b = book()
	b.Load(img, t0)
	b.LoadService(img.Services[0], t0)
	want("from the image", "eu")
}

// A distance that is learned late is news, so that the order of regions follows it.
func TestDistanceLearnedLate(t *testing.T) {
	b := book()
	begin(b, false)
	script(t, b, t0, synced(at("us", 1, 1)))
	script(t, b, t0, replica(at("us", 1, 1), at("eu", 1, 5), "f"))
	b.View(key, t0)
	o := origin(at("eu", 1, 5))
	o.RTTMS = 2
	script(t, b, t0, api.Frame{Kind: api.FrameBookmark, Version: at("us", 1, 1), Origins: []api.Origin{o}})
	if changed := b.Tick(t0.Add(time.Second)); len(changed) != 1 {
		t.Error("nobody decides anew")
	}
}

// A load comes with synced and bookmarks of its own region, with summaries of others, and with polls.
// It has no version, changes what it is about and nothing else, and a stream that does not tell it
// knows none.
func TestLoads(t *testing.T) {
	b := book()
	begin(b, false)
	used := func(percent float64) []api.ServiceLoad {
		return []api.ServiceLoad{{Service: "orders", Percent: percent}, {Service: "other", Percent: 50}}
	}
	mark := func(kind api.FrameKind, loads []api.ServiceLoad) api.Frame {
		return api.Frame{Kind: kind, Version: at("us", 1, 9), Origins: []api.Origin{origin(at("eu", 1, 5))}, Loads: loads}
	}
	want := func(when string, us, eu float64) {
		t.Helper()
		for _, r := range b.View(key, t0).Regions {
			if load := map[api.Region]float64{"us": us, "eu": eu}[r.Origin.Region]; r.Load != load {
				t.Errorf("%s: %s is used to %v %%, want %v", when, r.Origin.Region, r.Load, load)
			}
		}
	}
	far := func(rev uint64, load int) api.Frame {
		f := replica(at("us", 1, 9), at("eu", 1, rev), "f")
		f.Summary.Load = load
		return f
	}
	script(t, b, t0, item(at("us", 1, 9), "a"), far(5, 40), mark(api.FrameSynced, used(70)))
	want("told", 70, 40)
	script(t, b, t0, mark(api.FrameBookmark, nil))
	want("unchanged", 70, 40)
	for _, c := range []struct {
		f       api.Frame
		changed int
		us, eu  float64
	}{
		{mark(api.FrameBookmark, used(95)), 1, 95, 40},
		{mark(api.FrameBookmark, used(95)), 0, 95, 40},
		{far(5, 55), 1, 95, 55},
		{far(4, 90), 0, 95, 55}, // an older word
		{mark(api.FrameBookmark, used(0)), 1, 0, 55},
		{mark(api.FrameBookmark, used(80)), 1, 80, 55},
		{mark(api.FrameBookmark, used(-5)), 1, 0, 55},
		{mark(api.FrameBookmark, used(1e9)), 1, api.MaxLoadPercent, 55},
	} {
		eff, err := b.Apply(c.f, t0)
		if err != nil || len(eff.Changed) != c.changed {
			t.Errorf("%s: changed %v, want %d; %v", c.f.Kind, eff.Changed, c.changed, err)
		}
		want(string(c.f.Kind), c.us, c.eu)
	}
	begin(b, true)
	script(t, b, t0, far(5, 55), mark(api.FrameSynced, nil)) // an older registry
	want("nothing told", 0, 55)
	eu := origin(at("eu", 1, 6))
	b.Poll(key, "us", api.Resolution{
		Views: []api.Origin{origin(at("us", 1, 10)), eu}, Loads: map[api.Region]int{"us": 85, "eu": 20},
		Endpoints: []api.Endpoint{{ID: "a", Region: "us", Status: api.StatusPassing}, {ID: "f", Region: "eu", Status: api.StatusPassing}},
	}, t0)
	want("polled", 85, 20)
}
