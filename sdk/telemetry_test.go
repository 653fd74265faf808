package nearside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// kept is a log that keeps what it is told.
type kept struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (k *kept) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.Write(p)
}

func (k *kept) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.String()
}

// A call is a span, each of its attempts a client span within, by the conventions and with what was decided; the
// instance that is called gets the context of its own attempt.
func TestSpansOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, rec := newWorld(t, "us", "eu"), newRecorder()
		w.run("us", "payments", "a")
		served := w.run("eu", "payments", "b")
		c := w.client("us", rec.use)
		web := w.web(c)
		if r, _, _, err := get(t, web, "http://payments/warm"); r != "us" || err != nil {
			t.Fatal(r, err)
		}
		before, err := c.Resolve(t.Context(), "payments")
		if err != nil || len(before.Decision.ID) != 16 {
			t.Fatal(before.Decision, err)
		}
		rec.take(t)
		w.net.kill(w.addr("us", "payments", "a"))
		if r, _, _, err := get(t, web, "http://payments/v1/charges?card=4711#part"); r != "eu" || err != nil {
			t.Fatal(r, err)
		}
		spans, points := rec.take(t)
		if len(spans) != 3 {
			t.Fatalf("%d spans", len(spans))
		}
		call, first, second := spans[0], spans[1], spans[2]
		for _, x := range []struct {
			s    *recordedSpan
			name string
			kind trace.SpanKind
			code codes.Code
			want map[attribute.Key]string
		}{
			{call, "GET payments", trace.SpanKindInternal, codes.Unset, map[attribute.Key]string{
				"http.request.method": "GET", "http.response.status_code": "200", "error.type": "", "url.full": "",
				"nearside.service": "payments", "nearside.region": "eu", "nearside.attempts": "2", "nearside.outcome": "ok",
				"nearside.decision.id": before.Decision.ID, "nearside.reason": "same_region",
			}},
			{first, "GET", trace.SpanKindClient, codes.Error, map[attribute.Key]string{
				"http.request.method": "GET", "http.request.resend_count": "", "http.response.status_code": "", "error.type": "refused",
				"server.address": "a.payments.us", "server.port": "80", "url.scheme": "http", "url.full": "http://a.payments.us:80/v1/charges",
				"nearside.service": "payments", "nearside.region": "us", "nearside.instance": "a", "nearside.tier": "0", "nearside.attempt": "1",
				"nearside.decision.id": before.Decision.ID, "nearside.reason": "same_region",
			}},
			{second, "GET", trace.SpanKindClient, codes.Unset, map[attribute.Key]string{
				"http.request.method": "GET", "http.request.resend_count": "1", "http.response.status_code": "200", "error.type": "", "network.protocol.version": "1.1",
				"server.address": "b.payments.eu", "nearside.region": "eu", "nearside.instance": "b", "nearside.attempt": "2",
			}},
		} {
			if x.s.name != x.name || x.s.kind != x.kind || x.s.status != x.code || x.s.text != "" || len(x.s.events) > 0 {
				t.Errorf("span %q, kind %v, status %v %q, events %v; want %q, %v, %v", x.s.name, x.s.kind, x.s.status, x.s.text, x.s.events, x.name, x.kind, x.code)
			}
			for k, v := range x.want {
				if got := x.s.attr(k); got != v {
					t.Errorf("%s of %s is %q, want %q", k, x.name, got, v)
				}
			}
		}
		for _, s := range []*recordedSpan{first, second} {
			if s.parent.SpanID() != call.of.SpanID() {
				t.Error("an attempt is not within its call")
			}
			for _, k := range []attribute.Key{"http.request.method", "server.address", "server.port", "url.full"} {
				if !slices.ContainsFunc(s.given, func(kv attribute.KeyValue) bool { return kv.Key == k }) {
					t.Errorf("%s is not there at the start, where samplers look", k)
				}
			}
		}
		if got := served.last.Header.Get("Traceparent"); !strings.Contains(got, second.of.SpanID().String()) {
			t.Errorf("the instance was told the context %s, want that of span %s", got, second.of.SpanID())
		}
		if !slices.ContainsFunc(points, func(p point) bool {
			return p.name == "http.client.request.duration" && p.span.SpanID() == second.of.SpanID()
		}) {
			t.Error("the attempt's time was not measured within its span")
		}
	})
}

// What of an attempt is an error for spans and metrics, and what of a method is told.
func TestSpansByStatusAndMethod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, rec := newWorld(t, "us"), newRecorder()
		p := w.run("us", "orders", "a")
		web := w.web(w.client("us", rec.use))
		for _, x := range []struct {
			method, name, told, original string
			status                       int
			failed                       string
		}{
			{"GET", "GET", "GET", "", 204, ""},
			{"POST", "POST", "POST", "", 404, "404"},
			{"", "GET", "GET", "", 500, "500"},
			{"BREW", "HTTP", "_OTHER", "BREW", 418, "418"},
			{"get", "HTTP", "_OTHER", "get", 200, ""},
		} {
			p.set(func(p *program) { p.status = x.status })
			req, err := http.NewRequestWithContext(t.Context(), "GET", "http://orders/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Method = x.method
			resp, err := web.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			spans, _ := rec.take(t)
			if len(spans) != 2 {
				t.Fatalf("%s: %d spans", x.method, len(spans))
			}
			a := spans[1]
			if a.name != x.name || a.attr(attrMethod) != x.told || a.attr(attrMethodOriginal) != x.original || a.attr(attrError) != x.failed || (a.status == codes.Error) != (x.failed != "") {
				t.Errorf("%s, %d: span %s, %s (%s), error %q, status %v", x.method, x.status, a.name, a.attr(attrMethod), a.attr(attrMethodOriginal), a.attr(attrError), a.status)
			}
			if spans[0].attr(attrError) != x.failed {
				t.Errorf("%s, %d: the call's error is %q", x.method, x.status, spans[0].attr(attrError))
			}
		}
	})
}

// The names are those of the conventions that schemaURL says, and of the instruments that TELEMETRY.md lists.
func TestTelemetryByConvention(t *testing.T) {
	for ours, theirs := range map[attribute.Key]attribute.Key{
		attrMethod: semconv.HTTPRequestMethodKey, attrMethodOriginal: semconv.HTTPRequestMethodOriginalKey, attrResends: semconv.HTTPRequestResendCountKey,
		attrStatus: semconv.HTTPResponseStatusCodeKey, attrServer: semconv.ServerAddressKey, attrPort: semconv.ServerPortKey, attrURL: semconv.URLFullKey,
		attrScheme: semconv.URLSchemeKey, attrProtocol: semconv.NetworkProtocolVersionKey, attrError: semconv.ErrorTypeKey,
	} {
		if ours != theirs {
			t.Errorf("%s, the conventions say %s", ours, theirs)
		}
	}
	if schemaURL != semconv.SchemaURL {
		t.Errorf("%s, the conventions are %s", schemaURL, semconv.SchemaURL)
	}
	rec := newRecorder()
	cfg := Config{Addresses: []string{"http://10.0.0.1:7400"}}
	rec.use(&cfg)
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newTelemetry(cfg); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rec.schema, []string{schemaURL, schemaURL}) {
		t.Errorf("schemas %v", rec.schema)
	}
	if rec.names["http.client.request.duration"] != "s" || !slices.Equal(rec.bounds["http.client.request.duration"], []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}) {
		t.Errorf("the conventions advise other buckets than %v, in seconds, not %q", rec.bounds, rec.names["http.client.request.duration"])
	}
	b, err := os.ReadFile("TELEMETRY.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for name, unit := range rec.names {
		if !strings.Contains(doc, "| `"+name+"` | "+unit+" |") {
			t.Errorf("TELEMETRY.md does not list %s in %s", name, unit)
		}
	}
	for _, k := range []attribute.Key{
		attrMethod, attrMethodOriginal, attrResends, attrStatus, attrServer, attrPort, attrURL, attrScheme, attrProtocol, attrError, attrService, attrRegion, attrZone,
		attrInstance, attrTier, attrAttempt, attrAttempts, attrDecision, attrReason, attrOutcome, attrOp,
	} {
		if !strings.Contains(doc, "`"+string(k)+"`") {
			t.Errorf("TELEMETRY.md does not tell of %s", k)
		}
	}
}

// P8: what instances and callers are free to invent makes no series: 40 instances that are replaced, paths,
// methods, names of services that there are none of.
func TestMetricsAreOfBoundedCardinality(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, rec := newWorld(t, "us", "eu"), newRecorder()
		for i := range 20 {
			w.run("us", "orders", fmt.Sprint("a", i))
		}
		web := w.web(w.client("us", rec.use))
		for i := range 200 {
			if i == 100 {
				for n := range 20 { // a deployment
					w.run("us", "orders", fmt.Sprint("b", n))
					w.regions["us"].remove("orders", fmt.Sprint("a", n))
				}
				synctest.Wait()
			}
			req, err := http.NewRequestWithContext(t.Context(), []string{"GET", "BREW", "MELT"}[i%3], fmt.Sprintf("http://orders/%d?q=%d", i, i), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := web.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if i%10 == 0 {
				if _, err := web.Get(fmt.Sprintf("http://nobody-%d/", i)); err == nil {
					t.Fatal("there is no such service")
				}
			}
		}
		_, points := rec.take(t)
		each := sums(points, "http.client.request.duration")
		if len(each) != 2 { // GET and _OTHER
			t.Errorf("%d series of attempts: %v", len(each), each)
		}
		for set := range each {
			if !strings.Contains(set, "server.address=orders server.port=80 ") {
				t.Errorf("a series is of an instance: %s", set)
			}
		}
		if got, want := fmt.Sprint(sums(points, "nearside.client.requests")), "map[nearside.outcome=ok nearside.region=us nearside.service=orders:200 nearside.outcome=service_not_found:20]"; got != want {
			t.Errorf("calls %s\nwant  %s", got, want)
		}
		series := map[string]bool{}
		for _, p := range points {
			series[p.name+fmt.Sprint(p.attrs.ToSlice())] = true
		}
		if len(series) > 12 {
			t.Errorf("%d series: %v", len(series), series)
		}
	})
}

// The region that served dies: calls go another way, which is told once, in the log and as a metric, by somebody who
// holds no lock: a logger may well ask the client.
func TestTurnsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, rec, log := newWorld(t, "us", "eu"), newRecorder(), &kept{}
		w.run("us", "orders", "a")
		w.run("eu", "orders", "b")
		var c *Client
		asking := &asker{Handler: slog.NewTextHandler(log, nil), ask: func(ctx context.Context) {
			if c != nil {
				_, _ = c.Explain(ctx, "orders") // it takes the service's lock
			}
		}}
		c = w.client("us", func(cfg *Config) { rec.use(cfg); cfg.Logger = slog.New(asking) })
		web := w.web(c)
		for range 3 {
			if _, _, _, err := get(t, web, "http://orders/"); err != nil {
				t.Fatal(err)
			}
		}
		if strings.Contains(log.String(), "another way") {
			t.Fatalf("nothing moved: %s", log)
		}
		w.net.kill(w.addr("us", "orders", "a"))
		for range 3 {
			if _, _, _, err := get(t, web, "http://orders/"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		res, err := c.Resolve(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		want := `level=INFO msg="calls go another way" service=orders from=[us] to=[eu] reason=local_breaker_open detail="` + res.Decision.Detail + `" decision=` + res.Decision.ID
		if got := log.String(); strings.Count(got, "another way") != 1 || !strings.Contains(got, want) {
			t.Errorf("log\n%s\nwant once\n%s", got, want)
		}
		// There and back before anybody looked is no turn.
		s, a, err := c.current(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		s.turnLocked(a, &answer{})
		s.turnLocked(&answer{}, a)
		s.mu.Unlock()
		synctest.Wait()
		if got := log.String(); strings.Count(got, "another way") != 1 {
			t.Errorf("log\n%s", got)
		}
		_, points := rec.take(t)
		if got := fmt.Sprint(sums(points, "nearside.client.decision.changes")); got != "map[nearside.reason=local_breaker_open nearside.service=orders:1]" {
			t.Errorf("changes %s", got)
		}
	})
}

// asker is a log handler that does something of its own.
type asker struct {
	slog.Handler
	ask func(context.Context)
}

func (a *asker) Handle(ctx context.Context, r slog.Record) error {
	a.ask(ctx)
	return a.Handler.Handle(ctx, r)
}

// P12: no secret in spans, metrics and logs: the registry's token, what a request carries (user and password, query,
// headers), and errors of a base transport that tell them all.
func TestNoSecretIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, rec, log := newWorld(t, "us", "eu"), newRecorder(), &kept{}
		p := w.run("us", "orders", "a")
		c := w.client("us", func(cfg *Config) {
			rec.use(cfg)
			cfg.Token, cfg.SnapshotDir = "tok-s3cret", t.TempDir()
			cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
		})
		reg, err := c.Register(t.Context(), Registration{Service: "shop", ID: "s1", Address: "10.0.0.1", Port: 80})
		if err != nil {
			t.Fatal(err)
		}
		base := &telltale{w.net.transport(t)}
		web := &http.Client{Transport: c.Transport(base)}
		ask := func(method string) {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://user-s3cret:pass-s3cret@orders/x?key=query-s3cret#frag-s3cret", strings.NewReader("body-s3cret"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer head-s3cret")
			req.Header.Set("Cookie", "c=cookie-s3cret")
			if resp, err := web.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		}
		ask("POST")
		p.set(func(p *program) { p.status = http.StatusServiceUnavailable })
		ask("PUT")
		w.net.kill(w.addr("us", "orders", "a"))
		for range 4 {
			ask("PUT")
			ask("POST")
		}
		w.net.kill(w.regions["us"].addr) // the registry goes too: watches and heartbeats fail
		time.Sleep(time.Minute)
		_ = reg.Close(t.Context())
		_ = c.Close()
		told := rec.text() + log.String()
		if !strings.Contains(told, "refused") || !strings.Contains(told, "503") || !strings.Contains(told, "registry does not answer") {
			t.Fatalf("the failures of this test are not told:\n%s", told)
		}
		if i := strings.Index(told, "s3cret"); i >= 0 {
			t.Errorf("told …%s…", told[max(0, i-200):min(len(told), i+50)])
		}
	})
}

// telltale is a base transport whose errors tell the whole request.
type telltale struct{ http.RoundTripper }

func (t *telltale) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		err = fmt.Errorf("%s %s %v: %w", req.Method, req.URL, req.Header, err)
	}
	return resp, err
}

// A client without providers makes no spans and no attributes: a call costs no more than it did.
func TestTelemetryOffCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.run("us", "orders", "a")
		c := w.client("us", nil)
		if _, err := c.Pick(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
		s, a, err := c.current(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://orders/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		r := run{t: &transport{c: c}, s: s, req: req, start: time.Now()}
		resp, failed := &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1}, errors.New("no")
		if n := testing.AllocsPerRun(200, func() {
			ctx, call := r.begin(req.Context(), a)
			_, span := r.span(ctx, a.tiers[0].slots[0])
			r.endSpan(span, resp, nil)
			r.count(ctx, call, resp)
			c.tel.refused(ctx, failed)
		}); n > 0 {
			t.Errorf("%v allocations for nobody", n)
		}
	})
}
