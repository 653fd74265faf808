package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// The whole answer of every endpoint, as a client sees it: status and body by the letter.
func TestEveryEndpointAnswers(t *testing.T) {
	const stored = `"region":"us-east","address":"10.0.0.1","port":8080,"weight":100,"ttl":"15s","incarnation":`
	const since = `"status_since":"2026-11-22T10:00:00Z","registered_at":"2026-11-22T10:00:00Z","revision":`
	const resolution = `"service":"orders","ns":"default","endpoints":[{"id":"orders-1","address":"10.0.0.1","port":8080,` +
		`"region":"us-east","weight":100,"status":"passing","tier":0}],"decision":{"reason":"same_region",` +
		`"detail":"<1 instance & nothing else>","region":"us-east","tiers":[]},"views":[]`
	steps := []struct {
		q      raw
		status int
		body   string
		last   any // what the registry was asked
	}{
		{
			raw{"PUT", "/v1/services/orders/instances/orders-2", asked, good},
			201,
			`{"ns":"default","service":"orders","id":"orders-2",` + stored + `1,"status":"passing",` + since + `43}`, nil,
		},
		{
			raw{"PUT", "/v1/services/orders/instances/orders-2", "", good}, 200, // no media type: taken for JSON
			`{"ns":"default","service":"orders","id":"orders-2",` + stored + `1,"status":"passing",` + since + `44}`, nil,
		},
		{
			raw{"PUT", "/v1/services/orders/instances/a.b_c:d-E?ns=shop", "Content-Type: application/vnd.x+json; charset=utf-8", good},
			201,
			`{"ns":"shop","service":"orders","id":"a.b_c:d-E",` + stored + `1,"status":"passing",` + since + `45}`, nil,
		},
		{
			raw{"GET", "/v1/services/orders/instances/%6frders-2?consistency=strong&min_revision=44", "", ""},
			200,
			`{"ns":"default","service":"orders","id":"orders-2",` + stored + `1,"status":"passing",` + since + `44}`,
			registry.ReadOptions{Strong: true, MinRevision: 44},
		},
		{
			raw{"GET", "/v1/regions/us-east/members", "", ""},
			200,
			`{"region":"us-east","members":[{"node":"n1","id":"00000000000000a1","address":"10.0.0.1:7403","role":"voter","started":true,"answers":true,"leader":true}]}`,
			api.Region("us-east"),
		},
		{
			raw{"POST", "/v1/regions/us-east/epoch", asked, `{"above":3}`},
			200,
			`{"region":"us-east","epoch":"4-0000000000000abc","revision":42}`,
			api.EpochRaise{Above: 3},
		},
		{
			raw{"POST", "/v1/regions/us-east/members", asked, `{"node":"n2","address":"10.0.0.2:7403"}`},
			201,
			`{"node":"n2","id":"","address":"10.0.0.2:7403","role":"learner","started":false,"answers":false}`,
			api.MemberAdd{Node: "n2", Address: "10.0.0.2:7403"},
		},
		{raw{"DELETE", "/v1/regions/us-east/members/10.0.0.2:7403", "", ""}, 204, ``, [2]any{"10.0.0.2:7403", false}},
		{raw{"DELETE", "/v1/regions/us-east/members/n1?force=true", "", ""}, 204, ``, [2]any{"n1", true}},
		{
			raw{"PUT", inst + "/heartbeat", "", ""},
			200,
			`{"id":"orders-1","status":"passing","incarnation":5,"ttl":"15s","epoch":"3-0000000000000abc"}`, uint64(0),
		},
		{
			raw{"PUT", inst + "/heartbeat?incarnation=5", "Content-Type: application/x-www-form-urlencoded", ""}, 200, // curl -X PUT -d ''
			`{"id":"orders-1","status":"passing","incarnation":5,"ttl":"15s","epoch":"3-0000000000000abc"}`, uint64(5),
		},
		{
			raw{"PUT", inst + "/heartbeat", asked, `{"incarnation":6}`},
			200,
			`{"id":"orders-1","status":"passing","incarnation":5,"ttl":"15s","epoch":"3-0000000000000abc"}`, uint64(6),
		},
		{
			raw{"PUT", inst + "/status", asked, `{"status":"warning","note":"slow disk"}`},
			200,
			`{"ns":"default","service":"orders","id":"orders-1",` + stored + `5,"status":"warning","status_note":"slow disk",` + since + `46}`,
			api.StatusChange{Status: api.StatusWarning, Note: "slow disk"},
		},
		{
			raw{"PUT", inst + "/drain", "", ""},
			200,
			`{"ns":"default","service":"orders","id":"orders-1",` + stored + `5,"status":"draining",` + since + `47}`,
			api.StatusChange{Status: api.StatusDraining},
		},
		{
			raw{"PUT", inst + "/drain", asked, `{"note":"deploy","incarnation":5}`},
			200,
			`{"ns":"default","service":"orders","id":"orders-1",` + stored + `5,"status":"draining","status_note":"deploy",` + since + `48}`,
			api.StatusChange{Status: api.StatusDraining, Note: "deploy", Incarnation: 5},
		},
		{raw{"DELETE", inst + "?incarnation=5", "", ""}, 204, ``, uint64(5)},
		{
			raw{"DELETE", "/v1/services/orders?ns=shop", "", ""},
			200,
			`{"ns":"shop","service":"orders","removed":1,"revision":50}`,
			api.ServiceKey{Namespace: "shop", Service: "orders"},
		},
		{
			raw{"GET", "/v1/services?ns=", "", ""},
			200,
			`{"services":[{"ns":"default","service":"orders","instances":1,"statuses":{"passing":1},"passing":1}]}`,
			registry.ServicesQuery{Namespace: "default"},
		},
		{
			raw{"GET", "/v1/services?limit=7&cursor=orders&ns=shop", "", ""},
			200,
			`{"services":[{"ns":"shop","service":"orders","instances":1,"statuses":{"passing":1},"passing":1}]}`,
			registry.ServicesQuery{Namespace: "shop", Limit: 7, Cursor: "orders"},
		},
		{
			raw{"GET", "/v1/services/orders/instances?status=passing,warning,passing&zone=a&tag=blue&region=eu-west&limit=10&cursor=xyz&ns=shop", "", ""},
			200,
			`{"service":"orders","ns":"shop","region":"eu-west","instances":[],"complete":true}`,
			registry.InstancesQuery{
				Namespace: "shop", Service: "orders", Statuses: []api.Status{"passing", "warning"}, Zone: "a", Tag: "blue",
				Region: "eu-west", Limit: 10, Cursor: "xyz",
			},
		},
		{
			raw{"GET", "/v1/resolve/orders?zone=a&limit=1000&consistency=eventual", "", ""},
			200, `{` + resolution + `}`,
			registry.ResolveQuery{Namespace: "default", Service: "orders", Zone: "a", Limit: 1000},
		},
		{
			raw{"GET", "/v1/whatif?lose_link=eu-west~us-east&lose=ap-south&lose_zone=eu-west/a&lose=sa-east&service=a&service=b&from=us-east/b&limit=10&cursor=default/x&ns=shop", "", ""},
			200,
			`{"region":"us-east","lost":[{"region":"ap-south"},{"region":"sa-east"},{"region":"eu-west","zone":"a"},{"link":["eu-west","us-east"]}],"callers":[],` +
				`"effect":"unaffected","detail":"<nothing>","counts":{"services":0,"down":0,"over":0,"moved":0,"was_down":0,"unaffected":0},"regions":[],"services":[],"views":[]}`,
			registry.WhatIfQuery{
				Namespace: "shop", Services: []api.ServiceName{"a", "b"}, FromRegion: "us-east", FromZone: "b", Limit: 10, Cursor: "default/x",
				Losses: []api.Loss{{Region: "ap-south"}, {Region: "sa-east"}, {Region: "eu-west", Zone: "a"}, {Link: []api.Region{"eu-west", "us-east"}}},
			},
		},
		{
			raw{"GET", "/v1/explain/orders?from=eu-west/b", "", ""},
			200,
			`{` + resolution + `,"from":"us-east","trace":{"steps":[]}}`,
			registry.ResolveQuery{Namespace: "default", Service: "orders", Zone: "b", FromRegion: "eu-west"},
		},
		{raw{"GET", "/v1/regions", "", ""}, 200, `{"home":"us-east","regions":[]}`, nil},
		{
			raw{"GET", "/v1/regions/us-east", "", ""},
			200,
			`{"region":"us-east","epoch":"","revision":0,"age_ms":0,"state":"","complete":false,"self":true,"services":0,"instances":0,"passing":0}`,
			api.Region("us-east"),
		},
		{raw{"GET", "/v1/federation", "", ""}, 200, `{"region":"us-east","epoch":"","revision":0,"enabled":false,"links":[],"readers":[]}`, nil},
		{raw{"GET", "/v1/limits", "", ""}, 200, "*", nil},
		{raw{"GET", "/v1/sd/prometheus", "", ""}, 200, `[]`, registry.InstancesQuery{Namespace: "default", Service: "orders", Limit: api.MaxListLimit}},
		{raw{"GET", "/v1/openapi.yaml", "", ""}, 200, "*", nil},
		{raw{"GET", "/livez", "", ""}, 200, `{"live":true,"region":"us-east","node":"n1"}`, nil},
		{raw{"GET", "/readyz?verbose", "", ""}, 200, `{"ready":true,"region":"us-east","node":"n1","checks":[{"name":"store","ok":true}]}`, nil},
		{raw{"GET", "/metrics", "", ""}, 200, `nearside_up 1`, nil},
	}
	f := newFake()
	h, log := testDoor(t, f, nil)
	for _, s := range steps {
		t.Run(s.q.method+" "+s.q.target, func(t *testing.T) {
			w := s.q.do(t, h)
			if w.Code != s.status {
				t.Fatalf("status %d, want %d: %s", w.Code, s.status, w.Body)
			}
			if got := strings.TrimSuffix(w.Body.String(), "\n"); s.body != "*" && got != s.body {
				t.Errorf("body\n got %s\nwant %s", got, s.body)
			}
			if s.last != nil && !reflect.DeepEqual(f.last, s.last) {
				t.Errorf("the registry was asked %#v, want %#v", f.last, s.last)
			}
			if strings.HasPrefix(s.q.target, "/v1/") {
				checkStamp(t, w.Header())
			}
			if s.q.method == http.MethodGet {
				s.q.method = http.MethodHead
				if hw := s.q.do(t, h); hw.Code != w.Code || hw.Header().Get("Content-Length") != w.Header().Get("Content-Length") {
					t.Errorf("HEAD answers %d %v", hw.Code, hw.Header())
				}
			}
		})
	}
	if log.Len() > 0 {
		t.Errorf("good requests were logged: %s", log)
	}
}

// P3: every answer is labelled with region, epoch, revision, age and source.
func checkStamp(t *testing.T, h http.Header) {
	t.Helper()
	for _, k := range []string{
		api.HeaderRegion, api.HeaderEpoch, api.HeaderRevision, api.HeaderAgeMS, api.HeaderSource, api.HeaderNode, api.HeaderRequestID,
	} {
		if h.Get(k) == "" {
			t.Errorf("no %s in %v", k, h)
		}
		if http.CanonicalHeaderKey(k) != k {
			t.Errorf("%s is not canonical and would be lost", k)
		}
	}
}

func TestStampSaysWhoseDataItIs(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	for target, want := range map[string][2]string{
		"/v1/services/orders/instances":                {"us-east", "memory"},
		"/v1/services/orders/instances?region=eu-west": {"eu-west", "replica"},
		inst + "?consistency=strong":                   {"us-east", "store"},
		"/v1/limits":                                   {"us-east", "memory"},
	} {
		hd := raw{"GET", target, "", ""}.do(t, h).Header()
		if got := [2]string{hd.Get(api.HeaderRegion), hd.Get(api.HeaderSource)}; got != want {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
		if hd.Get(api.HeaderEpoch) != testEpoch.String() || hd.Get(api.HeaderRevision) != "42" || hd.Get(api.HeaderAgeMS) != "7" {
			t.Errorf("%s: %v", target, hd)
		}
	}
}

// P4: an answer is stamped with the version it was read at. A change that comes between the
// read and the answer belongs to the next one, or a client would take the old instance for
// the newer and keep it.
func TestGetIsStampedWithWhatItRead(t *testing.T) {
	f := newFake()
	h, _ := testDoor(t, f, nil)
	was := f.Stamp().Version.Revision
	f.onGet = func() {
		_, err := f.SetStatus(context.Background(), api.InstanceKey{Namespace: "default", Service: "orders", ID: "orders-1"},
			api.StatusChange{Status: api.StatusCritical})
		if err != nil {
			t.Error(err)
		}
	}
	w := raw{"GET", inst, "", ""}.do(t, h)
	if got := w.Header().Get(api.HeaderRevision); got != fmt.Sprint(was) || !strings.Contains(w.Body.String(), `"status":"passing"`) {
		t.Errorf("stamped %s, read at %d: %s", got, was, w.Body)
	}
}

// P1: the revision in the headers of a write reads that write on any node, even when the
// node's own catalogue has not seen it yet.
func TestHeadersOfAWriteCarryItsRevision(t *testing.T) {
	f := behind{newFake()}
	h, _ := testDoor(t, f, nil)
	w := raw{"PUT", inst, asked, good}.do(t, h)
	if w.Code != 200 || w.Header().Get(api.HeaderRevision) != "43" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// behind is a node whose catalogue lags behind its store.
type behind struct{ *fake }

func (b behind) Stamp() registry.Stamp {
	st := b.fake.Stamp()
	st.Version.Revision -= 10
	return st
}

func TestReadyzSaysWhatIsWrong(t *testing.T) {
	f := newFake()
	f.ready = false
	h, _ := testDoor(t, f, nil)
	w := raw{"GET", "/readyz", "", ""}.do(t, h)
	if w.Code != 503 || w.Header().Get("Content-Type") != "application/json" || !strings.Contains(w.Body.String(), `{"name":"store","ok":false}`) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := (raw{"GET", "/livez", "", ""}).do(t, h); w.Code != 200 {
		t.Errorf("livez: %d, although the process lives", w.Code)
	}
}

func TestMetricsCanBeAbsent(t *testing.T) {
	h, _ := testDoor(t, newFake(), func(c *Config) { c.Metrics = nil })
	if p := problemOf(t, raw{"GET", "/metrics", "", ""}.do(t, h)); p.Code != api.CodeNotFound {
		t.Errorf("%+v", p)
	}
}
