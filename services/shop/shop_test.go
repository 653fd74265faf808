package shop

import (
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The storefront composes what the other four know, and says where it was served.
func TestStorefrontComposes(t *testing.T) {
	n := newTown(t)
	ready, _ := open(t, n, Config{})
	front := "http://" + ready.Services[Storefront].Addr

	a := ask(t, n, "GET", front+"/?user=u-2", nil)
	if h := decode[home](t, a); a.status != 200 || h.User.ID != "u-2" || len(h.Products) != seedProducts {
		t.Errorf("home: %d %s", a.status, a.body)
	}
	if got := a.header.Get(HeaderInstance); got != "storefront-a-eu-west" {
		t.Errorf("%s = %q", HeaderInstance, got)
	}
	if a.header.Get(HeaderRegion) != "eu-west" || a.header.Get(HeaderPaymentsRegion) != "" {
		t.Errorf("home: headers %v", a.header)
	}
	if p := decode[product](t, ask(t, n, "GET", front+"/products/sku-3", nil)); p.ID != "sku-3" || p.Price <= 0 {
		t.Errorf("product: %+v", p)
	}
	if b := decode[bill](t, ask(t, n, "GET", front+"/cart/u-1", nil)); len(b.Lines) != 2 || b.Goods != b.Lines[0].Total+b.Lines[1].Total {
		t.Errorf("cart: %+v", b)
	}

	a = ask(t, n, "GET", front+"/quote?user=u-1&items=sku-1:2,sku-7", nil)
	q := decode[quote](t, a)
	if len(q.Lines) != 2 || q.Lines[0].Quantity != 2 || q.Fee != feeFor(q.Goods) || q.Total != q.Goods+q.Fee {
		t.Errorf("quote: %+v", q)
	}
	if a.header.Get(HeaderPaymentsRegion) != "eu-west" {
		t.Errorf("quote: headers %v", a.header)
	}

	buy := basket{User: "u-1", Items: []item{{"sku-1", 2}, {"sku-7", 1}}}
	a = ask(t, n, "POST", front+"/checkout", buy, HeaderIdempotencyKey, "k-1")
	o := decode[order](t, a)
	if a.status != http.StatusCreated || o.Total != q.Total || o.Charge == "" || o.PaymentsRegion != "eu-west" {
		t.Errorf("checkout: %d %+v", a.status, o)
	}
	if a.header.Get(HeaderPaymentsRegion) != "eu-west" {
		t.Errorf("checkout: headers %v", a.header)
	}
	if got := decode[order](t, ask(t, n, "GET", front+"/orders/"+o.ID, nil)); got.Charge != o.Charge {
		t.Errorf("order: %+v, want %+v", got, o)
	}
}

// A purchase repeated with its key buys once; the key can't buy another thing.
func TestCheckoutIsIdempotent(t *testing.T) {
	n := newTown(t)
	ready, _ := open(t, n, Config{})
	front := "http://" + ready.Services[Storefront].Addr
	buy := basket{User: "u-1", Items: []item{{"sku-1", 2}}}

	first := decode[order](t, ask(t, n, "POST", front+"/checkout", buy, HeaderIdempotencyKey, "k"))
	again := ask(t, n, "POST", front+"/checkout", buy, HeaderIdempotencyKey, "k")
	if got := decode[order](t, again); got.ID != first.ID || got.Charge != first.Charge {
		t.Errorf("repeated: %+v, want %+v", got, first)
	}
	if again.header.Get(HeaderPaymentsRegion) == "" {
		t.Error("a repeated checkout does not say where payments was served")
	}
	buy.Items[0].Quantity = 3
	a := ask(t, n, "POST", front+"/checkout", buy, HeaderIdempotencyKey, "k")
	if a.status != http.StatusConflict || a.problem(t).Error != errConflict {
		t.Errorf("key of another purchase: %d %s", a.status, a.body)
	}
	other := decode[order](t, ask(t, n, "POST", front+"/checkout", buy, HeaderIdempotencyKey, "k2"))
	if other.ID == first.ID {
		t.Error("another key gave the same order")
	}
}

// Everything wrong is answered as JSON, with a status that blames the right side.
func TestWrongRequests(t *testing.T) {
	n := newTown(t)
	ready, _ := open(t, n, Config{})
	front := "http://" + ready.Services[Storefront].Addr
	pay := "http://" + ready.Services[Payments].Addr
	good := `{"user":"u-1","items":[{"product":"sku-1","quantity":1}]}`
	key := []string{HeaderIdempotencyKey, "k"}
	for _, c := range []struct {
		name, method, url, body string
		header                  []string
		want                    int
	}{
		{"unknown path", "GET", front + "/nowhere", "", nil, 404},
		{"unknown method", "DELETE", front + "/quote", "", nil, 405},
		{"unknown product", "GET", front + "/products/sku-99", "", nil, 404},
		{"product that climbs", "GET", front + "/products/%2e%2e", "", nil, 404},
		{"product with a slash", "GET", front + "/products/a%2Fb", "", nil, 404},
		{"unknown user", "GET", front + "/?user=u-99", "", nil, 404},
		{"user that climbs", "GET", front + "/?user=..", "", nil, 400},
		{"user with a question mark", "GET", front + "/cart/u-1%3Fx", "", nil, 400},
		{"unknown order", "GET", front + "/orders/o-1", "", nil, 404},
		{"quote of nothing", "GET", front + "/quote?user=u-1", "", nil, 400},
		{"quote of a bad quantity", "GET", front + "/quote?user=u-1&items=sku-1:x", "", nil, 400},
		{"quote of too many", "GET", front + "/quote?user=u-1&items=sku-1:100", "", nil, 400},
		{"quote twice of one", "GET", front + "/quote?user=u-1&items=sku-1,sku-1", "", nil, 400},
		{"quote of many products", "GET", front + "/quote?user=u-1&items=" + strings.Repeat("a,", 500), "", nil, 400},
		{"quote of an unknown product", "GET", front + "/quote?user=u-1&items=sku-99", "", nil, 404},
		{"checkout without key", "POST", front + "/checkout", good, nil, 400},
		{"checkout with a long key", "POST", front + "/checkout", good, []string{HeaderIdempotencyKey, strings.Repeat("k", 200)}, 400},
		{"checkout without body", "POST", front + "/checkout", "", key, 400},
		{"checkout with half a body", "POST", front + "/checkout", good[:20], key, 400},
		{"checkout with two bodies", "POST", front + "/checkout", good + good, key, 400},
		{"checkout with an unknown field", "POST", front + "/checkout", `{"usr":"u-1"}`, key, 400},
		{"checkout with too much", "POST", front + "/checkout", `{"user":"` + strings.Repeat("u", maxRequestBody) + `"}`, key, 413},
		{"checkout as a form", "POST", front + "/checkout", good, append(key, "Content-Type", "text/plain"), 415},
		{"checkout of an unknown user", "POST", front + "/checkout", strings.Replace(good, "u-1", "u-99", 1), key, 404},
		{"fee of nothing", "GET", pay + "/fees?amount=0", "", nil, 400},
		{"fee of too much", "GET", pay + "/fees?amount=99999999999999999999", "", nil, 400},
		{"charge without key", "POST", pay + "/charges", "{}", nil, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := ask(t, n, c.method, c.url, c.body, c.header...)
			if a.status != c.want {
				t.Fatalf("status %d, want %d: %s", a.status, c.want, a.body)
			}
			if p := a.problem(t); p.Error == "" || p.Detail == "" {
				t.Errorf("body %s", a.body)
			}
			if a.header.Get(HeaderRegion) == "" {
				t.Error("does not say who answered")
			}
		})
	}
	if a := ask(t, n, "DELETE", front+"/quote", nil); a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow = %q", a.header.Get("Allow"))
	}
}

// A service that is missing shows as 502 with its name, not as an empty or partial page.
func TestMissingServiceIsNamed(t *testing.T) {
	n := newTown(t)
	ready, _ := open(t, n, Config{Services: []string{Storefront, Catalog, Orders, Users}})
	if _, ok := ready.Services[Payments]; ok {
		t.Fatal("payments runs")
	}
	a := ask(t, n, "GET", "http://"+ready.Services[Orders].Addr+"/quote?user=u-1&items=sku-1", nil)
	if p := a.problem(t); a.status != 502 || p.Service != Payments || p.Error != errDownstream {
		t.Errorf("orders: %d %+v", a.status, p)
	}
	a = ask(t, n, "GET", "http://"+ready.Services[Storefront].Addr+"/quote?user=u-1&items=sku-1", nil)
	if p := a.problem(t); a.status != 502 || p.Service != Orders || !strings.Contains(p.Detail, Payments) {
		t.Errorf("storefront: %d %+v", a.status, p)
	}
	for _, path := range []string{"/", "/products/sku-1", "/healthz", "/readyz"} {
		if a := ask(t, n, "GET", "http://"+ready.Services[Storefront].Addr+path, nil); a.status != 200 {
			t.Errorf("%s: %d, though payments isn't needed", path, a.status)
		}
	}
}

// Payments served elsewhere is said by everybody on the way.
func TestPaymentsFromAnotherRegion(t *testing.T) {
	n := newTown(t)
	near, _ := open(t, n, Config{Region: "ap-south", Services: []string{Storefront, Catalog, Orders, Users}})
	open(t, n, Config{Region: "us-east", Services: []string{Payments}})
	a := ask(t, n, "GET", "http://"+near.Services[Storefront].Addr+"/quote?user=u-1&items=sku-1", nil)
	if a.status != 200 || a.header.Get(HeaderRegion) != "ap-south" || a.header.Get(HeaderPaymentsRegion) != "us-east" {
		t.Errorf("%d %v", a.status, a.header)
	}
}

// One request is one trace across all the services that it touches.
func TestOneTraceAcrossServices(t *testing.T) {
	n := newTown(t)
	file := filepath.Join(t.TempDir(), "spans.ndjson")
	ready, stop := open(t, n, Config{TraceFile: file})
	front := "http://" + ready.Services[Storefront].Addr
	buy := basket{User: "u-1", Items: []item{{"sku-1", 2}}}
	const parent = "4bf92f3577b34da6a3ce929d0e0e4736"
	traces := map[string][]string{ // trace id -> services that must be in it
		ask(t, n, "GET", front+"/quote?user=u-1&items=sku-1", nil).header.Get(HeaderTrace): {Storefront, Orders, Catalog, Payments},
		ask(t, n, "POST", front+"/checkout", buy, HeaderIdempotencyKey, "k",
			"Traceparent", "00-"+parent+"-00f067aa0ba902b7-01").header.Get(HeaderTrace): {Storefront, Users, Orders, Catalog, Payments},
	}
	if _, ok := traces[parent]; !ok {
		t.Errorf("the shopper's own trace was not continued: %v", traces)
	}
	if len(traces) != 2 {
		t.Fatalf("traces %v", traces)
	}
	ask(t, n, "GET", front+"/healthz", nil)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	parents := map[string]bool{}
	for _, s := range readLines[spanLine](t, file) {
		parents[s.Span] = true
		if s.Kind == "server" && !slices.Contains(got[s.Trace], s.Service) {
			got[s.Trace] = append(got[s.Trace], s.Service)
		}
		if s.Service == Storefront && s.Kind == "server" && s.Name != "GET /quote" && s.Name != "POST /checkout" {
			t.Errorf("span %q is not named by its route", s.Name)
		}
		if s.Region != "eu-west" || s.Instance != s.Service+"-a-eu-west" {
			t.Errorf("span %+v does not say where it is from", s)
		}
	}
	for id, want := range traces {
		for _, service := range want {
			if !slices.Contains(got[id], service) {
				t.Errorf("trace %s has services %v, want %v", id, got[id], want)
			}
		}
	}
	for _, s := range readLines[spanLine](t, file) {
		if s.Parent != "" && s.Parent != "00f067aa0ba902b7" && !parents[s.Parent] {
			t.Errorf("span %s of %s hangs from an unknown one", s.Name, s.Service)
		}
	}
	if len(got) != 2 {
		t.Errorf("%d traces, want 2: health checks leave none", len(got))
	}
}

// A service that hangs is named in time: everybody on the way answers while the one
// before still waits.
func TestHungServiceIsNamedInTime(t *testing.T) {
	for _, pair := range [][2]string{{shopper, Storefront}, {Storefront, Orders}, {Orders, Payments}} {
		if before, behind := patienceOf(pair[0]), patienceOf(pair[1]); behind.answer >= before.attempt && pair[1] != Payments {
			t.Errorf("%s answers after %s, %s waits %s", pair[1], behind.answer, pair[0], before.attempt)
		}
	}
	n := newTown(t)
	hung, err := net.Listen("tcp", "127.0.0.1:0") // connects, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	n.places[Payments] = []instance{{service: Payments, address: "127.0.0.1", port: hung.Addr().(*net.TCPAddr).Port}}
	ready, _ := open(t, n, Config{Services: []string{Storefront, Catalog, Orders, Users}})
	begun := time.Now()
	a := ask(t, n, "GET", "http://"+ready.Services[Storefront].Addr+"/quote?user=u-1&items=sku-1", nil)
	if p := a.problem(t); a.status != 502 || !strings.Contains(p.Detail, Payments) {
		t.Errorf("%d %+v", a.status, p)
	}
	if took := time.Since(begun); took > patienceOf(shopper).attempt {
		t.Errorf("took %s", took)
	}
}
