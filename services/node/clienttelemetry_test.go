package node

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/sdktest"
)

// A program with OpenTelemetry's own SDK and a Prometheus exporter: what sdk/TELEMETRY.md lists is there, by the names
// that Prometheus makes of it, in the advised buckets, and spans are within each other.
func TestClientTelemetryInAProgram(t *testing.T) {
	world := sdktest.NewWorld(t, "eu-west", "us-east")
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	near := world.Region("eu-west").Serve("orders", answer)
	world.Region("us-east").Serve("orders", answer)

	meters, err := newTelemetry()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = meters.Close(t.Context()) })
	spans := tracetest.NewSpanRecorder()
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	cfg := world.Region("eu-west").Config()
	cfg.MeterProvider, cfg.TracerProvider = meters.provider, tracers
	c, err := nearside.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	web := &http.Client{Transport: c.Transport(nil)}
	call := func(region string) {
		t.Helper()
		resp, err := web.Get("http://orders/v1?secret=4711")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get(nearside.HeaderServedRegion); got != region {
			t.Fatalf("served by %s, want %s", got, region)
		}
	}
	call("eu-west")
	near.Kill()
	web.CloseIdleConnections()
	call("us-east")

	page := httptest.NewRecorder()
	meters.handler.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := page.Body.String()
	for _, want := range []string{
		`http_client_request_duration_seconds_bucket{http_request_method="GET",http_response_status_code="200",`, `nearside_region="us-east",`,
		`server_address="orders",server_port="80",url_scheme="http",le="0.005"}`, `le="7.5"}`,
		`nearside_client_requests_total{nearside_outcome="ok",nearside_region="us-east",nearside_service="orders"} 1`,
		`nearside_client_failovers_total{nearside_service="orders"} 1`,
		`nearside_client_request_duration_seconds_count{nearside_outcome="ok",nearside_region="eu-west",nearside_service="orders"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "client_") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
	ended := spans.Ended()
	within := map[string]int{}
	for _, s := range ended {
		for _, kv := range s.Attributes() {
			if strings.Contains(kv.Value.String(), "4711") {
				t.Errorf("%s tells the query: %v", s.Name(), kv)
			}
		}
		if s.Name() == "GET" {
			within[s.Parent().SpanID().String()]++
		}
	}
	last := ended[len(ended)-1]
	set := attribute.NewSet(last.Attributes()...)
	attempts, _ := set.Value("nearside.attempts")
	if last.Name() != "GET orders" || int64(within[last.SpanContext().SpanID().String()]) != attempts.AsInt64() || attempts.AsInt64() < 2 {
		t.Errorf("the last span is %s of %d attempts, %d within: %v", last.Name(), attempts.AsInt64(), within[last.SpanContext().SpanID().String()], last.Attributes())
	}
}
