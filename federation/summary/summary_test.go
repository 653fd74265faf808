package summary_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

var orders = api.ServiceKey{Namespace: "default", Service: "orders"}

func instance(id string, zone api.Zone, status api.Status) *api.Instance {
	return &api.Instance{
		Namespace: "default", Service: "orders", ID: api.InstanceID(id), Region: "eu-west", Zone: zone,
		Address: "10.0.0.1", Port: 8080, Weight: 100, Capacity: 50, Version: "1.2.0", Status: status,
	}
}

func many(n int, zones ...api.Zone) []*api.Instance {
	var list []*api.Instance
	for i := range n {
		list = append(list, instance(fmt.Sprintf("orders-%03d", i), zones[i%len(zones)], api.StatusPassing))
	}
	return list
}

// A service with at most 32 usable instances is replicated whole.
func TestSmallServiceIsComplete(t *testing.T) {
	in := append(many(32, "a", "b"), instance("x", "a", api.StatusCritical), instance("y", "b", api.StatusDraining))
	s := summary.Build(orders, in, 7, "us-east")
	if !s.Complete || len(s.Endpoints) != 32 || s.Total != 34 || s.Passing != 32 || s.Draining != 1 || s.Capacity != 32*50 || s.Revision != 7 {
		t.Fatalf("summary: %+v", s)
	}
	if s.Zones["a"] != (api.ZoneCount{Total: 17, Passing: 16}) {
		t.Fatalf("zones: %v", s.Zones)
	}
	if !reflect.DeepEqual(s.Versions, []string{"1.2.0"}) {
		t.Fatalf("versions: %v", s.Versions)
	}
}

// A larger one gives each reader 32 of them, spread over the zones, and not the same ones.
func TestFailoverSetIsBoundedSpreadAndPerReader(t *testing.T) {
	in := append(many(300, "a", "b", "c"), instance("lonely", "d", api.StatusPassing))
	first := summary.Build(orders, in, 1, "us-east")
	if first.Complete || len(first.Endpoints) != api.MaxFailoverSet {
		t.Fatalf("complete=%v with %d endpoints", first.Complete, len(first.Endpoints))
	}
	zones := map[api.Zone]int{}
	ids := map[api.InstanceID]bool{}
	for _, e := range first.Endpoints {
		zones[e.Zone]++
		ids[e.ID] = true
	}
	if zones["d"] != 1 || zones["a"] < 10 || zones["b"] < 10 || zones["c"] < 10 || len(ids) != 32 {
		t.Fatalf("zones: %v", zones)
	}
	common := 0
	for _, e := range summary.Build(orders, in, 1, "ap-south").Endpoints {
		if ids[e.ID] {
			common++
		}
	}
	if common > 16 {
		t.Fatalf("two readers share %d of 32 endpoints", common)
	}
}

// One instance more or less changes at most one place of the set.
func TestFailoverSetIsStable(t *testing.T) {
	in := many(200, "a", "b")
	before := map[api.InstanceID]bool{}
	for _, e := range summary.Build(orders, in, 1, "us-east").Endpoints {
		before[e.ID] = true
	}
	lost := 0
	for _, e := range summary.Build(orders, in[1:], 2, "us-east").Endpoints {
		if !before[e.ID] {
			lost++
		}
	}
	if lost > 1 {
		t.Fatalf("%d places changed", lost)
	}
}

// P3: with no usable instance the others are carried, worst last.
func TestUnusableInstancesAreCarriedWorstLast(t *testing.T) {
	in := []*api.Instance{
		instance("c", "a", api.StatusCritical), instance("d", "a", api.StatusDraining), instance("s", "b", api.StatusStarting),
	}
	s := summary.Build(orders, in, 1, "us-east")
	var got []string
	for _, e := range s.Endpoints {
		got = append(got, string(e.ID))
	}
	if strings.Join(got, "") != "sdc" || !s.Complete {
		t.Fatalf("endpoints %v complete %v", got, s.Complete)
	}
	if n := len(summary.Build(orders, nil, 1, "us-east").Endpoints); n != 0 {
		t.Fatalf("an empty service has %d endpoints", n)
	}
}

// P6: order of instances and a JSON round trip change neither bytes nor hash; the revision
// is outside of it, and any other change is inside.
func TestHashIsOfContentOnly(t *testing.T) {
	in := many(40, "a", "b")
	in[3].Metadata = map[string]string{"b": "<&>", "a": "ü"}
	in[3].Ports = map[string]int{"grpc": 9090}
	body, hash := summary.Encode(summary.Build(orders, in, 1, "us-east"))
	for range 20 {
		rand.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		if _, h := summary.Encode(summary.Build(orders, in, 99, "us-east")); h != hash {
			t.Fatal("the hash depends on order or revision")
		}
	}
	// A frame compacts the body once more on its way.
	wire, err := json.Marshal(struct{ Body json.RawMessage }{body})
	if err != nil {
		t.Fatal(err)
	}
	var back struct{ Body json.RawMessage }
	if err := json.Unmarshal(wire, &back); err != nil || summary.HashOf(back.Body) != hash {
		t.Fatalf("the hash does not survive the wire: %v", err)
	}
	for name, change := range map[string]func(i *api.Instance){
		"status":   func(i *api.Instance) { i.Status = api.StatusCritical },
		"port":     func(i *api.Instance) { i.Port++ },
		"metadata": func(i *api.Instance) { i.Metadata = map[string]string{"k": "v"} },
		"zone":     func(i *api.Instance) { i.Zone = "z" },
	} {
		for n := range in { // also of instances outside of the set: the spec hash sees them
			old := *in[n]
			change(in[n])
			if _, h := summary.Encode(summary.Build(orders, in, 1, "us-east")); h == hash {
				t.Fatalf("%s of %s is not in the hash", name, in[n].ID)
			}
			*in[n] = old
		}
	}
}

// The digest of a set does not depend on the order in which rows came and went.
func TestDigestIsOrderIndependent(t *testing.T) {
	var a, b summary.Digest
	for i := range summary.Hash(100) {
		a = a.Add(i * 0x9e3779b97f4a7c15)
		b = b.Add((99 - i) * 0x9e3779b97f4a7c15)
	}
	if a != b || a.Add(5).Remove(5) != a {
		t.Fatal("digests differ")
	}
	text, _ := a.MarshalText()
	var back summary.Digest
	if err := back.UnmarshalText(text); err != nil || back != a {
		t.Fatalf("%s: %v", text, err)
	}
	if back.UnmarshalText([]byte("12")) == nil {
		t.Fatal("a short digest was read")
	}
}

// P8: huge metadata leaves the row small enough to travel.
func TestRowIsBounded(t *testing.T) {
	in := many(32, "a")
	for _, i := range in {
		i.Metadata = map[string]string{"k": strings.Repeat("\x01", 16<<10)}
	}
	body, _ := summary.Encode(summary.Build(orders, in, 1, "us-east"))
	if len(body) > 1<<20 {
		t.Fatalf("a row of %d bytes", len(body))
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{3, 32, 500} {
		in := many(n, "a", "b", "c")
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = summary.Encode(summary.Build(orders, in, 1, "us-east"))
			}
		})
	}
}

// A service is draining or deprecated when all that counts of it is.
func TestFlags(t *testing.T) {
	tagged := func(id string, status api.Status) *api.Instance {
		i := instance(id, "a", status)
		i.Tags = []string{"blue", api.TagDeprecated}
		return i
	}
	for name, c := range map[string]struct {
		instances []*api.Instance
		wants     string
	}{
		"plain":                          {many(3, "a"), "[]"},
		"some are deprecated":            {append(many(1, "a"), tagged("x", api.StatusPassing)), "[]"},
		"all usable are deprecated":      {[]*api.Instance{tagged("x", api.StatusPassing), instance("y", "a", api.StatusCritical)}, "[deprecated]"},
		"some drain":                     {append(many(1, "a"), instance("x", "a", api.StatusDraining)), "[]"},
		"all that is left drains":        {[]*api.Instance{instance("x", "a", api.StatusDraining), instance("y", "a", api.StatusCritical)}, "[draining]"},
		"nothing usable, some tagged":    {[]*api.Instance{tagged("x", api.StatusCritical), instance("y", "a", api.StatusCritical)}, "[]"},
		"deprecated, and drains at last": {[]*api.Instance{tagged("x", api.StatusDraining)}, "[deprecated draining]"},
		"nothing":                        {nil, "[]"},
	} {
		if got := fmt.Sprint(summary.Build(orders, c.instances, 1, "us-east").Flags); got != c.wants {
			t.Errorf("%s: %s, want %s", name, got, c.wants)
		}
	}
}

// Capacity is what callers may use: declared capacity by weight, so an instance that gets nothing counts nothing.
func TestCapacityIsByWeight(t *testing.T) {
	in := func(id string, capacity, weight int, status api.Status) *api.Instance {
		return &api.Instance{ID: api.InstanceID(id), Capacity: capacity, Weight: weight, Status: status, Region: "eu-west", Address: "10.0.0.1", Port: 80}
	}
	s := summary.Build(orders, []*api.Instance{
		in("a", 50, 100, api.StatusPassing), in("b", 50, 0, api.StatusPassing), in("c", 50, 250, api.StatusPassing), in("d", 50, 100, api.StatusCritical),
		in("e", api.MaxCapacity, api.MaxWeight, api.StatusPassing),
	}, 7, "us-east")
	if want := 50 + 125 + api.MaxCapacity*(api.MaxWeight/api.DefaultWeight); s.Capacity != want {
		t.Errorf("%d, want %d", s.Capacity, want)
	}
}
