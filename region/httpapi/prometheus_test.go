package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// Every instance is a target with all that is known of it, the unwell too.
func TestPrometheusTargets(t *testing.T) {
	withRegion(t, func(t *testing.T, c *client) {
		empty := c.do(t, 200, "GET", "/v1/sd/prometheus", "")
		if got := strings.TrimSpace(string(empty.body)); got != "[]" || empty.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v", got, empty.header)
		}
		c.do(t, 201, "PUT", "/v1/services/orders/instances/a", `{"address":"10.0.0.1","port":8080,"ports":{"metrics":9100,"grpc-web":9000},
			"zone":"z1","version":"1.4.0","tags":["blue","v1"],"metadata":{"team.name":"shop","team-name":"other","ü":"x","empty":""}}`)
		c.do(t, 201, "PUT", "/v1/services/users/instances/b", `{"address":"2001:db8::1","port":8080}`)
		c.do(t, 200, "PUT", "/v1/services/users/instances/b/status", `{"status":"critical"}`)
		c.do(t, 201, "PUT", "/v1/services/users/instances/c?ns=shop", `{"address":"10.0.0.3","port":1}`)
		var groups []targetGroup
		c.do(t, 200, "GET", "/v1/sd/prometheus", "").into(t, &groups)
		want := []targetGroup{
			{[]string{"10.0.0.1:9100"}, map[string]string{
				"__meta_nearside_service": "orders", "__meta_nearside_namespace": "default", "__meta_nearside_region": "us-east",
				"__meta_nearside_zone": "z1", "__meta_nearside_instance_id": "a", "__meta_nearside_status": "passing",
				"__meta_nearside_overdue": "false", "__meta_nearside_version": "1.4.0", "__meta_nearside_tags": ",blue,v1,",
				"__meta_nearside_address": "10.0.0.1", "__meta_nearside_port": "8080", "__meta_nearside_port_metrics": "9100",
				"__meta_nearside_port_grpc_web": "9000", "__meta_nearside_metadata_team_name": "other", "__meta_nearside_metadata__": "x",
			}},
			{[]string{"[2001:db8::1]:8080"}, map[string]string{
				"__meta_nearside_service": "users", "__meta_nearside_namespace": "default", "__meta_nearside_region": "us-east",
				"__meta_nearside_instance_id": "b", "__meta_nearside_status": "critical", "__meta_nearside_overdue": "false",
				"__meta_nearside_address": "2001:db8::1", "__meta_nearside_port": "8080",
			}},
		}
		if !reflect.DeepEqual(groups, want) {
			t.Errorf("%+v", groups)
		}
		for target, n := range map[string]int{
			"?service=orders": 1, "?service=none": 0, "?ns=shop": 1, "?ns=shop&service=users": 1, "?region=us-east&service=users": 1, "?region=us-east": 2,
		} {
			var groups []targetGroup
			if c.do(t, 200, "GET", "/v1/sd/prometheus"+target, "").into(t, &groups); len(groups) != n || groups == nil {
				t.Errorf("%s: %+v", target, groups)
			}
		}
		for target, status := range map[string]int{"?region=mars": 404, "?region=mars&service=orders": 404, "?service=": 422, "?ns=A": 422, "?tag=a": 400} {
			c.do(t, status, "GET", "/v1/sd/prometheus"+target, "")
		}
	})
}

// A refusal keeps Prometheus at the list it has; an empty list would take all targets away (P7).
func TestPrometheusIsRefusedRatherThanEmptied(t *testing.T) {
	f := newFake()
	f.failure = api.Errorf(api.CodeUnavailable, "not loaded yet")
	h, _ := testDoor(t, f, nil)
	for _, target := range []string{"/v1/sd/prometheus", "/v1/sd/prometheus?service=orders"} {
		if w := (raw{"GET", target, "", ""}).do(t, h); w.Code != 503 {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

// All pages of a service are in the answer.
func TestPrometheusFollowsPages(t *testing.T) {
	h, _ := testDoor(t, paged{newFake()}, nil)
	var groups []targetGroup
	w := raw{"GET", "/v1/sd/prometheus?service=orders", "", ""}.do(t, h)
	if err := json.Unmarshal(w.Body.Bytes(), &groups); err != nil || len(groups) != 30 {
		t.Errorf("%d groups, %v", len(groups), err)
	}
}

// paged has three pages of ten instances.
type paged struct{ *fake }

func (p paged) ListInstances(_ context.Context, q registry.InstancesQuery) (api.InstanceList, registry.Stamp, error) {
	l := api.InstanceList{Service: q.Service, Cursor: q.Cursor + "x"}
	if len(l.Cursor) == 3 {
		l.Cursor = ""
	}
	for i := range 10 {
		l.Instances = append(l.Instances, api.Instance{ID: api.InstanceID(fmt.Sprint(q.Cursor, i)), Address: "10.0.0.1", Port: 1 + i})
	}
	return l, p.Stamp(), nil
}
