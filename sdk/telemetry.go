package nearside

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/nearside/nearside/sdk/api"
)

const instrumentation = "github.com/nearside/nearside/sdk"

// telemetry holds the instruments. Everything is per call, attempt or event, never per Pick: a
// Pick must cost nothing. TELEMETRY.md lists the names, units and attributes.
//
// No attribute takes a value that callers or instances are free to invent: services are those that were
// asked for and exist, regions and methods are few, and an instance's id or address is in spans only.
type telemetry struct {
	tracer     trace.Tracer
	tracing    bool // a TracerProvider was given
	propagator propagation.TextMapPropagator

	requests, attempts, retries, failovers  metric.Int64Counter
	duration, each                          metric.Float64Histogram
	breakers, watches, losses, badSnapshots metric.Int64Counter
	heartbeats, turns                       metric.Int64Counter
	outliers                                metric.Int64Counter
}

// durationBounds are the buckets that the semantic conventions advise for http.client.request.duration, in seconds.
var durationBounds = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}

func newTelemetry(cfg Config) (*telemetry, error) {
	m := cfg.MeterProvider.Meter(instrumentation, metric.WithSchemaURL(schemaURL))
	t := &telemetry{tracer: cfg.TracerProvider.Tracer(instrumentation, trace.WithSchemaURL(schemaURL)), propagator: cfg.Propagator}
	_, off := cfg.TracerProvider.(tracenoop.TracerProvider)
	t.tracing = !off
	var errs []error
	counter := func(into *metric.Int64Counter, name, unit, about string) {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(about))
		*into = c
		errs = append(errs, err)
	}
	counter(&t.requests, "nearside.client.requests", "{request}", "Calls through the transport, by outcome and by the region that served.")
	counter(&t.attempts, "nearside.client.attempts", "{attempt}", "Attempts of calls, the first one included.")
	counter(&t.retries, "nearside.client.retries", "{attempt}", "Attempts after the first one.")
	counter(&t.failovers, "nearside.client.failovers", "{request}", "Calls that another region served after the first choice failed.")
	counter(&t.breakers, "nearside.client.breaker.opened", "{event}", "Breakers of instances that opened.")
	counter(&t.turns, "nearside.client.decision.changes", "{event}", "Decisions that send the calls of a service to other regions than the one before, or for another reason.")
	counter(&t.outliers, "nearside.client.outliers.ejected", "{event}", "Instances left out because they failed more calls than their neighbours.")
	counter(&t.watches, "nearside.client.watch.opened", "{event}", "Watches asked for at registries.")
	counter(&t.losses, "nearside.client.watch.lost", "{event}", "Watches that ended without being asked to.")
	counter(&t.badSnapshots, "nearside.client.snapshot.errors", "{event}", "Snapshots that could not be read or written.")
	counter(&t.heartbeats, "nearside.client.heartbeats", "{request}", "Heartbeats and registrations sent, by outcome.")
	histogram := func(into *metric.Float64Histogram, name, about string) {
		h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(about), metric.WithExplicitBucketBoundaries(durationBounds...))
		*into = h
		errs = append(errs, err)
	}
	histogram(&t.duration, "nearside.client.request.duration", "Time of calls through the transport to the headers of the answer, all attempts included.")
	histogram(&t.each, "http.client.request.duration", "Duration of HTTP client requests: of single attempts, to the headers of the answer.")
	return t, errors.Join(errs...)
}

func (c *Client) log() *slog.Logger { return c.cfg.Logger }

func (t *telemetry) breakerOpened(ctx context.Context, in *instance) {
	t.breakers.Add(ctx, 1, metric.WithAttributes(attrRegion.String(string(in.ref.Region))))
}

func (t *telemetry) outlierEjected(ctx context.Context, in *instance) {
	t.outliers.Add(ctx, 1, metric.WithAttributes(attrRegion.String(string(in.ref.Region))))
}
func (t *telemetry) watchOpened(ctx context.Context) { t.watches.Add(ctx, 1) }
func (t *telemetry) watchLost(ctx context.Context)   { t.losses.Add(ctx, 1) }

func (t *telemetry) snapshotFailed(ctx context.Context, op string) {
	t.badSnapshots.Add(ctx, 1, metric.WithAttributes(attrOp.String(op)))
}

func (t *telemetry) heartbeat(ctx context.Context, outcome string) {
	t.heartbeats.Add(ctx, 1, metric.WithAttributes(attrOutcome.String(outcome)))
}

func (t *telemetry) turned(ctx context.Context, service string, reason api.Reason) {
	t.turns.Add(ctx, 1, metric.WithAttributes(attrService.String(service), attrReason.String(string(reason))))
}

// refused counts a call that was never attempted. The service stays out of it: whoever asks for names
// that there are none of would make a series of each.
func (t *telemetry) refused(ctx context.Context, err error) {
	if !t.requests.Enabled(ctx) {
		return
	}
	outcome := "error"
	var refusal *api.Error
	switch {
	case errors.Is(err, ErrNoInstances):
		outcome = "no_instances"
	case errors.Is(err, ErrUnreachable):
		outcome = "unreachable"
	case errors.Is(err, ErrClosed):
		outcome = "closed"
	case errors.As(err, &refusal):
		outcome = string(refusal.Code)
	case ctx.Err() != nil:
		outcome = kindGivenUp.String()
	}
	t.requests.Add(ctx, 1, metric.WithAttributes(attrOutcome.String(outcome)))
}

// called counts one call.
func (t *telemetry) called(ctx context.Context, service string, served api.Region, outcome string, attempts int, failover bool, took time.Duration) {
	if !t.requests.Enabled(ctx) && !t.duration.Enabled(ctx) {
		return
	}
	set := metric.WithAttributeSet(attribute.NewSet(
		attrService.String(service), attrRegion.String(string(served)), attrOutcome.String(outcome),
	))
	t.requests.Add(ctx, 1, set)
	t.duration.Record(ctx, took.Seconds(), set)
	name := metric.WithAttributeSet(attribute.NewSet(attrService.String(service)))
	t.attempts.Add(ctx, int64(attempts), name)
	if attempts > 1 {
		t.retries.Add(ctx, int64(attempts-1), name)
	}
	if failover {
		t.failovers.Add(ctx, 1, name)
	}
}

// sent measures one attempt. Its server.address is the name that the program called, and the port that belongs to
// that: instances come and go, and each would leave a series behind. They are in the spans.
func (t *telemetry) sent(r *run, span trace.Span, region api.Region, resp *http.Response, failed string, took time.Duration) {
	ctx := r.req.Context()
	if !t.each.Enabled(ctx) {
		return
	}
	port := 80
	if strings.EqualFold(r.req.URL.Scheme, "https") {
		port = 443
	}
	list := make([]attribute.KeyValue, 0, 8)
	list = append(list, attrMethod.String(knownMethod(r.req)), attrServer.String(r.s.label), attrPort.Int(port), attrScheme.String(scheme(r.req)),
		attrRegion.String(string(region)))
	if resp != nil {
		list = append(list, attrStatus.Int(resp.StatusCode))
		if v := protocol(resp); v != "" {
			list = append(list, attrProtocol.String(v))
		}
	}
	if failed != "" {
		list = append(list, attrError.String(failed))
	}
	ctx = trace.ContextWithSpan(ctx, span) // of the attempt, for exemplars
	t.each.Record(ctx, took.Seconds(), metric.WithAttributeSet(attribute.NewSet(list...)))
}
