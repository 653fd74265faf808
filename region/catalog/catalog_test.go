package catalog_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

var epoch = api.Epoch{Generation: 1, Nonce: 0xabc}

func key(service, id string) api.InstanceKey {
	return api.InstanceKey{Namespace: "default", Service: api.ServiceName(service), ID: api.InstanceID(id)}
}

func instance(service, id string) api.Instance {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	return api.Instance{
		Namespace: "default", Service: api.ServiceName(service), ID: api.InstanceID(id),
		Address: "10.0.0.1", Port: 8080, Weight: 100, TTL: api.Duration(15 * time.Second), Incarnation: 1,
		Status: api.StatusPassing, StatusSince: at, RegisteredAt: at, Zone: "a",
		Tags: []string{"http"}, Metadata: map[string]string{"k": "v"},
	}
}

func put(t testing.TB, in api.Instance) store.Event {
	t.Helper()
	b, err := catalog.EncodeInstance(in)
	if err != nil {
		t.Fatal(err)
	}
	return store.Event{Record: store.Record{Key: catalog.InstanceRecordKey(in.Key()), Value: b}}
}

func departed(t testing.TB, service string, cause api.Cause, ids ...api.InstanceID) store.Event {
	t.Helper()
	b, err := catalog.EncodeDeparture(cause, ids)
	if err != nil {
		t.Fatal(err)
	}
	k := api.ServiceKey{Namespace: "default", Service: api.ServiceName(service)}
	return store.Event{Record: store.Record{Key: catalog.DepartureRecordKey(k), Value: b}}
}

func gone(service, id string) store.Event {
	return store.Event{Delete: true, Record: store.Record{Key: catalog.InstanceRecordKey(key(service, id))}}
}

func batch(revision uint64, events ...store.Event) store.Batch {
	slices.SortFunc(events, func(a, b store.Event) int {
		switch {
		case a.Record.Key < b.Record.Key:
			return -1
		case a.Record.Key > b.Record.Key:
			return 1
		}
		return 0
	})
	for i := range events {
		events[i].Record.Revision = revision
	}
	return store.Batch{Revision: revision, Events: events}
}

func empty() *catalog.Snapshot { return catalog.Empty(api.Version{Region: "eu-west", Epoch: epoch}) }

func TestApplyLabelsEveryChange(t *testing.T) {
	critical := instance("orders", "a")
	critical.Status, critical.StatusNote, critical.StatusSince = api.StatusCritical, "disk", critical.StatusSince.Add(time.Minute)
	moved := critical
	moved.Port = 9090
	again := moved
	again.Incarnation, again.Status, again.StatusNote = 2, api.StatusPassing, ""

	s := empty()
	steps := []struct {
		name  string
		batch store.Batch
		want  []string // "op cause id status"
	}{
		{"new", batch(2, put(t, instance("orders", "a")), put(t, instance("orders", "b"))), []string{"put register a passing", "put register b passing"}},
		{"status only", batch(3, put(t, critical)), []string{"put status a critical"}},
		{"content", batch(5, put(t, moved)), []string{"put register a critical"}},
		{"new incarnation", batch(6, put(t, again)), []string{"put register a passing"}},
		{"replayed batch", batch(6, gone("orders", "a")), nil},
		{"eviction", batch(7, gone("orders", "b"), departed(t, "orders", api.CauseEvict, "b")), []string{"delete evict b passing"}},
		{"unlabelled delete", batch(8, gone("orders", "a")), []string{"delete unknown a passing"}},
		{"missing", batch(9, gone("orders", "a"), departed(t, "orders", api.CauseDeregister, "a")), nil},
		{"foreign keys", batch(10, store.Event{Record: store.Record{Key: "kv/x", Value: []byte("y")}}), nil},
	}
	for _, st := range steps {
		next, changes, broken := s.Apply(st.batch)
		var got []string
		for _, c := range changes {
			got = append(got, fmt.Sprintf("%s %s %s %s", c.Op, c.Cause, c.Instance.ID, c.Instance.Status))
			if c.Revision != st.batch.Revision {
				t.Errorf("%s: change has revision %d, want %d", st.name, c.Revision, st.batch.Revision)
			}
		}
		if !slices.Equal(got, st.want) || len(broken) > 0 {
			t.Errorf("%s: changes %q broken %v, want %q", st.name, got, broken, st.want)
		}
		s = next
	}
	if n, m := s.Len(); n != 0 || m != 0 || s.Version().Revision != 10 || len(s.Services()) != 0 {
		t.Errorf("at the end: %d services, %d instances at %s", n, m, s.Version())
	}
}

func TestSnapshotsDoNotChange(t *testing.T) {
	one, _, _ := empty().Apply(batch(2, put(t, instance("orders", "a")), put(t, instance("orders", "c"))))
	before := describe(one)
	two, _, _ := one.Apply(batch(3, put(t, instance("orders", "b")), gone("orders", "a"), put(t, instance("users", "x"))))
	if got := describe(one); got != before {
		t.Errorf("the older snapshot changed:\n%s\nto\n%s", before, got)
	}
	if two.Instance(key("orders", "b")) == nil || two.Instance(key("orders", "a")) != nil || one.Instance(key("orders", "b")) != nil {
		t.Error("lookups do not match the snapshots")
	}
	if eps := two.Endpoints(api.ServiceKey{Namespace: "default", Service: "orders"}); len(eps) != 2 || eps[0].ID != "b" || eps[1].ID != "c" {
		t.Errorf("endpoints %+v", eps)
	}
}

// A record that cannot be read is left out and reported, and registering again heals it.
func TestBrokenRecords(t *testing.T) {
	bad := store.Event{Record: store.Record{Key: catalog.InstanceRecordKey(key("orders", "a")), Value: []byte(`{"v":1,"port":`)}}
	newer := store.Event{Record: store.Record{Key: catalog.InstanceRecordKey(key("orders", "n")), Value: []byte(`{"v":9}`)}}
	odd := store.Event{Record: store.Record{Key: "instances/only-one-part", Value: []byte("{}")}}
	s, _, _ := empty().Apply(batch(2, put(t, instance("orders", "a")), put(t, instance("orders", "b"))))
	s, changes, broken := s.Apply(batch(3, bad, newer, odd))
	if len(broken) != 3 || len(changes) != 1 || changes[0].Op != api.OpDelete {
		t.Fatalf("broken %v changes %v", broken, changes)
	}
	if s.Instance(key("orders", "a")) != nil || s.Guard(key("orders", "a")) != 3 || s.Guard(key("orders", "b")) != 2 || s.Guard(key("orders", "zz")) != 0 {
		t.Errorf("guards: a %d, b %d", s.Guard(key("orders", "a")), s.Guard(key("orders", "b")))
	}
	s, _, broken = s.Apply(batch(4, put(t, instance("orders", "a"))))
	if len(broken) != 0 || s.Instance(key("orders", "a")) == nil || s.Guard(key("orders", "a")) != 4 {
		t.Errorf("not healed: %v, guard %d", broken, s.Guard(key("orders", "a")))
	}
}

// Property: applying any sequence of commits gives what loading the end result gives, so
// a restarted node continues where it stopped (P4: revisions of services never go back).
func TestApplyEqualsLoad(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		records := map[string]store.Record{}
		s := empty()
		for revision := uint64(2); revision < 60; revision++ {
			events := map[string]store.Event{}
			leaving := map[string][]api.InstanceID{}
			for range 1 + rng.IntN(4) {
				service, id := fmt.Sprintf("s%d", rng.IntN(5)), fmt.Sprintf("i%d", rng.IntN(6))
				k := catalog.InstanceRecordKey(key(service, id))
				if _, twice := events[k]; twice {
					continue
				}
				switch rng.IntN(8) {
				case 0, 1, 2:
					// An unreadable record cannot be deregistered, only registered anew.
					if rec, ok := records[k]; !ok || string(rec.Value) == "junk" {
						continue
					}
					events[k] = gone(service, id)
					leaving[service] = append(leaving[service], api.InstanceID(id))
				case 3:
					in := instance(service, id)
					in.Status = api.StatusWarning
					events[k] = put(t, in)
				case 4:
					if rng.IntN(6) == 0 {
						events[k] = store.Event{Record: store.Record{Key: k, Value: []byte("junk")}}
					}
				default:
					in := instance(service, id)
					in.Port = 1 + rng.IntN(5)
					events[k] = put(t, in)
				}
			}
			var list []store.Event
			for _, ev := range events {
				list = append(list, ev)
			}
			for service, ids := range leaving {
				list = append(list, departed(t, service, api.CauseDeregister, ids...))
			}
			b := batch(revision, list...)
			for _, ev := range b.Events {
				if ev.Delete {
					delete(records, ev.Record.Key)
				} else {
					records[ev.Record.Key] = ev.Record
				}
			}
			s, _, _ = s.Apply(b)
			img := store.Image{Epoch: epoch, Revision: revision}
			for _, rec := range records {
				img.Records = append(img.Records, rec)
			}
			slices.SortFunc(img.Records, func(a, b store.Record) int {
				if a.Key < b.Key {
					return -1
				}
				return 1
			})
			fresh, _, _ := catalog.Load("eu-west", img)
			if got, want := describe(s), describe(fresh); got != want {
				t.Fatalf("seed %d revision %d: applied\n%s\nloaded\n%s", seed, revision, got, want)
			}
		}
	}
}

func describe(s *catalog.Snapshot) string {
	out := s.Version().String() + "\n"
	n, m := s.Len()
	c := s.Counts()
	out += fmt.Sprintln(n, m, c.Total, c.ByStatus)
	for _, k := range s.Services() {
		list, revision := s.Service(k)
		out += fmt.Sprintf("%s @%d:", k, revision)
		for _, in := range list {
			out += fmt.Sprintf(" %s:%d/%s@%d", in.ID, in.Port, in.Status, in.Revision)
		}
		out += "\n"
	}
	return out
}

func TestLoadFindsOrphans(t *testing.T) {
	img := store.Image{Epoch: epoch, Revision: 9}
	for _, b := range []store.Batch{
		batch(3, put(t, instance("orders", "a"))), batch(5, departed(t, "orders", api.CauseEvict, "x")),
		batch(7, departed(t, "users", api.CauseEvict, "y")), batch(8, store.Event{Record: store.Record{Key: "services/!", Value: nil}}),
	} {
		img.Records = append(img.Records, b.Events[0].Record)
	}
	s, orphans, broken := catalog.Load("eu-west", img)
	if len(orphans) != 1 || orphans[0].Key != "services/default/users" || orphans[0].Revision != 7 {
		t.Errorf("orphans %+v", orphans)
	}
	if len(broken) != 1 {
		t.Errorf("broken %v", broken)
	}
	if _, revision := s.Service(api.ServiceKey{Namespace: "default", Service: "orders"}); revision != 5 {
		t.Errorf("revision %d, want the departure's 5", revision)
	}
	if s.At(12).Version().Revision != 12 || s.At(1).Version().Revision != 9 || s.InEpoch(api.Epoch{Generation: 2}).Version().Epoch.Generation != 2 {
		t.Error("At or InEpoch")
	}
}

func TestHistory(t *testing.T) {
	change := func(rev uint64, service string) catalog.Change {
		in := instance(service, "a")
		return catalog.Change{Revision: rev, Op: api.OpPut, Instance: &in}
	}
	h := catalog.NewHistory(4, 10)
	since := func(revision uint64) ([]catalog.Change, bool) {
		c, upTo, ok := h.Since(revision, nil)
		if ok && upTo != h.Last() {
			t.Errorf("since %d: up to %d, want %d", revision, upTo, h.Last())
		}
		return c, ok
	}
	if _, ok := since(9); ok {
		t.Error("knows what happened before it began")
	}
	if c, ok := since(10); !ok || len(c) != 0 {
		t.Error("does not know that nothing happened")
	}
	h.Append(11, []catalog.Change{change(11, "b"), change(11, "a")})
	h.Append(12, nil)
	h.Append(13, []catalog.Change{change(13, "a")})
	if c, ok := since(10); !ok || len(c) != 3 {
		t.Errorf("since 10: %v %v", c, ok)
	}
	if keys, ok := h.KeysSince(10); !ok || len(keys) != 2 || keys[0].Service != "a" {
		t.Errorf("keys %v %v", keys, ok)
	}
	if _, ok := since(14); ok {
		t.Error("knows the future")
	}
	h.Append(13, []catalog.Change{change(13, "z")}) // replay
	// Two more need room: revision 11 leaves whole, both of its changes (P5).
	h.Append(14, []catalog.Change{change(14, "a"), change(14, "b")})
	if _, ok := since(10); ok || h.Floor() != 11 || h.Last() != 14 {
		t.Errorf("floor %d last %d", h.Floor(), h.Last())
	}
	if c, ok := since(11); !ok || len(c) != 3 || c[0].Revision != 13 {
		t.Errorf("since 11: %v %v", c, ok)
	}
	big := make([]catalog.Change, 5)
	for i := range big {
		big[i] = change(15, "a")
	}
	h.Append(15, big)
	if _, ok := since(14); ok {
		t.Error("replays a revision that does not fit")
	}
	if c, ok := since(15); !ok || len(c) != 0 {
		t.Error("lost its place")
	}
}

// P5, P8: a reader gets history page by page, each of whole revisions, filtered, and the
// pages together are what one piece would be.
func TestHistoryComesInPagesOfWholeRevisions(t *testing.T) {
	const page, most = 256, 300
	rng := rand.New(rand.NewPCG(1, 2))
	h := catalog.NewHistory(10_000, 10)
	var all []catalog.Change
	for revision := uint64(11); len(all) < 6000; revision++ {
		n := rng.IntN(6)
		switch rng.IntN(40) {
		case 0:
			n = most
		case 1:
			n = page
		}
		var changes []catalog.Change
		for i := range n {
			in := instance(fmt.Sprintf("s%d", rng.IntN(10)), fmt.Sprintf("i%d", i))
			changes = append(changes, catalog.Change{Revision: revision, Op: api.OpPut, Instance: &in})
		}
		h.Append(revision, changes)
		all = append(all, changes...)
	}
	for name, want := range map[string]func(*catalog.Change) bool{
		"all": nil, "one": func(c *catalog.Change) bool { return c.Instance.Service == "s3" }, "none": func(*catalog.Change) bool { return false },
	} {
		var got []catalog.Change
		for at := uint64(10); at < h.Last(); {
			changes, upTo, ok := h.Since(at, want)
			if !ok || upTo <= at || len(changes) > page+most {
				t.Fatalf("%s: since %d: %d changes up to %d, %v", name, at, len(changes), upTo, ok)
			}
			for _, c := range changes {
				if c.Revision <= at || c.Revision > upTo {
					t.Fatalf("%s: the page after %d up to %d has a change of %d", name, at, upTo, c.Revision)
				}
			}
			got, at = append(got, changes...), upTo
		}
		var wanted []catalog.Change
		for _, c := range all {
			if want == nil || want(&c) {
				wanted = append(wanted, c)
			}
		}
		if !slices.Equal(got, wanted) {
			t.Errorf("%s: %d changes in pages, want %d", name, len(got), len(wanted))
		}
	}
}

func FuzzDecodeInstance(f *testing.F) {
	in := instance("orders", "a")
	good, err := catalog.EncodeInstance(in)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"v":1}`))
	f.Add([]byte(`{"v":2,"port":1}`))
	f.Add([]byte(`{"v":1,"ttl":"-1s","weight":-4,"metadata":{"":""}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := catalog.DecodeInstance(key("orders", "a"), "eu-west", 4, b)
		if err != nil {
			if in != nil {
				t.Error("an instance with an error")
			}
			return
		}
		again, err := catalog.EncodeInstance(*in)
		if err != nil {
			t.Fatalf("accepted but cannot be written: %v", err)
		}
		back, err := catalog.DecodeInstance(in.Key(), in.Region, in.Revision, again)
		if err != nil {
			t.Fatalf("written but not read: %v", err)
		}
		if !catalog.SameContent(in, back) {
			t.Errorf("%+v became %+v", in, back)
		}
	})
}

func FuzzApply(f *testing.F) {
	f.Add("instances/default/orders/a", []byte(`{"v":1}`), "services/default/orders", []byte(`{"v":1,"cause":"evict","ids":["a"]}`))
	f.Fuzz(func(t *testing.T, k1 string, v1 []byte, k2 string, v2 []byte) {
		if k1 == k2 {
			return
		}
		s, _, _ := empty().Apply(batch(2, put(t, instance("orders", "a"))))
		s, _, _ = s.Apply(batch(3, store.Event{Record: store.Record{Key: k1, Value: v1}}, store.Event{Record: store.Record{Key: k2, Value: v2}}))
		s, _, _ = s.Apply(batch(4, store.Event{Delete: true, Record: store.Record{Key: k1}}))
		_ = describe(s)
		if s.Version().Revision != 4 {
			t.Error("the revision did not move")
		}
	})
}

func BenchmarkApply100k(b *testing.B) {
	img := store.Image{Epoch: epoch, Revision: 5}
	for sv := range 10_000 {
		for i := range 10 {
			ev := put(b, instance(fmt.Sprintf("s%d", sv), fmt.Sprintf("i%d", i)))
			ev.Record.Revision = 3
			img.Records = append(img.Records, ev.Record)
		}
	}
	s, _, _ := catalog.Load("eu-west", img)
	ev := put(b, instance("s17", "i3"))
	b.ReportAllocs()
	for b.Loop() {
		s, _, _ = s.Apply(store.Batch{Revision: s.Version().Revision + 1, Events: []store.Event{ev}})
	}
}
