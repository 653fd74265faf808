package httpapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

func TestNewNeedsARegistry(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("no error")
	}
}

func TestHostNamesThatAreServed(t *testing.T) {
	g := newGuard([]string{"node.example.org", "Other.Example.org:7400", ".inner.example.org", "*.pods.example.org"})
	for host, want := range map[string]bool{
		"": true, "localhost": true, "LOCALHOST:7400": true, "a.localhost": true, "127.0.0.1": true, "127.0.0.1:7400": true,
		"[::1]": true, "[::1]:7400": true, "10.1.2.3:7400": true, "registry-us-east:7400": true, "us_east_1": true,
		"node.example.org": true, "node.example.org.:7400": true, "other.example.org:1": true,
		"a.inner.example.org": true, "x.pods.example.org": true,
		"example.org": false, "inner.example.org": false, "evilinner.example.org": false, "node.example.org.evil.example": false,
		"evil.example": false, "127.0.0.1.evil.example": false, "127.1": false, "0x7f.1": false, "evil.example:127.0.0.1": false,
		"a b": false, "@": false,
	} {
		if got := g.allows(host); got != want {
			t.Errorf("host %q: %v, want %v", host, got, want)
		}
	}
	all := newGuard([]string{"*"})
	if !all.allows("evil.example") {
		t.Error(`"*" does not allow every name`)
	}
}

func TestSameOriginPagesMayWrite(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	for _, header := range []string{"Origin: http://127.0.0.1:7400", "Sec-Fetch-Site: same-origin"} {
		if w := (raw{"PUT", inst + "/heartbeat", header, ""}).do(t, h); w.Code != 200 {
			t.Errorf("%s: %d %s", header, w.Code, w.Body)
		}
	}
	// A read by a foreign page is answered, but nothing lets that page see the answer.
	w := raw{"GET", "/v1/services", "Origin: http://evil.example", ""}.do(t, h)
	if w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestRequestIDs(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	for given, kept := range map[string]bool{
		"abc-1.2_Z": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "a b": false, "<x>": false, "ö": false, "": false,
	} {
		w := raw{"GET", "/v1/limits", "X-Request-Id: " + given, ""}.do(t, h)
		if got := w.Header().Get(api.HeaderRequestID); (got == given) != kept || !saneRequestID(got) {
			t.Errorf("id %q was answered with %q", given, got)
		}
	}
	first := raw{"GET", "/v1/limits", "", ""}.do(t, h).Header().Get(api.HeaderRequestID)
	second := raw{"GET", "/v1/limits", "", ""}.do(t, h).Header().Get(api.HeaderRequestID)
	if first == second {
		t.Errorf("two requests have the id %s", first)
	}
}

// P12: the token reaches the registry and no log.
func TestTokenReachesTheRegistryOnly(t *testing.T) {
	f := newFake()
	f.failure = errors.New("disk on fire")
	h, log := testDoor(t, f, nil)
	w := raw{"GET", "/v1/services", "Authorization: bearer s3cret-token", ""}.do(t, h)
	access := registry.TokenAccess(sha256.Sum256([]byte("s3cret-token")))
	if err := access.Authorize(f.ctx, registry.Access{Verb: registry.VerbRead}); err != nil {
		t.Errorf("the registry did not get the token: %v", err)
	}
	if strings.Contains(log.String()+w.Body.String()+fmt.Sprint(w.Header()), "s3cret") {
		t.Errorf("the token was told: %s", log)
	}
}

func TestErrorsOfTheRegistryKeepTheirCode(t *testing.T) {
	for code, status := range api.Codes() {
		f := newFake()
		f.failure = fmt.Errorf("orders: %w", &api.Error{Code: code, Detail: "d", Remedy: "r", Incarnation: 9})
		h, log := testDoor(t, f, nil)
		w := raw{"GET", "/v1/services", "", ""}.do(t, h)
		if p := problemOf(t, w); p.Code != code || w.Code != status || p.Incarnation != 9 || p.Remedy != "r" {
			t.Errorf("%s: %+v", code, p)
		}
		if logged := strings.Contains(log.String(), "request_id="+w.Header().Get(api.HeaderRequestID)); logged != (status >= 500) {
			t.Errorf("%s: logged %v: %s", code, logged, log)
		}
		if after := w.Header().Get("Retry-After"); (after != "") != (status == 429 || status == 503) {
			t.Errorf("%s: Retry-After %q", code, after)
		}
	}
}

func TestInternalErrorsAreToldInTheLogOnly(t *testing.T) {
	f := newFake()
	f.failure = errors.New("disk on fire")
	h, log := testDoor(t, f, nil)
	p := problemOf(t, raw{"GET", "/v1/services", "", ""}.do(t, h))
	if p.Code != api.CodeInternal || strings.Contains(p.Detail, "disk") || !strings.Contains(log.String(), "disk on fire") {
		t.Errorf("%+v, log %s", p, log)
	}
	h, _ = testDoor(t, f, func(c *Config) { c.Dev = true })
	if p := problemOf(t, raw{"GET", "/v1/services", "", ""}.do(t, h)); !strings.Contains(p.Detail, "disk on fire") {
		t.Errorf("dev: %+v", p)
	}
}

func TestPanicsBecomeProblems(t *testing.T) {
	h, log := testDoor(t, panicking{newFake()}, nil)
	p := problemOf(t, raw{"GET", "/v1/limits", "", ""}.do(t, h))
	if p.Code != api.CodeInternal || !strings.Contains(log.String(), "boom") || !strings.Contains(log.String(), "request_id="+p.RequestID) {
		t.Errorf("%+v, log %s", p, log)
	}
}

type panicking struct{ *fake }

func (panicking) Limits() api.Limits { panic("boom") }

// A registry that hangs does not hang its callers.
func TestCallsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := testDoor(t, hanging{newFake()}, nil)
		begin := time.Now()
		p := problemOf(t, raw{"GET", "/v1/resolve/orders", "", ""}.do(t, h))
		if p.Code != api.CodeTimeout || time.Since(begin) != callTimeout {
			t.Errorf("%+v after %s", p, time.Since(begin))
		}
	})
}

type hanging struct{ *fake }

func (hanging) ResolveShared(ctx context.Context, _ registry.ResolveQuery) (*registry.Answer, []api.Origin, registry.Stamp, error) {
	<-ctx.Done()
	return nil, nil, registry.Stamp{}, fmt.Errorf("orders: %w", ctx.Err())
}

// Strangers choose paths and methods; they must not choose label values.
func TestMetricsNameRoutesAndNotPaths(t *testing.T) {
	mp := &meterSpy{seen: map[string]int{}}
	h, _ := testDoor(t, newFake(), func(c *Config) { c.MeterProvider = mp })
	for _, q := range []raw{
		{"GET", "/v1/resolve/orders", "", ""},
		{"GET", "/v1/resolve/users", "", ""},
		{"GET", "/v1/resolve/UP", "", ""},
		{"GET", "/v1/zzz-" + strings.Repeat("x", 99), "", ""},
		{"BREW", "/v1/limits", "", ""},
		{"GET", "/v1/limits", "Host: evil.example", ""},
		{"GET", "/v1/policies/secret", "", ""},
		{"GET", "/v1/kv/secret", "", ""},
		{"GET", "/v1/kv/a/b", "", ""},
	} {
		q.do(t, h)
	}
	want := map[string]int{"GET /v1/resolve/:service 2xx": 2, "GET /v1/resolve/:service 4xx": 1, "GET /v1/kv/* 4xx": 2, "GET /v1/policies/:service 4xx": 1, "other other 4xx": 3}
	if fmt.Sprint(mp.seen) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", mp.seen, want)
	}
}

// meterSpy counts what is recorded in the duration histogram, by labels.
type meterSpy struct {
	noop.MeterProvider
	seen map[string]int
}

func (s *meterSpy) Meter(string, ...metric.MeterOption) metric.Meter { return spyMeter{s: s} }

type spyMeter struct {
	noop.Meter
	s *meterSpy
}

func (m spyMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return spyHistogram{s: m.s}, nil
}

type spyHistogram struct {
	noop.Float64Histogram
	s *meterSpy
}

func (h spyHistogram) Record(_ context.Context, _ float64, opts ...metric.RecordOption) {
	set := metric.NewRecordConfig(opts).Attributes()
	get := func(k attribute.Key) string { v, _ := set.Value(k); return v.AsString() }
	h.s.seen[get("method")+" "+get("route")+" "+get("status")]++
}
