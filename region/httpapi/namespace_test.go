package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/region/kv"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/steering"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// wholeDoor is a door to a real registry with keys and an event log, all in memory.
func wholeDoor(t testing.TB, more func(*Config)) (http.Handler, *bytes.Buffer) {
	t.Helper()
	l, err := events.Open(events.Config{Region: "us-east", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	st, err := memstore.New("us-east")
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(registry.Config{Region: "us-east", Node: "n1", Store: st, Events: l})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.New(kv.Config{Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	steer, err := steering.New(steering.Config{Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	<-reg.Loaded()
	return testDoor(t, reg, func(c *Config) {
		c.KV, c.Steering = keys, steer
		if more != nil {
			more(c)
		}
	})
}

// nsRoute is a question about one route, asked in two namespaces that have all names in
// common. A mark in an answer says which of them it is of.
type nsRoute struct {
	route  string // method and path as in the door's table
	target string
	body   string // of a write
	none   bool   // the answer has no mark
	write  bool   // what it does must not show in the other namespace
}

// nsRoutes has every route that takes ?ns=; MARK in target and body is replaced by the namespace's own.
var nsRoutes = []nsRoute{
	{route: "GET /v1/services", target: "/v1/services?"},
	{route: "GET /v1/services/:service/instances", target: "/v1/services/orders/instances?"},
	{route: "GET /v1/services/:service/instances/:id", target: "/v1/services/orders/instances/a?"},
	{route: "GET /v1/resolve/:service", target: "/v1/resolve/orders?"},
	{route: "GET /v1/explain/:service", target: "/v1/explain/orders?"},
	{route: "GET /v1/whatif", target: "/v1/whatif?lose_zone=us-east/MARK&"},
	{route: "GET /v1/whatif", target: "/v1/whatif?lose_zone=us-east/MARK&service=orders&"},
	{route: "GET /v1/watch", target: "/v1/watch?service=orders&"},
	{route: "GET /v1/watch", target: "/v1/watch?"},
	{route: "GET /v1/kv/*", target: "/v1/kv/app/x?"},
	{route: "GET /v1/kv/*", target: "/v1/kv/?"},
	{route: "GET /v1/kv/*", target: "/v1/kv/?watch=true&"},
	{route: "GET /v1/sd/prometheus", target: "/v1/sd/prometheus?"},
	{route: "GET /v1/sd/prometheus", target: "/v1/sd/prometheus?service=orders&"},
	{route: "GET /v1/events", target: "/v1/events?"},
	{route: "GET /v1/events", target: "/v1/events?subject=orders&kind=register&", none: true},
	{route: "GET /v1/events", target: "/v1/events?follow=true&since=0&"},
	{route: "GET /v1/regions", target: "/v1/regions?"},
	{route: "GET /v1/regions/:region", target: "/v1/regions/us-east?"},
	{route: "PUT /v1/services/:service/instances/:id", target: "/v1/services/orders/instances/a?", body: `{"address":"10.0.0.9","port":81,"tags":["MARK"]}`, write: true},
	{route: "PUT /v1/services/:service/instances/:id/heartbeat", target: "/v1/services/orders/instances/a/heartbeat?", write: true, none: true},
	{route: "PUT /v1/services/:service/instances/:id/status", target: "/v1/services/orders/instances/a/status?", body: `{"status":"critical","note":"MARK"}`, write: true},
	{route: "PUT /v1/services/:service/instances/:id/drain", target: "/v1/services/orders/instances/a/drain?", body: `{"note":"MARK"}`, write: true},
	{route: "DELETE /v1/services/:service/instances/:id/drain", target: "/v1/services/orders/instances/a/drain?", write: true},
	{route: "POST /v1/batch/heartbeats", target: "/v1/batch/heartbeats?", body: `{"heartbeats":[{"service":"orders","id":"a"}]}`, write: true, none: true},
	{route: "POST /v1/batch/register", target: "/v1/batch/register?", body: `{"instances":[{"service":"orders","id":"a","address":"10.0.0.9","port":82,"tags":["MARK"]}]}`, write: true, none: true},
	{route: "PUT /v1/kv/*", target: "/v1/kv/app/x?", body: "MARK again", write: true, none: true},
	{route: "DELETE /v1/kv/*", target: "/v1/kv/app/x?", write: true, none: true},
	{route: "GET /v1/policies", target: "/v1/policies?"},
	{route: "GET /v1/policies/:service", target: "/v1/policies/orders?effective=true&"},
	{route: "POST /v1/policies/:service/test", target: "/v1/policies/orders/test?", body: `{"keep_warm":1}`, none: true},
	{route: "PUT /v1/policies/:service", target: "/v1/policies/orders?", body: `{"note":"MARK","keep_warm":1}`, write: true},
	{route: "DELETE /v1/policies/:service", target: "/v1/policies/orders?", write: true, none: true},
	{route: "DELETE /v1/services/:service", target: "/v1/services/orders?", write: true, none: true},
	{route: "DELETE /v1/services/:service/instances/:id", target: "/v1/services/orders/instances/a?", write: true, none: true},
}

// withoutNS are the routes that are of the whole region or of the node, and why.
var withoutNS = map[string]string{
	"GET /v1/federation":                       "links are between regions",
	"POST /v1/regions/:region/epoch":           "of the region",
	"POST /v1/federation/verify":               "of another region as a whole",
	"POST /v1/federation/resync":               "of another region as a whole",
	"GET /v1/limits":                           "of the node",
	"POST /v1/nodes/:node/report":              "its items name theirs",
	"GET /v1/regions/:region/members":          "of the region",
	"POST /v1/regions/:region/members":         "of the region",
	"DELETE /v1/regions/:region/members/:node": "of the region",
	"GET /v1/regions/:region/drain":            "of the region",
	"PUT /v1/regions/:region/drain":            "of the region",
	"DELETE /v1/regions/:region/drain":         "of the region",
	"GET /v1/snapshot":                         "a backup is of everything",
	"GET /v1/openapi.yaml":                     "of the node",
	"GET /livez":                               "of the node",
	"GET /readyz":                              "of the node",
	"GET /metrics":                             "of the node",
}

func TestEveryRouteKnowsItsNamespace(t *testing.T) {
	asked := map[string]bool{}
	for _, q := range nsRoutes {
		asked[q.route] = true
	}
	for _, rt := range (&door{}).routes() {
		name := rt.method + " " + rt.path
		takes := slices.Contains(rt.query, "ns")
		switch {
		case takes != asked[name]:
			t.Errorf("%s: takes ns %v, has a line in nsRoutes %v", name, takes, asked[name])
		case !takes && withoutNS[name] == "":
			t.Errorf("%s: takes no ns, and withoutNS does not say why", name)
		}
	}
}

// The same names in two namespaces have nothing to do with each other, on any route. A service
// of the default one that is called like the other namespace is no part of that either.
func TestNamespacesNeverMix(t *testing.T) {
	h, _ := wholeDoor(t, nil)
	srv := httptest.NewServer(h)
	defer srv.Close()
	mark := map[string]string{"default": "only-default", "shop": "only-shop"}
	end := "" // the line of a stream by which it has told what there is
	ask := func(t *testing.T, method, target, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var all strings.Builder
		lines := bufio.NewScanner(resp.Body)
		stream := strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
		for lines.Scan() {
			all.WriteString(lines.Text() + "\n")
			if stream && strings.HasPrefix(lines.Text(), end) {
				break
			}
		}
		return resp.StatusCode, all.String()
	}
	fill := func(t *testing.T) {
		t.Helper()
		for ns, m := range mark {
			for _, q := range [][3]string{
				{"PUT", "/v1/services/orders/instances/a?ns=" + ns, fmt.Sprintf(`{"address":"10.0.0.1","port":80,"tags":["%s"],"metadata":{"m":"%s"},"version":"%s","zone":"%s"}`, m, m, m, m)},
				{"PUT", "/v1/services/" + m + "/instances/b?ns=" + ns, `{"address":"10.0.0.2","port":80}`},
				{"PUT", "/v1/kv/app/x?ns=" + ns, m},
				{"PUT", "/v1/kv/" + m + "?ns=" + ns, m},
				{"PUT", "/v1/policies/orders?ns=" + ns, `{"note":"` + m + `"}`},
				{"PUT", "/v1/policies/*?ns=" + ns, `{"keep_warm":2,"note":"` + m + `"}`},
				{"PUT", "/v1/services/orders/instances/a/drain?ns=" + ns, `{"note":"` + m + `"}`},
			} {
				if code, got := ask(t, q[0], q[1], q[2]); code > 201 {
					t.Fatalf("%v: %d %s", q, code, got)
				}
			}
		}
		// A trap: its subject begins like that of everything in the namespace shop.
		if code, got := ask(t, "PUT", "/v1/services/shop/instances/only-default", `{"address":"10.0.0.3","port":80}`); code > 201 {
			t.Fatal(code, got)
		}
	}
	fill(t)
	for _, q := range nsRoutes {
		t.Run(strings.ReplaceAll(q.route+" "+q.target, "/", "|"), func(t *testing.T) {
			method, _, _ := strings.Cut(q.route, " ")
			fill(t)
			for ns, own := range mark {
				other := mark["shop"]
				if ns == "shop" {
					other = mark["default"]
				}
				// What the other one has of everything.
				state := func() string {
					t.Helper()
					o := strings.TrimPrefix(other, "only-")
					_, in := ask(t, "GET", "/v1/services/orders/instances/a?ns="+o, "")
					_, key := ask(t, "GET", "/v1/kv/app/x?meta=true&ns="+o, "")
					_, policies := ask(t, "GET", "/v1/policies?ns="+o, "")
					return in + key + policies
				}
				before := state()
				end = "event: synced"
				if strings.Contains(q.target, "follow") {
					var l api.EventList
					if _, got := ask(t, "PUT", "/v1/services/orders/instances/a/drain?ns="+ns, `{"note":"another"}`); !strings.Contains(got, "another") {
						t.Fatal(got)
					}
					_, list := ask(t, "GET", "/v1/events?ns="+ns, "")
					if err := json.Unmarshal([]byte(list), &l); err != nil || len(l.Events) == 0 {
						t.Fatal(list, err)
					}
					end = fmt.Sprintf("id: %d", l.Events[len(l.Events)-1].ID)
				}
				code, got := ask(t, method, strings.ReplaceAll(q.target, "MARK", own)+"ns="+ns, strings.ReplaceAll(q.body, "MARK", own))
				if code > 204 {
					t.Fatalf("%d %s", code, got)
				}
				counted := strings.Contains(q.target, "/v1/regions")
				if !q.none && !counted && !strings.Contains(got, own) || strings.Contains(got, other) || strings.Contains(got, `"ns":"`+strings.TrimPrefix(other, "only-")+`"`) {
					t.Errorf("of %s:\n%s", ns, got)
				}
				if want := map[string]string{"default": `"ns":"default","services":3,"instances":3,"passing":2`, "shop": `"ns":"shop","services":2,"instances":2,"passing":1`}[ns]; counted && !strings.Contains(got, want) {
					t.Errorf("%s does not say %s", got, want)
				}
				if after := state(); q.write && after != before {
					t.Errorf("a write of %s changed the other namespace\nfrom %s\nto   %s", ns, before, after)
				}
				fill(t)
			}
			// Wrong ones are refused by name, before anything is done.
			for _, bad := range []string{"Shop", "a/b", "..", "a%00", "%20", "a_b", "-a", strings.Repeat("a", 64), "shop%0a"} {
				code, got := ask(t, method, q.target+"ns="+bad, strings.ReplaceAll(q.body, "MARK", "x"))
				if code != 422 || !strings.Contains(got, `"field":"ns"`) {
					t.Errorf("ns=%s: %d %s", bad, code, got)
				}
			}
			if code, got := ask(t, method, q.target+"ns=shop&ns=default", q.body); code != 400 || !strings.Contains(got, string(api.CodeInvalidRequest)) {
				t.Errorf("two namespaces: %d %s", code, got)
			}
		})
	}
	// Without ?ns= it is the default one, or everything where that is what is asked for.
	if _, got := ask(t, "GET", "/v1/regions/us-east", ""); !strings.Contains(got, `"services":5,"instances":5`) || strings.Contains(got, `"ns"`) {
		t.Error(got)
	}
	if _, got := ask(t, "GET", "/v1/events", ""); !strings.Contains(got, `"ns":"shop","subject":"shop/orders/a"`) || !strings.Contains(got, `"ns":"default","subject":"orders/a"`) {
		t.Error(got)
	}
	w := raw{"GET", "/v1/snapshot", "", ""}.do(t, h)
	saved := map[string]bool{}
	if _, err := backup.Read(w.Body, func(r store.Record) error { saved[r.Key] = true; return nil }); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"instances/default/orders/a", "instances/shop/orders/a", "kv/default/app/x", "kv/shop/app/x"} {
		if !saved[key] {
			t.Errorf("the backup has no %s: %v", key, saved)
		}
	}
	// An item of a batch says its own, and that counts.
	_, got := ask(t, "POST", "/v1/batch/heartbeats?ns=shop", `{"heartbeats":[{"service":"orders","id":"a"},{"ns":"default","service":"shop","id":"only-default"},{"ns":"shop","service":"shop","id":"only-default"}]}`)
	if !strings.Contains(got, `"failed":1`) || strings.Count(got, `"ok":true`) != 2 {
		t.Error(got)
	}
}
