package registry

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// P8: what a node says of another region's instances is labelled as what it is: from a
// snapshot when it is from one, without a freshness that nobody checked, and without values
// that nobody told.
func TestAnotherRegionsInstancesAreLabelledHonestly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		far := newReplicas("us-east", "ap-south")
		far.set("us-east", "orders", 50, "u1")
		saved := far.origins["us-east"]
		saved.Source = api.SourceSnapshot
		far.origins["us-east"] = saved
		b := start(t, func(c *Config) { c.Replicas = far })
		b.register("orders", "a")

		list, stamp, err := b.ListInstances(t.Context(), InstancesQuery{Service: "orders", Region: "us-east"})
		if err != nil || stamp.Source != api.SourceSnapshot {
			t.Errorf("%+v, %v", stamp, err)
		}
		row, err := json.Marshal(list.Instances[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"ttl", "incarnation", "status_since", "registered_at"} {
			if strings.Contains(string(row), field) {
				t.Errorf("invented: %s in %s", field, row)
			}
		}
		for field, o := range map[string]ReadOptions{"consistency": {Strong: true}, "min_revision": {MinRevision: 1}} {
			_, _, err := b.ListInstances(t.Context(), InstancesQuery{Service: "orders", Region: "us-east", ReadOptions: o})
			b.wantCode(err, api.CodeUnsupported)
			if e, ok := err.(*api.Error); !ok || e.Field != field || !strings.Contains(e.Remedy, "http://us-east:7400") {
				t.Errorf("%s: %v", field, err)
			}
			_, _, err = b.ListInstances(t.Context(), InstancesQuery{Service: "orders", Region: "mars", ReadOptions: o})
			b.wantCode(err, api.CodeRegionNotFound)
			if _, _, err = b.ListInstances(t.Context(), InstancesQuery{Service: "orders", Region: "eu-west", ReadOptions: o}); err != nil {
				t.Errorf("%s in the own region: %v", field, err)
			}
		}

		own, _, err := b.Get(t.Context(), ikey("orders", "a"), ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		row, err = json.Marshal(own)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{`"ttl":"5s"`, `"incarnation":1`, `"status_since":`, `"registered_at":`} {
			if !strings.Contains(string(row), field) {
				t.Errorf("no %s in %s", field, row)
			}
		}
	})
}
