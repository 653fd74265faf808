package view

import (
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// A node that polls find the service missing at says nothing of its policy: where data may not
// go stays true as long as the instances do.
func TestPolicyOutlivesNotFound(t *testing.T) {
	b := book()
	begin(b, false)
	rule := &api.Policy{Allowed: []api.Region{"us"}}
	script(t, b, t0, item(at("us", 1, 9), "a"), api.Frame{Kind: api.FramePolicy, Version: at("us", 1, 9), Service: "orders", Policy: rule},
		synced(at("us", 1, 9)))
	b.Poll(key, "us", api.Resolution{}, t0)
	has(t, b, t0, "us", "a")
	if p, _ := b.Policy(key); p != rule {
		t.Errorf("the policy is %v, and the instances are still used", p)
	}
	b.Poll(key, "us", api.Resolution{Views: []api.Origin{origin(at("us", 1, 10))}}, t0)
	if p, _ := b.Policy(key); p != nil {
		t.Error("an answer without a policy takes it back")
	}
}
