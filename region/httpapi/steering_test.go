package httpapi

import (
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/region/steering"
	"github.com/nearside/nearside/sdk/api"
)

var _ Steering = (*steering.Table)(nil)

// A policy's whole life over HTTP: set, read, merged, tested, refused, deleted; and what a watch is told.
func TestLifeOfAPolicyOverHTTP(t *testing.T) {
	withRegion(t, func(t *testing.T, c *client) {
		const orders, def = "/v1/policies/orders", "/v1/policies/%2A"
		c.do(t, 201, "PUT", "/v1/services/orders/instances/a", `{"address":"10.0.0.1","port":8080}`)
		c.do(t, 404, "GET", orders, "")
		var w api.PolicyWritten
		created := c.do(t, 201, "PUT", orders, `{"allowed":["us-east"],"note":"data stays"}`).into(t, &w)
		if w.Version != 1 || w.Note != "data stays" || created.header.Get(api.HeaderRevision) == "" {
			t.Errorf("%+v", w)
		}
		c.do(t, 200, "PUT", orders, `{"allowed":["us-east"],"note":"data stays"}`)
		c.do(t, 201, "PUT", def, `{"failback_ramp":"0s","min_healthy":20}`)
		var p api.PolicyRecord
		c.do(t, 200, "GET", orders+"?effective=true", "").into(t, &p)
		if *p.Policy.MinHealthy != 20 || len(p.Policy.Allowed) != 1 || *p.Policy.FailbackRamp != 0 {
			t.Errorf("%+v", p)
		}
		c.do(t, 200, "GET", "/v1/policies/users?effective=true", "").into(t, &p)
		if p.Revision != 0 || *p.Policy.MinHealthy != 20 {
			t.Errorf("%+v", p)
		}
		var l api.PolicyList
		c.do(t, 200, "GET", "/v1/policies?limit=1", "").into(t, &l)
		if len(l.Policies) != 1 || l.Policies[0].Service != "*" || l.Cursor != "*" {
			t.Errorf("%+v", l)
		}
		l = api.PolicyList{}
		c.do(t, 200, "GET", "/v1/policies?cursor=%2A", "").into(t, &l)
		if len(l.Policies) != 1 || l.Policies[0].Service != "orders" || l.Cursor != "" {
			t.Errorf("%+v", l)
		}
		var res api.Resolution
		c.do(t, 200, "GET", "/v1/resolve/orders", "").into(t, &res)
		if res.Policy == nil || len(res.Policy.Allowed) != 1 || len(res.Views) == 0 {
			t.Errorf("%+v", res)
		}
		var test api.PolicyTest
		c.do(t, 200, "POST", orders+"/test", `{"allowed":["eu-west"]}`).into(t, &test)
		if len(test.Decisions) != 1 || !test.Decisions[0].Changed || len(test.Warnings) != 1 || test.After.MinHealthy == nil {
			t.Errorf("%+v", test)
		}
		c.do(t, 409, "PUT", orders+"?if_revision=1", `{}`)
		c.do(t, 409, "DELETE", orders+"?if_revision=1", "")

		watch := c.watch(t, "/v1/watch?service=orders&far=true")
		defer watch.Close()
		watch.expect(t, "item a", "policy", "synced")
		c.do(t, 204, "DELETE", orders, "")
		watch.expect(t, "policy")
		c.do(t, 404, "DELETE", orders, "")

		for _, q := range []struct {
			status             int
			method, path, body string
			words              string
		}{
			{422, "PUT", orders, `{"keep_warm":11}`, "keep_warm 11 is out of range"},
			{422, "PUT", orders, `{"local_only":true,"allowed":["eu-west"]}`, "nobody could serve"},
			{422, "PUT", orders, `{"allowed":"eu"}`, `allowed cannot be a JSON string`},
			{400, "PUT", orders, `{"alowed":[]}`, `there is no field \"alowed\"`},
			{400, "PUT", orders, `{"allowed":[],"allowed":[]}`, "given twice"},
			{422, "PUT", "/v1/policies/UP", `{}`, `or \"*\" for the`},
			{422, "PUT", orders + "?if_revision=x", `{}`, "if_revision"},
			{422, "GET", orders + "?effective=yes", "", "effective"},
			{400, "GET", "/v1/policies?cursor=UP", "", "cursor"},
			{400, "GET", "/v1/policies?far=true", "", "unknown_parameter"},
			{413, "PUT", orders, `{"note":"` + strings.Repeat("x", api.MaxBodyBytes) + `"}`, "over"},
			{405, "POST", orders, `{}`, "does not work on this path"},
		} {
			if got := string(c.do(t, q.status, q.method, q.path, q.body).body); !strings.Contains(got, q.words) {
				t.Errorf("%s %s: %s", q.method, q.path, got)
			}
		}
	})
}

// A drain over HTTP, and what is refused: a percentage that was forgotten above all.
func TestDrainOfARegionOverHTTP(t *testing.T) {
	withRegion(t, func(t *testing.T, c *client) {
		const drain = "/v1/regions/us-east/drain"
		var d api.RegionDrain
		c.do(t, 200, "GET", drain, "").into(t, &d)
		if d.State != api.DrainEnded || d.Now != 0 {
			t.Errorf("%+v", d)
		}
		watch := c.watch(t, "/v1/watch?service=orders&far=true")
		defer watch.Close()
		watch.expect(t, "synced")
		c.do(t, 200, "PUT", drain, `{"percent":40,"note":"works"}`).into(t, &d)
		if d.State != api.DrainHolding || d.Now != 40 || d.Effective != 40 || d.By != "us-east" {
			t.Errorf("%+v", d)
		}
		watch.expect(t, "bookmark")
		var list api.RegionList
		c.do(t, 200, "GET", "/v1/regions", "").into(t, &list)
		if list.Regions[0].Drained != 40 {
			t.Errorf("%+v", list)
		}
		c.do(t, 200, "PUT", drain, `{"percent":100,"over":"10m","steps":5,"abort":{"below_passing":80}}`).into(t, &d)
		if d.State != api.DrainMoving || d.Now != 40 || d.From != 40 {
			t.Errorf("%+v", d)
		}
		<-time.After(4*time.Minute + time.Second) // in the bubble
		var now api.RegionDrain
		c.do(t, 200, "GET", drain, "").into(t, &now)
		if now.State != api.DrainMoving || now.Now != 64 || now.Abort == nil {
			t.Errorf("two of five steps: %+v", now)
		}
		c.do(t, 200, "DELETE", drain+"?over=1m", "").into(t, &now)
		for _, q := range []struct {
			status             int
			method, path, body string
			words              string
		}{
			{422, "PUT", drain, `{}`, "percent is missing"},
			{422, "PUT", drain, `{"percent":101}`, "percent 101"},
			{422, "PUT", drain, `{"percent":1e999}`, "percent"},
			{422, "PUT", drain, `{"percent":-1}`, "percent -1"},
			{422, "PUT", drain, `{"percent":1,"over":"25h"}`, "over 25h"},
			{422, "PUT", drain, `{"percent":1,"over":"soon"}`, "soon"},
			{422, "PUT", drain, `{"percent":1,"until":"1999-01-01T00:00:00Z"}`, "until"},
			{400, "PUT", drain, `{"percent":1,"Percent":2}`, "Percent"},
			{400, "PUT", drain, `{"percent":1,"percent":2}`, "twice"},
			{422, "DELETE", drain + "?over=soon", "", "write it like 10m"},
			{422, "DELETE", drain + "?over=-1s", "", "over -1s"},
			{404, "PUT", "/v1/regions/mars/drain", `{"percent":1}`, "region_not_found"},
			{422, "PUT", "/v1/regions/UP/drain", `{"percent":1}`, "region"},
			{400, "DELETE", drain, `{"percent":1}`, "takes no body"},
		} {
			if got := string(c.do(t, q.status, q.method, q.path, q.body).body); !strings.Contains(got, q.words) {
				t.Errorf("%s %s: %s", q.method, q.path, got)
			}
		}
	})
}
