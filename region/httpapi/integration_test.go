package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/kv"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/steering"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

var _ Registry = (*registry.Registry)(nil)

// A client's whole life against the real registry: register, list, resolve, watch, beat,
// change, read its writes, deregister.
func TestLifeOfAnInstanceOverHTTP(t *testing.T) {
	withRegion(t, func(t *testing.T, c *client) {
		const a, b = "/v1/services/orders/instances/a", "/v1/services/orders/instances/b"

		// P1: what was acknowledged is there, in a strong read and in a list.
		created := c.do(t, 201, "PUT", a, `{"address":"10.0.0.1","port":8080,"zone":"z1","incarnation":7}`)
		c.do(t, 200, "PUT", a, `{"address":"10.0.0.1","port":8080,"zone":"z1","incarnation":7}`)
		revision := created.header.Get(api.HeaderRevision)
		var inst api.Instance
		c.do(t, 200, "GET", a+"?consistency=strong&min_revision="+revision, "").into(t, &inst)
		if inst.Status != api.StatusPassing || inst.Incarnation != 7 || inst.Region != "us-east" {
			t.Errorf("%+v", inst)
		}
		var list api.InstanceList
		c.do(t, 200, "GET", "/v1/services/orders/instances?status=passing&zone=z1", "").into(t, &list)
		if len(list.Instances) != 1 || !list.Complete {
			t.Errorf("%+v", list)
		}
		var services api.ServiceList
		c.do(t, 200, "GET", "/v1/services", "").into(t, &services)
		if len(services.Services) != 1 || services.Services[0].Statuses[api.StatusPassing] != 1 {
			t.Errorf("%+v", services)
		}

		var res api.Resolution
		got := c.do(t, 200, "GET", "/v1/resolve/orders?zone=z1", "").into(t, &res)
		if len(res.Endpoints) != 1 || res.Decision.Reason != api.ReasonSameZone {
			t.Errorf("%+v", res)
		}
		checkStamp(t, got.header)
		var ex api.Explanation
		c.do(t, 200, "GET", "/v1/explain/orders?from=us-east/z1", "").into(t, &ex)
		if len(ex.Trace.Steps) == 0 || ex.From != "us-east/z1" {
			t.Errorf("%+v", ex)
		}

		// P5: a watch tells what is there, then each change.
		w := c.watch(t, "/v1/watch?service=orders")
		defer w.Close()
		w.expect(t, "item a", "synced")
		c.do(t, 201, "PUT", b, `{"address":"10.0.0.2","port":8080}`)
		w.expect(t, "change put b")
		c.do(t, 200, "PUT", a+"/drain", `{"note":"deploy"}`)
		w.expect(t, "change put a")
		// A drain is taken back; taking back none changes nothing, and nobody.
		c.do(t, 409, "DELETE", a+"/drain?incarnation=6", "")
		c.do(t, 200, "DELETE", a+"/drain?incarnation=7", "").into(t, &inst)
		w.expect(t, "change put a")
		undone := c.do(t, 200, "DELETE", a+"/drain", "").into(t, &inst)
		if inst.Status != api.StatusPassing || inst.StatusNote != "" || undone.header.Get(api.HeaderRevision) != strconv.FormatUint(inst.Revision, 10) {
			t.Errorf("%+v %v", inst, undone.header)
		}
		c.do(t, 404, "DELETE", a+"x/drain", "")
		c.do(t, 200, "PUT", a+"/status", `{"status":"critical","note":"by hand"}`)
		w.expect(t, "change put a")
		c.do(t, 200, "DELETE", a+"/drain", "").into(t, &inst)
		if inst.Status != api.StatusCritical || inst.StatusNote != "by hand" {
			t.Errorf("ending no drain changed %+v", inst)
		}
		resume := w.id

		var ack api.HeartbeatAck
		c.do(t, 200, "PUT", b+"/heartbeat", "").into(t, &ack)
		if ack.Status != api.StatusPassing || ack.Epoch.IsZero() {
			t.Errorf("%+v", ack)
		}
		// P9: an older incarnation is told so.
		for _, stale := range []struct{ method, path string }{{"PUT", a + "/heartbeat?incarnation=6"}, {"DELETE", a + "?incarnation=6"}} {
			var p api.Problem
			c.do(t, 409, stale.method, stale.path, "").into(t, &p)
			if p.Code != api.CodeStaleIncarnation || p.Incarnation != 7 {
				t.Errorf("%+v", p)
			}
		}
		c.do(t, 204, "DELETE", a+"?incarnation=7", "")
		w.expect(t, "change delete a")
		c.do(t, 404, "GET", a, "")

		// Resuming tells what was missed, and no more.
		again := c.watch(t, "/v1/watch?service=orders&from="+resume)
		defer again.Close()
		again.expect(t, "synced", "change delete a", "bookmark")

		for _, path := range []string{"/v1/regions", "/v1/regions/us-east", "/v1/federation", "/v1/limits", "/livez", "/readyz"} {
			c.do(t, 200, "GET", path, "")
		}
		c.do(t, 404, "GET", "/v1/resolve/nobody", "")
		c.do(t, 404, "GET", "/v1/regions/mars", "")
	})
}

// The registry refuses bad values in the terms of the request, whatever the door.
func TestWrongValuesReachTheCallerFromTheRealRegistry(t *testing.T) {
	withRegion(t, func(t *testing.T, c *client) {
		for body, code := range map[string]api.Code{
			`{"address":"","port":1}`:                                                api.CodeInvalidField,
			`{"address":"10.0.0.1","port":0}`:                                        api.CodeInvalidField,
			`{"address":"10.0.0.1","port":1,"zone":"Z 1"}`:                           api.CodeInvalidField,
			`{"address":"10.0.0.1","port":1,"ttl":"1ms"}`:                            api.CodeInvalidField,
			`{"address":"10.0.0.1","port":1,"checks":[{"kind":"grpc"}]}`:             api.CodeUnsupported,
			`{"address":"10.0.0.1","port":1,"metadata":{"a":"` + long(17000) + `"}}`: api.CodeInvalidField,
		} {
			var p api.Problem
			if got := c.do(t, code.HTTPStatus(), "PUT", inst, body).into(t, &p); p.Code != code {
				t.Errorf("%.60s: %s", body, got.body)
			}
		}
		var p api.Problem
		if c.do(t, 504, "GET", "/v1/services?min_revision=999999", "").into(t, &p); p.Code != api.CodeRevisionNotReached {
			t.Errorf("%+v", p)
		}
		c.do(t, 400, "GET", "/v1/services/orders/instances?cursor=!!", "")
	})
}

func long(n int) string { return strings.Repeat("x", n) }

// client speaks to a server over pipes.
type client struct {
	http *http.Client
}

// withRegion runs test inside a synctest bubble against a real registry over memory.
func withRegion(t *testing.T, test func(t *testing.T, c *client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		st, err := memstore.New("us-east")
		if err != nil {
			t.Fatal(err)
		}
		reg, err := registry.New(registry.Config{Region: "us-east", Zone: "z1", Node: "n1", Store: st})
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
		ran := make(chan error, 1)
		go func() { ran <- reg.Run(ctx) }()
		<-reg.Loaded()

		h, err := New(Config{Registry: reg, KV: keys, Steering: steer, Region: "us-east", Node: "n1", Closing: ctx})
		if err != nil {
			t.Fatal(err)
		}
		srv, p := Server(h), newPipes()
		served := make(chan error, 1)
		go func() { served <- srv.Serve(p) }()
		tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			p.conns <- far
			return near, nil
		}}
		test(t, &client{&http.Client{Transport: tr}})
		cancel()
		tr.CloseIdleConnections()
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
		if err := <-ran; err != nil {
			t.Errorf("registry: %v", err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
}

type reply struct {
	header http.Header
	body   []byte
}

func (c *client) do(t *testing.T, status int, method, path, body string) reply {
	t.Helper()
	req, err := http.NewRequest(method, "http://node"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Errorf("%s %s: %d, want %d: %s %v", method, path, resp.StatusCode, status, b, err)
	}
	return reply{resp.Header, b}
}

func (r reply) into(t *testing.T, v any) reply {
	t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Errorf("%v: %s", err, r.body)
	}
	return r
}

// watcher reads a watch.
type watcher struct {
	io.Closer
	lines *bufio.Scanner
	id    string // of the last frame that had one
}

func (c *client) watch(t *testing.T, path string) *watcher {
	t.Helper()
	resp, err := c.http.Get("http://node" + path)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	return &watcher{Closer: resp.Body, lines: bufio.NewScanner(resp.Body)}
}

// expect reads as many frames as are named: kind, operation and instance of each. Bookmarks
// are skipped unless they are named.
func (e *watcher) expect(t *testing.T, frames ...string) {
	t.Helper()
	begin := time.Now()
	for _, want := range frames {
		got := e.next(t)
		for got == "bookmark" && want != got {
			got = e.next(t)
		}
		if got != want {
			t.Fatalf("frame %q, want %q", got, want)
		}
	}
	if d := time.Since(begin); d > 2*api.BookmarkInterval {
		t.Errorf("%v came after %s", frames, d)
	}
}

func (e *watcher) next(t *testing.T) string {
	t.Helper()
	kind, id := "", ""
	var f api.Frame
	for e.lines.Scan() {
		name, value, _ := strings.Cut(e.lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			if err := json.Unmarshal([]byte(value), &f); err != nil {
				t.Fatal(err)
			}
		case "":
			if kind == "" {
				continue // after retry
			}
			if id != "" {
				e.id = id
			}
			s := []string{kind}
			if f.Op != "" {
				s = append(s, string(f.Op))
			}
			if f.Instance != nil {
				s = append(s, string(f.Instance.ID))
			}
			return strings.Join(s, " ")
		}
	}
	t.Fatalf("the stream ended: %v", e.lines.Err())
	return ""
}
