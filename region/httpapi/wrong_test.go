package httpapi

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

const (
	inst  = "/v1/services/orders/instances/orders-1"
	asked = "Content-Type: application/json"
	good  = `{"address":"10.0.0.1","port":8080}`
)

// Every wrong request gets a problem document that names what is wrong, never a 5xx and
// never a guess at what was meant.
func TestWrongRequestsAreRefusedByName(t *testing.T) {
	big := `{"address":"` + strings.Repeat("a", api.MaxBodyBytes) + `"}`
	body := func(s string) raw { return raw{"PUT", inst, asked, s} }
	tests := []struct {
		name  string
		q     raw
		code  api.Code
		field string // "" = not looked at
	}{
		// Paths
		{"unknown path", raw{"GET", "/v1/nothing", "", ""}, api.CodeNotFound, ""},
		{"root", raw{"GET", "/", "", ""}, api.CodeNotFound, ""},
		{"empty version", raw{"GET", "//v1/services", "", ""}, api.CodeNotFound, ""},
		{"slash at the end", raw{"GET", "/v1/services/", "", ""}, api.CodeNotFound, ""},
		{"half a path", raw{"GET", "/v1/services/orders", "", ""}, api.CodeMethodNotAllowed, ""},
		{"too long a path", raw{"GET", inst + "/heartbeat/again", "", ""}, api.CodeNotFound, ""},
		{"slash inside the last name", raw{"GET", "/v1/resolve/orders/more", "", ""}, api.CodeNotFound, ""},
		{"resolve without a name", raw{"GET", "/v1/resolve/", "", ""}, api.CodeNotFound, ""},
		{"dot segments", raw{"GET", "/v1/services/../../etc/passwd", "", ""}, api.CodeNotFound, ""},
		{"dot segments to a real path", raw{"GET", "/v1/x/../limits", "", ""}, api.CodeNotFound, ""},
		{"encoded word", raw{"GET", "/v1/%73ervices", "", ""}, api.CodeNotFound, ""},
		{"asterisk path", raw{"PUT", "*", "", ""}, api.CodeNotFound, ""},

		// Members
		{"members of a bad region", raw{"GET", "/v1/regions/EU/members", "", ""}, api.CodeInvalidField, "region"},
		{"a member without a name", raw{"POST", "/v1/regions/us-east/members", asked, `{"address":"10.0.0.1:1"}`}, api.CodeInvalidField, "node"},
		{"a member with more", raw{"POST", "/v1/regions/us-east/members", asked, `{"node":"n2","role":"voter"}`}, api.CodeUnknownField, ""},
		{"half a force", raw{"DELETE", "/v1/regions/us-east/members/n1?force=yes", "", ""}, api.CodeInvalidField, "force"},
		{"too few would be left", raw{"DELETE", "/v1/regions/us-east/members/n1", "", ""}, api.CodeConflict, ""},

		// The epoch
		{"epoch of a bad region", raw{"POST", "/v1/regions/EU/epoch", asked, `{"above":3}`}, api.CodeInvalidField, "region"},
		{"an epoch with more", raw{"POST", "/v1/regions/us-east/epoch", asked, `{"above":3,"nonce":1}`}, api.CodeUnknownField, ""},
		{"an epoch below zero", raw{"POST", "/v1/regions/us-east/epoch", asked, `{"above":-3}`}, api.CodeInvalidField, "above"},
		{"watch of half the namespaces", raw{"GET", "/v1/watch?ns=sh*", "", ""}, api.CodeInvalidField, "ns"},
		{"list of all namespaces", raw{"GET", "/v1/services?ns=*", "", ""}, api.CodeInvalidField, "ns"},
		{"bookmarks too often", raw{"GET", "/v1/watch?bookmark=10ms", "", ""}, api.CodeInvalidField, "bookmark"},
		{"bookmarks too seldom", raw{"GET", "/v1/watch?bookmark=6s", "", ""}, api.CodeInvalidField, "bookmark"},
		{"bookmarks without a unit", raw{"GET", "/v1/watch?bookmark=2", "", ""}, api.CodeInvalidField, "bookmark"},

		// Names, decoded once
		{"empty service", raw{"GET", "/v1/services//instances", "", ""}, api.CodeInvalidField, "service"},
		{"encoded slash", raw{"GET", "/v1/resolve/a%2Fb", "", ""}, api.CodeInvalidField, "service"},
		{"encoded slash before instances", raw{"GET", "/v1/services/a%2Fb/instances", "", ""}, api.CodeInvalidField, "service"},
		{"encoded dots", raw{"GET", "/v1/resolve/%2e%2e", "", ""}, api.CodeInvalidField, "service"},
		{"nul byte", raw{"GET", "/v1/resolve/a%00b", "", ""}, api.CodeInvalidField, "service"},
		{"line break", raw{"GET", "/v1/resolve/a%0d%0aSet-Cookie:x", "", ""}, api.CodeInvalidField, "service"},
		{"encoded twice", raw{"GET", "/v1/resolve/%256frders", "", ""}, api.CodeInvalidField, "service"},
		{"upper case", raw{"GET", "/v1/resolve/Orders", "", ""}, api.CodeInvalidField, "service"},
		{"unicode twin", raw{"GET", "/v1/resolve/%D0%BErders", "", ""}, api.CodeInvalidField, "service"},
		{"raw unicode", raw{"GET", "/v1/resolve/öl", "", ""}, api.CodeInvalidField, "service"},
		{"invalid UTF-8", raw{"GET", "/v1/resolve/%ff%fe", "", ""}, api.CodeInvalidField, "service"},
		{"64 letters", raw{"GET", "/v1/resolve/" + strings.Repeat("a", 64), "", ""}, api.CodeInvalidField, "service"},
		{"10,000 letters", raw{"GET", "/v1/resolve/" + strings.Repeat("a", 10_000), "", ""}, api.CodeInvalidField, "service"},
		{"dash in front", raw{"GET", "/v1/resolve/-a", "", ""}, api.CodeInvalidField, "service"},
		{"id of dots", raw{"GET", "/v1/services/orders/instances/..", "", ""}, api.CodeInvalidField, "id"},
		{"id with a space", raw{"PUT", "/v1/services/orders/instances/a%20b", asked, good}, api.CodeInvalidField, "id"},
		{"id with a slash", raw{"DELETE", "/v1/services/orders/instances/a%2fb", "", ""}, api.CodeInvalidField, "id"},
		{"id of 129", raw{"PUT", "/v1/services/orders/instances/" + strings.Repeat("a", 129), asked, good}, api.CodeInvalidField, "id"},
		{"region name", raw{"GET", "/v1/regions/EU", "", ""}, api.CodeInvalidField, "region"},
		{"region unknown", raw{"GET", "/v1/regions/mars", "", ""}, api.CodeRegionNotFound, ""},
		{"service unknown", raw{"GET", "/v1/resolve/nobody", "", ""}, api.CodeServiceNotFound, ""},
		{"instance unknown", raw{"GET", inst + "0", "", ""}, api.CodeInstanceNotFound, ""},
		{"heartbeat of nobody", raw{"PUT", inst + "0/heartbeat", "", ""}, api.CodeInstanceNotFound, ""},

		// Methods
		{"post an instance", raw{"POST", inst, asked, good}, api.CodeMethodNotAllowed, ""},
		{"patch an instance", raw{"PATCH", inst, asked, good}, api.CodeMethodNotAllowed, ""},
		{"get a heartbeat", raw{"GET", inst + "/heartbeat", "", ""}, api.CodeMethodNotAllowed, ""},
		{"put the services", raw{"PUT", "/v1/services", asked, "{}"}, api.CodeMethodNotAllowed, ""},
		{"delete a region", raw{"DELETE", "/v1/regions/us-east", "", ""}, api.CodeMethodNotAllowed, ""},
		{"method of its own", raw{"BREW", "/v1/limits", "", ""}, api.CodeMethodNotAllowed, ""},
		{"trace", raw{"TRACE", "/v1/limits", "", ""}, api.CodeMethodNotAllowed, ""},

		{"get a verification", raw{"GET", "/v1/federation/verify?region=eu-west", "", ""}, api.CodeMethodNotAllowed, ""},

		// Other regions
		{"verify nobody", raw{"POST", "/v1/federation/verify", "", ""}, api.CodeInvalidField, "region"},
		{"verify what is no region", raw{"POST", "/v1/federation/verify?region=EU", "", ""}, api.CodeInvalidField, "region"},
		{"verify two", raw{"POST", "/v1/federation/verify?region=a&region=b", "", ""}, api.CodeInvalidRequest, "region"},
		{"resync nobody", raw{"POST", "/v1/federation/resync?region=", "", ""}, api.CodeInvalidField, "region"},
		{"resync with force", raw{"POST", "/v1/federation/resync?region=eu-west&force=true", "", ""}, api.CodeUnknownParameter, "force"},
		{"resync with a body", raw{"POST", "/v1/federation/resync?region=eu-west", asked, "{}"}, api.CodeInvalidRequest, ""},

		// Query
		{"unknown parameter", raw{"GET", "/v1/services?servcie=a", "", ""}, api.CodeUnknownParameter, "servcie"},
		{"parameter where none is", raw{"GET", "/v1/limits?ns=a", "", ""}, api.CodeUnknownParameter, "ns"},
		{"token in the query", raw{"GET", "/v1/services?token=s3cret", "", ""}, api.CodeUnknownParameter, "token"},
		{"parameter of another path", raw{"GET", "/v1/resolve/orders?cursor=a", "", ""}, api.CodeUnknownParameter, "cursor"},
		{"twice", raw{"GET", "/v1/services?ns=a&ns=b", "", ""}, api.CodeInvalidRequest, "ns"},
		{"status twice", raw{"GET", "/v1/services/orders/instances?status=passing&status=critical", "", ""}, api.CodeInvalidRequest, "status"},
		{"broken escape", raw{"GET", "/v1/services?ns=%zz", "", ""}, api.CodeInvalidRequest, ""},
		{"semicolon", raw{"GET", "/v1/services?ns=a;limit=3", "", ""}, api.CodeInvalidRequest, ""},
		{"namespace", raw{"GET", "/v1/services?ns=A", "", ""}, api.CodeInvalidField, "ns"},
		{"namespace on a write", raw{"PUT", inst + "?ns=a/b", asked, good}, api.CodeInvalidField, "ns"},
		{"limit 0", raw{"GET", "/v1/resolve/orders?limit=0", "", ""}, api.CodeInvalidField, "limit"},
		{"limit -1", raw{"GET", "/v1/resolve/orders?limit=-1", "", ""}, api.CodeInvalidField, "limit"},
		{"limit 1001", raw{"GET", "/v1/services/orders/instances?limit=1001", "", ""}, api.CodeInvalidField, "limit"},
		{"limit word", raw{"GET", "/v1/resolve/orders?limit=all", "", ""}, api.CodeInvalidField, "limit"},
		{"limit empty", raw{"GET", "/v1/resolve/orders?limit=", "", ""}, api.CodeInvalidField, "limit"},
		{"limit overflow", raw{"GET", "/v1/resolve/orders?limit=99999999999999999999", "", ""}, api.CodeInvalidField, "limit"},
		{"consistency", raw{"GET", "/v1/services?consistency=linearizable", "", ""}, api.CodeInvalidField, "consistency"},
		{"min_revision", raw{"GET", "/v1/services?min_revision=-3", "", ""}, api.CodeInvalidField, "min_revision"},
		{"status word", raw{"GET", "/v1/services/orders/instances?status=up", "", ""}, api.CodeInvalidField, "status"},
		{"status list", raw{"GET", "/v1/services/orders/instances?status=passing,,critical", "", ""}, api.CodeInvalidField, "status"},
		{"zone", raw{"GET", "/v1/resolve/orders?zone=a_b", "", ""}, api.CodeInvalidField, "zone"},
		{"tag", raw{"GET", "/v1/services/orders/instances?tag=" + strings.Repeat("t", 129), "", ""}, api.CodeInvalidField, "tag"},
		{"region parameter", raw{"GET", "/v1/services/orders/instances?region=", "", ""}, api.CodeInvalidField, "region"},
		{"region parameter unknown", raw{"GET", "/v1/services/orders/instances?region=mars", "", ""}, api.CodeRegionNotFound, ""},
		{"cursor", raw{"GET", "/v1/services/orders/instances?cursor=" + strings.Repeat("c", 600), "", ""}, api.CodeInvalidField, "cursor"},
		{"empty filter", raw{"GET", "/v1/services/orders/instances?filter=", "", ""}, api.CodeInvalidField, "filter"},
		{"policy", raw{"GET", "/v1/resolve/orders?policy=near", "", ""}, api.CodeUnsupported, "policy"},
		{"at", raw{"GET", "/v1/explain/orders?at=yesterday", "", ""}, api.CodeUnsupported, "at"},
		{"from", raw{"GET", "/v1/explain/orders?from=eu-west/a/b", "", ""}, api.CodeInvalidField, "from"},
		{"from empty", raw{"GET", "/v1/explain/orders?from=", "", ""}, api.CodeInvalidField, "from"},
		{"from with another zone", raw{"GET", "/v1/explain/orders?from=eu-west/a&zone=b", "", ""}, api.CodeInvalidField, "zone"},
		{"incarnation", raw{"DELETE", inst + "?incarnation=new", "", ""}, api.CodeInvalidField, "incarnation"},
		{"incarnation of an unset variable", raw{"DELETE", inst + "?incarnation=", "", ""}, api.CodeInvalidField, "incarnation"},
		{"incarnation stale", raw{"DELETE", inst + "?incarnation=4", "", ""}, api.CodeStaleIncarnation, ""},
		{"incarnation said twice", raw{"PUT", inst + "/heartbeat?incarnation=5", asked, `{"incarnation":6}`}, api.CodeInvalidField, "incarnation"},

		// Watch
		{"watch a wrong name", raw{"GET", "/v1/watch?service=a/b", "", ""}, api.CodeInvalidField, "service"},
		{"watch an empty name", raw{"GET", "/v1/watch?service=", "", ""}, api.CodeInvalidField, "service"},
		{"watch 257", raw{"GET", "/v1/watch?service=a" + strings.Repeat("&service=a", 256), "", ""}, api.CodeInvalidField, "service"},
		{"watch from", raw{"GET", "/v1/watch?from=42", "", ""}, api.CodeInvalidField, "from"},
		{"watch last event", raw{"GET", "/v1/watch", "Last-Event-ID: us-east/42", ""}, api.CodeInvalidField, "Last-Event-ID"},
		{"watch far", raw{"GET", "/v1/watch?far=yes", "", ""}, api.CodeInvalidField, "far"},
		{"watch services", raw{"GET", "/v1/watch?services=a", "", ""}, api.CodeUnknownParameter, "services"},
		{"post a watch", raw{"POST", "/v1/watch", asked, "{}"}, api.CodeMethodNotAllowed, ""},

		// Bodies
		{"no body", raw{"PUT", inst, asked, ""}, api.CodeInvalidRequest, ""},
		{"cut off", body(`{"address":"10.0.0.1"`), api.CodeInvalidRequest, ""},
		{"not JSON", body(`address=10.0.0.1`), api.CodeInvalidRequest, ""},
		{"two values", body(good + good), api.CodeInvalidRequest, ""},
		{"list", body(`[` + good + `]`), api.CodeInvalidField, ""},
		{"null", body(`null`), api.CodeInvalidField, "address"},
		{"word", body(`"hello"`), api.CodeInvalidField, ""},
		{"deep", body(strings.Repeat("[", 20_000)), api.CodeInvalidRequest, ""},
		{"unknown field", body(`{"address":"10.0.0.1","port":1,"prot":2}`), api.CodeUnknownField, "prot"},
		{"empty object", body(`{}`), api.CodeInvalidField, "address"},
		{"port as text", body(`{"address":"10.0.0.1","port":"8080"}`), api.CodeInvalidField, "port"},
		{"port 0", body(`{"address":"10.0.0.1"}`), api.CodeInvalidField, "port"},
		{"port 65536", body(`{"address":"10.0.0.1","port":65536}`), api.CodeInvalidField, "port"},
		{"port 1.5", body(`{"address":"10.0.0.1","port":1.5}`), api.CodeInvalidField, "port"},
		{"address with a scheme", body(`{"address":"http://a","port":1}`), api.CodeInvalidField, "address"},
		{"ttl word", body(`{"address":"10.0.0.1","port":1,"ttl":"soon"}`), api.CodeInvalidField, ""},
		{"ttl of a month", body(`{"address":"10.0.0.1","port":1,"ttl":"720h"}`), api.CodeInvalidField, "ttl"},
		{"check field", body(`{"address":"10.0.0.1","port":1,"checks":[{"kind":"http","path":"x"}]}`), api.CodeInvalidField, "checks[0].path"},
		{"check port", body(`{"address":"10.0.0.1","port":1,"checks":[{"kind":"http","port":true}]}`), api.CodeInvalidField, "checks.port"},
		{"incarnation below zero", body(`{"address":"10.0.0.1","port":1,"incarnation":-1}`), api.CodeInvalidField, "incarnation"},
		{"stale registration", body(`{"address":"10.0.0.1","port":1,"incarnation":4}`), api.CodeStaleIncarnation, ""},
		{"too large", body(big), api.CodeBodyTooLarge, ""},
		{"too large in chunks", raw{"PUT", inst, asked + "\nTransfer-Encoding: chunked", ""}, api.CodeBodyTooLarge, ""}, // body: below
		{"status word", raw{"PUT", inst + "/status", asked, `{"status":"up"}`}, api.CodeInvalidField, "status"},
		{"status without a body", raw{"PUT", inst + "/status", asked, ""}, api.CodeInvalidRequest, ""},
		{"long note", raw{"PUT", inst + "/status", asked, `{"status":"warning","note":"` + strings.Repeat("n", 300) + `"}`}, api.CodeInvalidField, "note"},
		{"drain in percent", raw{"PUT", inst + "/drain", asked, `{"percent":50}`}, api.CodeUnknownField, "percent"},
		{"drain of nobody", raw{"PUT", inst + "0/drain", "", ""}, api.CodeInstanceNotFound, ""},
		{"heartbeat with more", raw{"PUT", inst + "/heartbeat", asked, `{"status":"passing"}`}, api.CodeUnknownField, "status"},
		{"body on a get", raw{"GET", "/v1/services", asked, `{}`}, api.CodeInvalidRequest, ""},
		{"body on a delete", raw{"DELETE", inst, asked, `{"incarnation":1}`}, api.CodeInvalidRequest, ""},

		// Batches: what is wrong with the request as a whole
		{"batch that is a list", raw{"POST", "/v1/batch/register", asked, "[]"}, api.CodeInvalidField, "body"},
		{"batch without a body", raw{"POST", "/v1/batch/register", "", ""}, api.CodeInvalidRequest, ""},
		{"batch without its list", raw{"POST", "/v1/batch/register", asked, "{}"}, api.CodeInvalidField, "instances"},
		{"batch of the other kind", raw{"POST", "/v1/batch/heartbeats", asked, `{"instances":[]}`}, api.CodeUnknownField, "instances"},
		{"cut batch", raw{"POST", "/v1/batch/heartbeats", asked, `{"heartbeats":[{"service":"orders","id":"or`}, api.CodeInvalidRequest, ""},
		{"two batches", raw{"POST", "/v1/batch/heartbeats", asked, `{"heartbeats":[]}{"heartbeats":[]}`}, api.CodeInvalidRequest, ""},
		{"batch of too many", raw{"POST", "/v1/batch/heartbeats", asked, `{"heartbeats":[` + strings.Repeat("{},", 1000) + `{}]}`}, api.CodeInvalidField, "heartbeats"},
		{"batch of too many bytes", raw{"POST", "/v1/batch/register", asked, `{"instances":[` + strings.Repeat(" ", 1<<20) + `]}`}, api.CodeBodyTooLarge, ""},
		{"batch as a form", raw{"POST", "/v1/batch/heartbeats", "Content-Type: text/plain", `{"heartbeats":[]}`}, api.CodeUnsupportedMedia, ""},
		{"batch with parameters", raw{"POST", "/v1/batch/register?zone=a", asked, `{"instances":[]}`}, api.CodeUnknownParameter, "zone"},
		{"batch by get", raw{"GET", "/v1/batch/register", "", ""}, api.CodeMethodNotAllowed, ""},
		{"foreign page sends a batch", raw{"POST", "/v1/batch/register", asked + "\nOrigin: http://evil.example", `{"instances":[]}`}, api.CodeForbidden, ""},

		// Media types
		{"curl -d", raw{"PUT", inst, "Content-Type: application/x-www-form-urlencoded", good}, api.CodeUnsupportedMedia, ""},
		{"text", raw{"PUT", inst, "Content-Type: text/plain", good}, api.CodeUnsupportedMedia, ""},
		{"multipart", raw{"PUT", inst, "Content-Type: multipart/form-data; boundary=x", good}, api.CodeUnsupportedMedia, ""},
		{"heartbeat as a form", raw{"PUT", inst + "/heartbeat", "Content-Type: application/x-www-form-urlencoded", "incarnation=5"}, api.CodeUnsupportedMedia, ""},
		{"broken type", raw{"PUT", inst, "Content-Type: application/json;;=", good}, api.CodeUnsupportedMedia, ""},
		{"json as image", raw{"PUT", inst, "Content-Type: image/x+json", good}, api.CodeUnsupportedMedia, ""},
		{"packed", raw{"PUT", inst, asked + "\nContent-Encoding: gzip", good}, api.CodeUnsupportedMedia, ""},

		// Who asks
		{"basic authorization", raw{"GET", "/v1/services", "Authorization: Basic dXNlcjpwYXNz", ""}, api.CodeUnauthorized, ""},
		{"empty bearer", raw{"GET", "/v1/services", "Authorization: Bearer ", ""}, api.CodeUnauthorized, ""},
		{"rebinding", raw{"GET", "/v1/services", "Host: evil.example", ""}, api.CodeForbidden, ""},
		{"rebinding of health", raw{"GET", "/readyz", "Host: evil.example:7400", ""}, api.CodeForbidden, ""},
		{"rebinding by absolute path", raw{"GET", "http://evil.example/v1/services", "", ""}, api.CodeForbidden, ""},
		{"host below an address", raw{"GET", "/v1/services", "Host: 127.0.0.1.evil.example", ""}, api.CodeForbidden, ""},
		{"foreign page writes", raw{"PUT", inst, asked + "\nOrigin: http://evil.example", good}, api.CodeForbidden, ""},
		{"foreign page beats", raw{"PUT", inst + "/heartbeat", "Origin: https://127.0.0.1:7401", ""}, api.CodeForbidden, ""},
		{"foreign page deletes", raw{"DELETE", inst, "Origin: null", ""}, api.CodeForbidden, ""},
		{"foreign page by fetch metadata", raw{"DELETE", inst, "Sec-Fetch-Site: cross-site", ""}, api.CodeForbidden, ""},

		// What this version does not have
		{"policies", raw{"GET", "/v1/policies/orders", "", ""}, api.CodeNotFound, ""},
		{"what-if of a region in capitals", raw{"GET", "/v1/whatif?lose=EU", "", ""}, api.CodeInvalidField, "lose"},
		{"what-if of a zone as a region", raw{"GET", "/v1/whatif?lose=eu-west/a", "", ""}, api.CodeInvalidField, "lose"},
		{"what-if of a zone without its region", raw{"GET", "/v1/whatif?lose_zone=a", "", ""}, api.CodeInvalidField, "lose_zone"},
		{"what-if of half a link", raw{"GET", "/v1/whatif?lose_link=eu-west~", "", ""}, api.CodeInvalidField, "lose_link"},
		{"what-if of a link to itself", raw{"GET", "/v1/whatif?lose_link=eu-west~eu-west", "", ""}, api.CodeInvalidField, "lose_link"},
		{"what-if of a service", raw{"GET", "/v1/whatif?lose=eu-west&service=A", "", ""}, api.CodeInvalidField, "service"},
		{"what-if from nowhere", raw{"GET", "/v1/whatif?lose=eu-west&from=a/b/c", "", ""}, api.CodeInvalidField, "from"},
		{"what-if from two places", raw{"GET", "/v1/whatif?lose=eu-west&from=a&from=b", "", ""}, api.CodeInvalidRequest, "from"},
		{"what-if with a fail_on", raw{"GET", "/v1/whatif?lose=eu-west&fail_on=down", "", ""}, api.CodeUnknownParameter, "fail_on"},
		{"events since never", raw{"GET", "/v1/events?since=yesterday", "", ""}, api.CodeInvalidField, "since"},
		{"events since nothing", raw{"GET", "/v1/events?since=", "", ""}, api.CodeInvalidField, "since"},
		{"events since the future", raw{"GET", "/v1/events?since=-5m", "", ""}, api.CodeInvalidField, "since"},
		{"events of no kind", raw{"GET", "/v1/events?kind=evict,explode", "", ""}, api.CodeInvalidField, "kind"},
		{"events of no subject", raw{"GET", "/v1/events?subject=a%20b", "", ""}, api.CodeInvalidField, "subject"},
		{"events of a long subject", raw{"GET", "/v1/events?subject=" + strings.Repeat("a/", 200) + "b", "", ""}, api.CodeInvalidField, "subject"},
		{"events beyond the limit", raw{"GET", "/v1/events?limit=1001", "", ""}, api.CodeInvalidField, "limit"},
		{"a page of a stream", raw{"GET", "/v1/events?follow=true&limit=5", "", ""}, api.CodeInvalidField, "limit"},
		{"events after no event", raw{"GET", "/v1/events?follow=true", "Last-Event-ID: us-east/1-2/3", ""}, api.CodeInvalidField, "Last-Event-ID"},
		{"events of no namespace", raw{"GET", "/v1/events?ns=Shop", "", ""}, api.CodeInvalidField, "ns"},
		{"an event by itself", raw{"GET", "/v1/events/7", "", ""}, api.CodeNotFound, ""},
		{"region drain", raw{"PUT", "/v1/regions/eu-west/drain", asked, "{}"}, api.CodeNotFound, ""},
		{"dashboard", raw{"GET", "/ui/", "", ""}, api.CodeNotFound, ""},
	}
	if len(tests) < 60 {
		t.Fatalf("only %d wrong requests", len(tests))
	}
	f := newFake()
	h, log := testDoor(t, f, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if strings.HasSuffix(tt.name, "in chunks") {
				tt.q.header += "\n\n" + fmt.Sprintf("%x\n%s\n0\n", len(big), big)
			}
			w := tt.q.do(t, h)
			p := problemOf(t, w)
			if p.Code != tt.code {
				t.Errorf("code %s, want %s: %s", p.Code, tt.code, w.Body)
			}
			if tt.field != "" && p.Field != tt.field {
				t.Errorf("field %q, want %q: %s", p.Field, tt.field, w.Body)
			}
			if w.Code >= 500 {
				t.Errorf("a wrong request was answered with %d: %s", w.Code, w.Body)
			}
			if w.Code == 405 && !strings.Contains(w.Header().Get("Allow"), "OPTIONS") {
				t.Errorf("405 without Allow: %v", w.Header())
			}
		})
	}
	// Nothing of this is worth a line in an operator's log.
	if s := log.String(); s != "" {
		t.Errorf("wrong requests were logged: %s", s)
	}
}

func TestUnknownParameterListsTheKnownOnes(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	p := problemOf(t, raw{"GET", "/v1/resolve/orders?zon=a", "", ""}.do(t, h))
	if !strings.Contains(p.Detail, `"zon"`) || !strings.Contains(p.Remedy, "zone, limit, policy, ns, consistency, min_revision") {
		t.Errorf("%+v", p)
	}
}

func TestAbsentSurfacesSaySo(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	for method, target := range map[string]string{"GET": "/ui/a%22%0A", "PUT": "/eureka/apps"} {
		p := problemOf(t, raw{method, target, "", ""}.do(t, h))
		path, _ := url.PathUnescape(target)
		if !strings.Contains(p.Detail, strconv.Quote(path)+" is not in this version") {
			t.Errorf("%s: %+v", target, p)
		}
	}
}

func TestHeadOfAWrongRequestHasItsStatus(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	for target, status := range map[string]int{
		"/v1/resolve/UP": 422, "/v1/none": 404, "/v1/services?x=1": 400, "/v1/watch?far=1": 422, inst + "/status": 405,
	} {
		if w := (raw{"HEAD", target, "", ""}).do(t, h); w.Code != status {
			t.Errorf("HEAD %s: %d, want %d", target, w.Code, status)
		}
	}
}

func TestOptionsAnswersWithoutCORS(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	q := raw{"OPTIONS", inst, "Origin: http://evil.example\nAccess-Control-Request-Method: PUT", ""}
	w := q.do(t, h)
	if w.Code != 204 || !strings.Contains(w.Header().Get("Allow"), "PUT") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	for k := range w.Header() {
		if strings.HasPrefix(k, "Access-Control") {
			t.Errorf("header %s", k)
		}
	}
}
