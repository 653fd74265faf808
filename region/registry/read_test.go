package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

func federated(t *testing.T) (*bed, *fakeReplicas) {
	t.Helper()
	f := newReplicas("ap-south", "us-east")
	return start(t, func(c *Config) { c.Replicas = f }), f
}

func ids(eps []api.Endpoint) string {
	var out []string
	for _, e := range eps {
		out = append(out, string(e.Region)+"/"+string(e.ID))
	}
	return strings.Join(out, " ")
}

// P3: near first, other regions behind, and an answer while any region is known to have
// the service; labelled with what it was made from.
func TestResolveAndExplain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		b.register("orders", "a")
		far := reg()
		far.Zone = "b"
		if _, _, err := b.Register(t.Context(), ikey("orders", "b"), far); err != nil {
			t.Fatal(err)
		}
		f.set("us-east", "orders", 7, "u1")
		f.set("us-east", "payments", 8, "p1", "p2")
		resolve := func(q ResolveQuery) api.Resolution {
			t.Helper()
			res, stamp, err := b.Resolve(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if stamp.Region != "eu-west" || stamp.Version != b.Stamp().Version || stamp.Source != api.SourceMemory || stamp.Age != 0 {
				t.Errorf("stamp %+v", stamp)
			}
			if len(res.Views) != 3 || res.Views[0].Region != "eu-west" || res.Views[0].State != api.AgeFresh || res.Views[0].Revision != stamp.Version.Revision ||
				!res.Views[0].Complete || len(res.Views[0].Addresses) != 1 || res.Views[1].Region != "ap-south" || res.Views[2].AgeMS != 1200 {
				t.Errorf("views %+v", res.Views)
			}
			return res
		}
		res := resolve(ResolveQuery{Service: "orders", Zone: "b"})
		if got := ids(res.Endpoints); got != "eu-west/b eu-west/a us-east/u1" || res.Decision.Reason != api.ReasonSameZone {
			t.Errorf("%s (%s)", got, res.Decision.Reason)
		}
		if res := resolve(ResolveQuery{Service: "orders", Limit: 1}); len(res.Endpoints) != 1 || res.Decision.Reason != api.ReasonSameRegion {
			t.Errorf("%+v", res)
		}
		if res := resolve(ResolveQuery{Service: "payments"}); ids(res.Endpoints) != "us-east/p1 us-east/p2" || res.Decision.Reason != api.ReasonLocalAbsent {
			t.Errorf("%+v", res)
		}
		if res := resolve(ResolveQuery{Service: "orders", FromRegion: "us-east", Zone: "z"}); ids(res.Endpoints[:1]) != "us-east/u1" || res.Decision.Reason != api.ReasonSameZone {
			t.Errorf("%+v", res)
		}
		_, _, err := b.Resolve(t.Context(), ResolveQuery{Service: "nothing"})
		b.wantCode(err, api.CodeServiceNotFound)
		_, _, err = b.Resolve(t.Context(), ResolveQuery{Service: "orders", FromRegion: "mars"})
		b.wantCode(err, api.CodeRegionNotFound)
		_, _, err = b.Resolve(t.Context(), ResolveQuery{Service: "orders", Zone: "NO"})
		b.wantCode(err, api.CodeInvalidField)
		_, _, err = b.Resolve(t.Context(), ResolveQuery{Service: "a b"})
		b.wantCode(err, api.CodeInvalidField)
		ex, _, err := b.Explain(t.Context(), ResolveQuery{Service: "orders", Zone: "a"})
		if err != nil || ex.From != "eu-west/a" || len(ex.Trace.Steps) == 0 || ids(ex.Endpoints[:1]) != "eu-west/a" {
			t.Errorf("%+v %v", ex, err)
		}
		for _, id := range []string{"a", "b"} {
			if _, err := b.SetStatus(t.Context(), ikey("orders", id), api.StatusChange{Status: api.StatusDraining}); err != nil {
				t.Fatal(err)
			}
		}
		if res := resolve(ResolveQuery{Service: "orders", Zone: "a"}); ids(res.Endpoints[:1]) != "us-east/u1" || res.Decision.Reason != api.ReasonLocalDraining {
			t.Errorf("%+v", res)
		}
		if _, stamp, err := b.Resolve(t.Context(), ResolveQuery{Service: "orders", ReadOptions: ReadOptions{Strong: true}}); err != nil || stamp.Source != api.SourceStore {
			t.Errorf("%+v %v", stamp, err)
		}
	})
}

// No answer is without bound: a list of services comes in pages, and a client that says nothing of
// them gets as much as a page may be.
func TestServicesComeInPages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		var want []string
		for i := range 7 {
			name := fmt.Sprintf("s%d", i)
			want = append(want, name)
			if i%2 == 0 {
				b.register(name, "a")
			} else {
				f.set("us-east", api.ServiceName(name), uint64(7+i), "u1")
			}
		}
		for limit := range 9 {
			var got []string
			q := ServicesQuery{Limit: limit}
			for pages := 0; ; pages++ {
				list, _, err := b.ListServices(t.Context(), q)
				if err != nil || limit > 0 && len(list.Services) > limit || pages > len(want) {
					t.Fatalf("limit %d: %d pages, %d services, %v", limit, pages, len(list.Services), err)
				}
				for _, s := range list.Services {
					got = append(got, string(s.Service))
				}
				if list.Cursor == "" {
					break
				}
				q.Cursor = list.Cursor
			}
			if !slices.Equal(got, want) {
				t.Errorf("limit %d: %v", limit, got)
			}
		}
		// What a cursor names may be gone by now.
		list, _, err := b.ListServices(t.Context(), ServicesQuery{Cursor: "s4x", Limit: 1})
		if err != nil || len(list.Services) != 1 || list.Services[0].Service != "s5" || list.Cursor != "s5" {
			t.Errorf("%+v %v", list, err)
		}
		_, _, err = b.ListServices(t.Context(), ServicesQuery{Cursor: "no/label"})
		b.wantCode(err, api.CodeInvalidRequest)
		if listLimit(0) != api.DefaultListLimit || listLimit(api.MaxListLimit+1) != api.MaxListLimit {
			t.Error("a page is longer than the limit")
		}
	})
}

func TestLists(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		b.registerMany("orders", 5)
		special := reg()
		special.Zone, special.Tags = "b", []string{"canary"}
		if _, _, err := b.Register(t.Context(), ikey("orders", "i3"), special); err != nil {
			t.Fatal(err)
		}
		if _, err := b.SetStatus(t.Context(), ikey("orders", "i4"), api.StatusChange{Status: api.StatusWarning}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Register(t.Context(), api.InstanceKey{Namespace: "shop", Service: "carts", ID: "c"}, reg()); err != nil {
			t.Fatal(err)
		}
		f.set("us-east", "orders", 7, "u2", "u1")
		f.set("us-east", "payments", 8, "p1")

		services, stamp, err := b.ListServices(t.Context(), ServicesQuery{})
		if err != nil || stamp.Version.IsZero() {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%+v", services.Services); got != "[{Namespace:default Service:orders Instances:5 Statuses:map[passing:4 warning:1] Passing:4 Overdue:0 Regions:[eu-west us-east]} "+
			"{Namespace:default Service:payments Instances:0 Statuses:map[] Passing:0 Overdue:0 Regions:[us-east]}]" {
			t.Error(got)
		}
		services, _, err = b.ListServices(t.Context(), ServicesQuery{Namespace: "shop"})
		if err != nil || len(services.Services) != 1 || services.Services[0].Service != "carts" {
			t.Errorf("%+v %v", services, err)
		}
		tests := []struct {
			name string
			q    InstancesQuery
			want string
		}{
			{"all", InstancesQuery{}, "i0 i1 i2 i3 i4"},
			{"status", InstancesQuery{Statuses: []api.Status{api.StatusWarning, api.StatusCritical}}, "i4"},
			{"zone", InstancesQuery{Zone: "b"}, "i3"},
			{"tag", InstancesQuery{Tag: "canary"}, "i3"},
			{"no match", InstancesQuery{Zone: "zz"}, ""},
			{"own region by name", InstancesQuery{Region: "eu-west", Limit: 9}, "i0 i1 i2 i3 i4"},
			{"other region", InstancesQuery{Region: "us-east"}, "u1 u2"},
			{"other region without it", InstancesQuery{Region: "ap-south"}, ""},
			{"only elsewhere", InstancesQuery{Service: "payments"}, ""},
			{"first page", InstancesQuery{Limit: 2}, "i0 i1 >i1"},
			{"second page", InstancesQuery{Limit: 2, Cursor: "i1"}, "i2 i3 >i3"},
			{"last page", InstancesQuery{Limit: 2, Cursor: "i3"}, "i4"},
			{"page with filter", InstancesQuery{Limit: 1, Zone: "b"}, "i3"},
		}
		for _, tt := range tests {
			if tt.q.Service == "" {
				tt.q.Service = "orders"
			}
			list, stamp, err := b.ListInstances(t.Context(), tt.q)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			var got []string
			for _, in := range list.Instances {
				got = append(got, string(in.ID))
				if in.Region != list.Region || in.Service != tt.q.Service {
					t.Errorf("%s: %+v", tt.name, in)
				}
			}
			if list.Cursor != "" {
				got = append(got, ">"+list.Cursor)
			}
			if strings.Join(got, " ") != tt.want || list.Instances == nil || !list.Complete || stamp.Region != list.Region {
				t.Errorf("%s: %q, want %q (%+v)", tt.name, got, tt.want, stamp)
			}
		}
		_, _, err = b.ListInstances(t.Context(), InstancesQuery{Service: "nothing"})
		b.wantCode(err, api.CodeServiceNotFound)
		_, _, err = b.ListInstances(t.Context(), InstancesQuery{Service: "nothing", Region: "us-east"})
		b.wantCode(err, api.CodeServiceNotFound)
		_, _, err = b.ListInstances(t.Context(), InstancesQuery{Service: "orders", Region: "mars"})
		b.wantCode(err, api.CodeRegionNotFound)
		_, _, err = b.ListInstances(t.Context(), InstancesQuery{Service: "orders", Cursor: "../x"})
		b.wantCode(err, api.CodeInvalidRequest)
	})
}

func TestRegionsAndFederation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b, f := federated(t)
		b.registerMany("orders", 3)
		f.set("us-east", "orders", 7, "u1", "u2")
		list, _, err := b.Regions(t.Context())
		if err != nil || list.Home != "eu-west" || len(list.Regions) != 3 {
			t.Fatalf("%+v %v", list, err)
		}
		self, other := list.Regions[0], list.Regions[2]
		if !self.Self || self.Instances != 3 || self.Passing != 3 || self.Services != 1 || self.Protection == nil || self.Protection.Why == "" {
			t.Errorf("self %+v", self)
		}
		if other.Region != "us-east" || other.Self || other.Link != "unreachable" || other.Instances != 2 || other.Protection != nil {
			t.Errorf("other %+v", other)
		}
		info, stamp, err := b.RegionInfo(t.Context(), "us-east")
		if err != nil || info.Passing != 2 || stamp.Source != api.SourceReplica || stamp.Age != 1200*time.Millisecond || stamp.Version.Region != "us-east" {
			t.Errorf("%+v %+v %v", info, stamp, err)
		}
		_, _, err = b.RegionInfo(t.Context(), "mars")
		b.wantCode(err, api.CodeRegionNotFound)
		fed, _, err := b.Federation(t.Context())
		if err != nil || !fed.Enabled || fed.Region != "eu-west" || fed.Epoch.IsZero() || fed.Readers == nil || len(fed.Links) != 1 {
			t.Errorf("%+v %v", fed, err)
		}
		alone := start(t)
		if fed, _, err := alone.Federation(t.Context()); err != nil || fed.Enabled || fed.Links == nil || fed.Readers == nil {
			t.Errorf("%+v %v", fed, err)
		}
		if l := alone.Limits(); l.Watches != 10_000 || l.EvictionShare != 0.15 || l.EvictionWindow.D() != time.Minute || l.TTLMin.D() != time.Second {
			t.Errorf("%+v", l)
		}
	})
}

// What the federation needs: the next change, and what changed.
func TestWaitAndChangedSince(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t)
		v := b.Snapshot().Version()
		woke := make(chan error, 1)
		go func() { woke <- b.Wait(t.Context(), v) }()
		synctest.Wait()
		b.register("users", "a")
		b.register("orders", "a")
		if err := <-woke; err != nil {
			t.Error(err)
		}
		keys, ok := b.ChangedSince(v)
		if !ok || !slices.Equal(keys, []api.ServiceKey{ikey("orders", "").ServiceKey(), ikey("users", "").ServiceKey()}) {
			t.Errorf("%v %v", keys, ok)
		}
		if keys, ok := b.ChangedSince(b.Snapshot().Version()); !ok || len(keys) != 0 {
			t.Errorf("%v %v", keys, ok)
		}
		other := v
		other.Epoch.Nonce++
		if _, ok := b.ChangedSince(other); ok {
			t.Error("knows the changes of another epoch")
		}
		was := b.Snapshot().Version()
		if err := b.RaiseEpoch(t.Context(), was.Epoch.Generation+4); err != nil {
			t.Fatal(err)
		}
		now := b.Snapshot().Version()
		if now.Epoch.Generation != was.Epoch.Generation+5 || now.Compare(was) != api.Newer {
			t.Errorf("%s after %s", now, was)
		}
		if err := b.RaiseEpoch(t.Context(), was.Epoch.Generation); err != nil || b.Snapshot().Version().Epoch != now.Epoch {
			t.Errorf("raised again: %v", err)
		}
		if _, ok := b.ChangedSince(was); ok {
			t.Error("knows the changes of the epoch before")
		}
		if got := b.listed("orders"); got != "a" {
			t.Errorf("listed %q", got)
		}
		b.register("orders", "b") // and life goes on
		if got := b.listed("orders"); got != "a b" {
			t.Errorf("listed %q", got)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	store := newMemstore(t)
	for name, cfg := range map[string]Config{
		"no region": {Store: store}, "bad region": {Region: "EU", Store: store}, "bad zone": {Region: "eu", Zone: "-", Store: store},
		"no store": {Region: "eu"}, "negative watches": {Region: "eu", Store: store, MaxWatches: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
