package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/sdktest"
)

// twoRegions are eu-west and us-east, linked: real ones, or those of sdk/sdktest.
type twoRegions interface {
	url(region api.Region) string
	restart(region api.Region) // what is stored is kept
	wipe(region api.Region)    // nothing is kept
}

type pretended struct{ *sdktest.World }

func (p pretended) url(r api.Region) string { return p.Region(r).URL() }
func (p pretended) restart(r api.Region)    { p.Region(r).Kill(); p.Region(r).Heal() }
func (p pretended) wipe(r api.Region)       { p.Region(r).Wipe() }

type actual struct {
	t     *testing.T
	cfg   map[api.Region]Config
	nodes map[api.Region]*running
}

func (a *actual) url(r api.Region) string { return a.nodes[r].ready.HTTP }

func (a *actual) restart(r api.Region) {
	a.t.Helper()
	if err := a.nodes[r].stop(); err != nil {
		a.t.Fatal(err)
	}
	cfg := a.cfg[r]
	cfg.DataDir, cfg.HTTPAddr, cfg.FederationAddr = a.nodes[r].dir, a.nodes[r].ready.HTTPAddr, a.nodes[r].ready.FederationAddr
	a.nodes[r] = start(a.t, cfg)
}

func (a *actual) wipe(r api.Region) {
	a.t.Helper()
	if err := a.nodes[r].stop(); err != nil {
		a.t.Fatal(err)
	}
	if err := os.RemoveAll(a.nodes[r].dir); err != nil {
		a.t.Fatal(err)
	}
	a.restart(r)
}

// freeAddr returns an address where nobody listens at the moment.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func startActual(t *testing.T) *actual {
	a := &actual{t: t, cfg: map[api.Region]Config{}, nodes: map[api.Region]*running{}}
	doors := map[api.Region]string{}
	for _, r := range []api.Region{"eu-west", "us-east"} {
		doors[r] = freeAddr(t)
	}
	for r, other := range map[api.Region]api.Region{"eu-west": "us-east", "us-east": "eu-west"} {
		a.cfg[r] = Config{
			Region: r, Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: doors[r],
			Peers: map[api.Region][]string{other: {"http://" + doors[other]}},
		}
		a.nodes[r] = start(t, a.cfg[r])
	}
	return a
}

// story is what is done to two regions, and what they said.
type story struct {
	t     *testing.T
	in    twoRegions
	http  *http.Client
	lines []string
}

// request sends one request, and notes the answer without what two regions can not have alike.
func (s *story) request(region api.Region, method, path, body string) []byte {
	s.t.Helper()
	head, b := s.send(region, method, path, body)
	s.lines = append(s.lines, fmt.Sprintf("%s %s %s %s\n\t-> %s %s", region, method, path, body, head, alike(b)))
	return b
}

func (s *story) send(region api.Region, method, path, body string) (head string, answer []byte) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.in.url(region)+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.Header.Get(api.HeaderRequestID) == "" {
		s.t.Errorf("%s %s: no request id", method, path)
	}
	return fmt.Sprintf("%d %s %s/%s", resp.StatusCode, resp.Header.Get("Content-Type"), resp.Header.Get(api.HeaderRegion), resp.Header.Get(api.HeaderSource)), b
}

// until asks until the answer has a text: the news of another region takes a moment.
func (s *story) until(region api.Region, path, has string) {
	s.t.Helper()
	within(s.t, 20*time.Second, path+" tells "+has, func() error {
		if _, b := s.send(region, "GET", path, ""); !bytes.Contains(b, []byte(has)) {
			return fmt.Errorf("%s", b)
		}
		return nil
	})
}

// unlike are fields whose values differ from run to run, and those that sdktest does not have.
var unlike = []string{
	"request_id", "type", "registered_at", "status_since", "time", "started", "at", "age_ms", "rtt_ms", "addresses", "actor", "epoch", "revision",
	"remedy", "why", "warning", // words for people
	"protection", "checks", "liveness", "nodes", "spec_hash", "verdict", // nobody judges or checks in sdktest
}

// alike returns a body without them.
func alike(b []byte) string {
	var v any
	if len(b) == 0 || json.Unmarshal(b, &v) != nil {
		return string(b)
	}
	var strip func(v any)
	strip = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, name := range unlike {
				delete(v, name)
			}
			if _, decision := v["tiers"]; decision && v["id"] != nil {
				v["id"] = "some" // it is made of versions, which two regions do not share
			}
			if code, ok := v["code"].(string); ok && (code == string(api.CodeNotFound) || code == string(api.CodeUnknownParameter) || code == string(api.CodeConflict)) {
				delete(v, "detail") // says what there is
			}
			for _, x := range v {
				strip(x)
			}
		case []any:
			for _, x := range v {
				strip(x)
			}
		}
	}
	strip(v)
	out, _ := json.Marshal(v)
	return string(out)
}

// stream is a watch that is open.
type stream struct {
	s      *story
	lines  *bufio.Scanner
	cancel context.CancelFunc
	at     api.Version
	rows   map[string]string // of other regions and policies, as they were told last
}

func (s *story) watch(region api.Region, query string) *stream {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 60*time.Second)
	s.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", s.in.url(region)+api.PathWatch+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Fatalf("watch: %d %v", resp.StatusCode, resp.Header)
	}
	w := &stream{s: s, lines: bufio.NewScanner(resp.Body), cancel: cancel, rows: map[string]string{}}
	w.lines.Buffer(nil, 1<<20)
	return w
}

// until reads, and notes, frames up to one of a kind that has a text. Replicas and policies are
// put aside, the last of each: which of them are told together is a matter of time.
func (w *stream) until(kind, has string) {
	w.s.t.Helper()
	event, id := "", ""
	for w.lines.Scan() {
		line := w.lines.Text()
		switch field, value, _ := strings.Cut(line, ": "); field {
		case "event":
			event = value
		case "id":
			id = value
		case "data":
			if w.take(event, id, value) && event == kind && strings.Contains(value, has) {
				return
			}
			id = ""
		}
	}
	w.s.t.Fatalf("the watch ended before a %s with %q: %v", kind, has, w.lines.Err())
}

func (w *stream) take(event, id, data string) bool {
	w.s.t.Helper()
	var f api.Frame
	if err := json.Unmarshal([]byte(data), &f); err != nil {
		w.s.t.Fatal(err)
	}
	if f.Version.Epoch == w.at.Epoch && f.Version.Revision < w.at.Revision {
		w.s.t.Errorf("P4: %s after %s", f.Version, w.at)
	}
	w.at = f.Version
	safe := event == "synced" || event == "bookmark" || event == "change" && !f.More
	if (id == f.Version.String()) != safe {
		w.s.t.Errorf("a %s of %s has the id %q", event, f.Version, id)
	}
	switch event {
	case "bookmark":
		return true
	case "replica":
		var sum map[string]any
		b, _ := json.Marshal(f.Summary)
		_ = json.Unmarshal([]byte(alike(b)), &sum)
		b, _ = json.Marshal(sum)
		w.rows[fmt.Sprint("replica ", f.Origin.Region, " ", f.Service)] = string(b)
		return true
	case "policy":
		b, _ := json.Marshal(f.Policy)
		w.rows["policy "+string(f.Service)] = string(b)
		return true
	case "reset":
		w.s.lines = append(w.s.lines, "  reset")
		return true
	}
	if event == "synced" {
		data = "{}" // who else there is, is told by resolve
	}
	w.s.lines = append(w.s.lines, "  "+event+" "+alike([]byte(data)))
	return true
}

// news notes what was put aside.
func (w *stream) news() {
	for _, k := range slices.Sorted(maps.Keys(w.rows)) {
		w.s.lines = append(w.s.lines, "  "+k+" "+w.rows[k])
	}
	clear(w.rows)
}

// tell is the story: everything that a client does, and what it does wrong.
func (s *story) tell() {
	const (
		eu, us = api.Region("eu-west"), api.Region("us-east")
		orders = "/v1/services/orders/instances/orders-1"
		body   = `{"address":"10.0.0.7","port":8080,"zone":"a","incarnation":7,"tags":["blue"],"metadata":{"k":"v"},"ports":{"grpc":9090},"capacity":50,"version":"1.2"}`
	)
	s.request(eu, "GET", "/v1/resolve/orders", "")
	s.request(eu, "GET", "/v1/services", "")
	w := s.watch(eu, "?service=orders&service=payments&far=true")
	w.until("synced", "")

	// Registering, refreshing, fencing.
	s.request(eu, "PUT", orders, body)
	s.request(eu, "PUT", orders, body)
	s.request(eu, "GET", orders, "")
	s.request(eu, "PUT", orders, strings.Replace(body, ":7,", ":6,", 1))
	s.request(eu, "PUT", orders, strings.Replace(body, `"a"`, `"b"`, 1))
	s.request(eu, "PUT", orders, strings.Replace(body, `"incarnation":7,`, "", 1))
	for _, hb := range []string{"", `{"incarnation":7}`, `{"incarnation":6}`, `{"incarnation":8}`, `{"incarnation":7,"load":40}`, `{"lod":1}`} {
		s.request(eu, "PUT", orders+"/heartbeat", hb)
	}
	s.request(eu, "PUT", orders+"/heartbeat?incarnation=6", "")
	s.request(eu, "PUT", orders+"/heartbeat?incarnation=7", `{"incarnation":6}`)
	s.request(eu, "PUT", "/v1/services/orders/instances/nobody/heartbeat", "")

	// Statuses and drains.
	for _, c := range []string{`{"status":"warning","note":"slow"}`, `{"status":"warning","note":"slow"}`, `{"status":"good"}`, `{"status":"critical","incarnation":6}`, `{}`} {
		s.request(eu, "PUT", orders+"/status", c)
	}
	s.request(eu, "PUT", orders+"/drain", `{"note":"deploy"}`)
	s.request(eu, "PUT", orders, body)
	s.request(eu, "DELETE", orders+"/drain", "")
	s.request(eu, "DELETE", orders+"/drain", "")
	s.request(eu, "PUT", orders+"/drain", "")
	s.request(eu, "PUT", orders, strings.Replace(strings.Replace(body, ":7,", ":8,", 1), `"port":8080`, `"port":8080,"status":"starting"`, 1))
	s.request(eu, "PUT", orders+"/status", `{"status":"passing"}`)
	s.request(eu, "PUT", orders, strings.Replace(body, ":7,", ":8,", 1))
	s.request(eu, "PUT", "/v1/services/orders/instances/nobody/status", `{"status":"passing"}`)
	w.until("change", `"status":"passing"`)

	// What it says of its load is told in the answers from here on.
	s.request(eu, "PUT", orders+"/heartbeat", `{"load":40}`)
	s.until(eu, "/v1/resolve/orders", `"loads":{"eu-west":40}`)

	// What is wrong with a request.
	for _, bad := range []string{
		"", "{", "[]", `{"address":"10.0.0.7"}`, `{"address":"0.0.0.0","port":1}`, `{"address":"http://a","port":1}`, `{"address":"a","port":70000}`,
		`{"address":"a","port":1,"wieght":3}`, `{"address":"a","port":1,"weight":-1}`, `{"address":"a","port":"1"}`, `{"address":"a","port":1,"ttl":"1ms"}`,
		`{"address":"a","port":1,"status":"draining"}`, `{"address":"a","port":1,"zone":"A"}`, `{"address":"a","port":1,"tags":[""]}`, `{"address":"a","port":1} {}`,
		`{"address":"a","port":1,"checks":[{"kind":"ftp"}]}`, `{"address":"a","address":"b","port":1}`,
	} {
		s.request(eu, "PUT", "/v1/services/orders/instances/bad", bad)
	}
	for _, path := range []string{
		"/v1/services/Orders/instances/a", "/v1/services/orders/instances/a%20b", "/v1/services/orders/instances/a?ns=Shop", "/v1/services/orders/instances/a?consistency=some",
		"/v1/services/orders/instances/a?color=red", "/v1/services/orders/instances/a?ns=a&ns=b", "/v1/services/orders/instances?zone=A", "/v1/services/orders/instances?status=good",
		"/v1/services/nobody/instances", "/v1/resolve/nobody", "/v1/resolve/Orders", "/v1/resolve/orders?limit=0", "/v1/explain/orders?from=nowhere", "/v1/explain/orders?from=A",
		"/v1/regions/nowhere", "/v1/regions/nowhere/drain", "/v1/policies/orders", "/v1/nothing", "/v1/watch?from=somewhere", "/v1/watch?service=A", "/v1/watch?bookmark=1ms", "/v1/watch?far=maybe",
	} {
		s.request(eu, "GET", path, "")
	}
	s.request(eu, "POST", orders, "")

	// Several instances and regions.
	s.request(eu, "PUT", "/v1/services/orders/instances/orders-2", `{"address":"10.0.0.8","port":8080,"zone":"b","weight":50}`)
	s.request(us, "PUT", "/v1/services/orders/instances/orders-9", `{"address":"10.1.0.9","port":8080}`)
	s.request(us, "PUT", "/v1/services/payments/instances/payments-1", `{"address":"10.1.0.1","port":8080,"status":"starting"}`)
	s.request(us, "PUT", "/v1/services/payments/instances/payments-2", `{"address":"10.1.0.2","port":8080}`)
	s.request(us, "PUT", "/v1/services/payments/instances/payments-2/drain", "")
	s.request(us, "PUT", "/v1/services/stock/instances/stock-1?ns=shop", `{"address":"10.1.0.3","port":8080}`)
	s.until(eu, "/v1/resolve/orders", "orders-9")
	s.until(eu, "/v1/resolve/payments", `"draining"`)
	s.until(eu, "/v1/resolve/stock?ns=shop", "stock-1")
	for _, path := range []string{
		"/v1/services", "/v1/services?ns=shop", "/v1/services/orders/instances", "/v1/services/orders/instances?zone=b", "/v1/services/orders/instances?tag=blue&status=passing,warning",
		"/v1/services/payments/instances", "/v1/resolve/orders", "/v1/resolve/orders?zone=b", "/v1/resolve/orders?limit=1", "/v1/resolve/payments", "/v1/resolve/stock?ns=shop",
		"/v1/explain/orders?zone=a", "/v1/explain/orders?from=us-east", "/v1/explain/payments", "/v1/regions", "/v1/regions/us-east",
	} {
		s.request(eu, "GET", path, "")
	}

	// Policies and drains of regions.
	s.request(eu, "PUT", "/v1/policies/orders", `{"allowed":["us-east"],"note":"residency"}`)
	s.request(eu, "PUT", "/v1/policies/orders", `{"allowed":["us-east"],"note":"residency"}`)
	s.request(eu, "PUT", "/v1/policies/*", `{"min_healthy":50,"order":["us-east"]}`)
	w.until("policy", `"service":"payments"`)
	w.news()
	s.request(eu, "PUT", "/v1/policies/payments", `{"order":["us-east"],"order_by":"rtt"}`)
	s.request(eu, "PUT", "/v1/policies/payments", `{"min_healthy":200}`)
	s.request(eu, "PUT", "/v1/policies/payments", `{"allowed":["mars"]}`)
	s.request(eu, "PUT", "/v1/policies/payments?if_revision=1", `{"local_only":true}`)
	for _, path := range []string{"/v1/policies", "/v1/policies?effective=true", "/v1/policies/orders", "/v1/policies/orders?effective=true", "/v1/policies/stock?effective=true", "/v1/resolve/orders"} {
		s.request(eu, "GET", path, "")
	}
	s.request(eu, "DELETE", "/v1/policies/*", "")
	w.until("policy", `"service":"payments"`)
	w.news()
	s.request(eu, "DELETE", "/v1/policies/orders", "")
	w.until("policy", `"service":"orders"`)
	w.news()
	s.request(eu, "DELETE", "/v1/policies/orders", "")
	s.request(eu, "PUT", "/v1/regions/eu-west/drain", `{"percent":100,"note":"rehearsal"}`)
	s.request(eu, "GET", "/v1/resolve/orders", "")
	s.request(eu, "GET", "/v1/regions/eu-west/drain", "")
	s.until(us, "/v1/regions/eu-west", `"drained":100`)
	s.request(us, "GET", "/v1/regions/eu-west/drain", "")
	s.request(eu, "DELETE", "/v1/regions/eu-west/drain", "")
	s.request(eu, "PUT", "/v1/regions/us-east/drain", `{}`)
	s.request(eu, "PUT", "/v1/regions/us-east/drain", `{"percent":101}`)
	s.request(eu, "GET", "/v1/resolve/orders", "")

	// Goodbyes, and the whole of it as a watcher saw it.
	s.request(eu, "DELETE", orders+"?incarnation=7", "")
	s.request(eu, "DELETE", orders, "")
	s.request(eu, "DELETE", orders, "")
	w.until("change", `"delete"`)
	w.news()

	// A restart keeps everything, and a watch goes on where it was.
	w.cancel()
	s.in.restart(eu)
	s.request(eu, "GET", "/v1/services/orders/instances", "")
	s.until(eu, "/v1/resolve/orders", "orders-9") // the link is back
	w2 := s.watch(eu, "?service=orders&far=true&from="+w.at.String())
	w2.until("synced", "")
	w2.news()
	w2.cancel()

	// An empty disk is a new history.
	s.in.wipe(eu)
	s.request(eu, "PUT", "/v1/services/orders/instances/orders-2/heartbeat", "")
	s.request(eu, "PUT", "/v1/services/orders/instances/orders-2", `{"address":"10.0.0.8","port":8080,"zone":"b","weight":50}`)
	w3 := s.watch(eu, "?service=orders&from="+w.at.String())
	w3.until("synced", "")
	if w3.at.Epoch == w.at.Epoch {
		s.t.Errorf("the epoch of an empty disk is %s, as before", w.at.Epoch)
	}
}

// The regions of sdk/sdktest say what real ones say: the same story is told to both, and every
// answer and every frame of a watch is compared. What may differ is in unlike, and in the
// documentation of sdktest.
func TestSdktestAnswersAsARealRegion(t *testing.T) {
	told := map[string][]string{}
	for name, in := range map[string]twoRegions{
		"sdktest": pretended{sdktest.NewWorld(t, "eu-west", "us-east")}, "nodes": startActual(t),
	} {
		s := &story{t: t, in: in, http: &http.Client{Transport: &http.Transport{}}}
		t.Cleanup(s.http.CloseIdleConnections)
		s.until("eu-west", "/v1/regions", `"connected"`)
		s.until("us-east", "/v1/regions", `"connected"`)
		s.tell()
		told[name] = s.lines
	}
	a, b := told["sdktest"], told["nodes"]
	if len(a) < 120 {
		t.Errorf("the story has %d lines only", len(a))
	}
	for i, shown := 0, 0; i < min(len(a), len(b)) && shown < 20; i++ {
		if a[i] != b[i] {
			t.Errorf("line %d\nsdktest: %s\nnodes:   %s", i, a[i], b[i])
			shown++
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d and %d lines", len(a), len(b))
	}
	t.Logf("%d answers and frames compared", len(a))
}
