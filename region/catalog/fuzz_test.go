package catalog

import (
	"slices"
	"testing"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// FuzzDeparture reads whatever may stand in the store as a departure: what is refused names no
// instance, and two that are joined say what both said.
func FuzzDeparture(f *testing.F) {
	one, err := EncodeDeparture(api.CauseEvict, []api.InstanceID{"a", "b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("services/default/orders", one, one)
	f.Add("services/default", []byte(`{"v":1,"cause":"x","ids":[]}`), []byte(`{"v":2}`))
	f.Add("services/a/b", []byte(`{"v":1,"ids":[1]}`), []byte(`{"v":1,"cause":"evict","ids":["\u0000"]} `))
	f.Fuzz(func(t *testing.T, key string, a, b []byte) {
		k, d, err := readDeparture(store.Record{Key: key, Value: a, Revision: 1})
		if err == nil && (k == (api.ServiceKey{}) || DepartureRecordKey(k) != key) {
			t.Errorf("%q is read as %v", key, k)
		}
		if err != nil && len(d.IDs) > 0 {
			t.Errorf("%q is refused (%v) and names %v", a, err, d.IDs)
		}
		x, err1 := decodeDeparture(a)
		y, err2 := decodeDeparture(b)
		both, ok := JoinDepartures(a, b)
		// Only what EncodeDeparture wrote is ever joined.
		if !ok || err1 != nil || err2 != nil || !own(a, x) || !own(b, y) {
			return
		}
		z, err := decodeDeparture(both)
		if err != nil || z.Cause != x.Cause || z.Cause != y.Cause || !slices.Equal(z.IDs, slices.Concat(x.IDs, y.IDs)) {
			t.Errorf("%s and %s are joined as %s: %v", a, b, both, err)
		}
	})
}

func own(text []byte, d departure) bool {
	again, err := EncodeDeparture(d.Cause, d.IDs)
	return err == nil && string(again) == string(text) && len(d.IDs) > 0
}
