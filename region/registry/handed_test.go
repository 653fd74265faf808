package registry

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/sdk/api"
)

// P1: what the catalogue takes over from a writer is what it would have read from the record.
func TestHandedInstanceIsWhatItsRecordSays(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	some := func(list ...string) string { return list[rnd.IntN(len(list))] }
	r := &Registry{cfg: Config{Region: "eu-west"}}
	for n := range 2000 {
		weight := rnd.IntN(3)
		reg := api.Registration{
			Address: "10.0.0.1", Port: 1 + rnd.IntN(65535), Weight: &weight, Capacity: rnd.IntN(3), Zone: api.Zone(some("", "a")), Version: some("", "1.2 <ö>"),
			TTL: api.Duration(rnd.IntN(2)) * api.Duration(time.Minute), Incarnation: rnd.Uint64N(3), Status: api.Status(some("", "starting")),
		}
		if rnd.IntN(2) == 0 {
			reg.Ports, reg.Tags, reg.Metadata = map[string]int{}, []string{}, map[string]string{}
			for i := range rnd.IntN(3) {
				reg.Ports[fmt.Sprintf("p%d", i)] = 1 + i
				reg.Tags = append(reg.Tags, some("v1", `"ä&`))
				reg.Metadata[fmt.Sprintf("k%d", i)] = some("", "<v>", "ö")
			}
		}
		reg, err := reg.Normalize()
		if err != nil {
			t.Fatal(err)
		}
		key := api.InstanceKey{Namespace: "default", Service: "s", ID: api.InstanceID(fmt.Sprintf("i%d", n))}
		var cur *api.Instance
		if rnd.IntN(2) == 0 {
			was := r.merge(nil, key, reg)
			was.Status, was.StatusNote = api.StatusWarning, some("", "by hand")
			cur = &was
		}
		next := r.merge(cur, key, reg)
		if !plainly(&next) {
			t.Fatalf("%+v has checks", next)
		}
		value, err := catalog.EncodeInstance(next)
		if err != nil {
			t.Fatal(err)
		}
		want, err := catalog.DecodeInstance(key, "eu-west", 0, value)
		if err != nil {
			t.Fatal(err)
		}
		record := catalog.InstanceRecordKey(key)
		r.handed.put(record, value, next)
		if in := r.handed.known(record, append(value[:len(value):len(value)], ' ')); in != nil {
			t.Fatalf("other bytes are taken for the same: %+v", in)
		}
		got := r.handed.known(record, value)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\nhanded %+v\nread   %+v", value, got, want)
		}
		if r.handed.known(record, value) != nil {
			t.Fatal("one instance was handed over twice")
		}
		if len(got.Metadata) > 0 {
			next.Metadata["k0"], next.Tags[0] = "changed by the caller", "changed"
			if got.Metadata["k0"] == "changed by the caller" || got.Tags[0] == "changed" {
				t.Fatal("the catalogue shares what the caller may change")
			}
		}
	}
}

// P8: nothing is kept of writes that are over, whatever became of them.
func TestHandedKeepsNothing(t *testing.T) {
	var h handed
	for i := range 10 {
		key := fmt.Sprint(i)
		h.put(key, []byte(key), api.Instance{})
		h.drop(key)
	}
	if len(h.list) > 0 {
		t.Errorf("%d are left", len(h.list))
	}
}
