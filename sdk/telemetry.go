package nearside

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/nearside/nearside/sdk/api"
)

const instrumentation = "github.com/nearside/nearside/sdk"

// telemetry holds the instruments. Counters of calls are per call or attempt, never per
// Pick: a Pick must cost nothing.
type telemetry struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator

	requests, attempts, retries, failovers  metric.Int64Counter
	duration                                metric.Float64Histogram
	breakers, watches, losses, badSnapshots metric.Int64Counter
	heartbeats                              metric.Int64Counter
}

func newTelemetry(cfg Config) (*telemetry, error) {
	m := cfg.MeterProvider.Meter(instrumentation)
	t := &telemetry{tracer: cfg.TracerProvider.Tracer(instrumentation), propagator: cfg.Propagator}
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
	counter(&t.watches, "nearside.client.watch.opened", "{event}", "Watches asked for at registries.")
	counter(&t.losses, "nearside.client.watch.lost", "{event}", "Watches that ended without being asked to.")
	counter(&t.badSnapshots, "nearside.client.snapshot.errors", "{event}", "Snapshots that could not be read or written.")
	counter(&t.heartbeats, "nearside.client.heartbeats", "{request}", "Heartbeats and registrations sent, by outcome.")
	var err error
	t.duration, err = m.Float64Histogram("nearside.client.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time of calls through the transport to the headers of the answer, all attempts included."))
	errs = append(errs, err)
	return t, errors.Join(errs...)
}

func (c *Client) log() *slog.Logger { return c.cfg.Logger }

func (t *telemetry) breakerOpened(ctx context.Context, in *instance) {
	t.breakers.Add(ctx, 1, metric.WithAttributes(attribute.String("nearside.region", string(in.ref.Region))))
}
func (t *telemetry) watchOpened(ctx context.Context) { t.watches.Add(ctx, 1) }
func (t *telemetry) watchLost(ctx context.Context)   { t.losses.Add(ctx, 1) }

func (t *telemetry) snapshotFailed(ctx context.Context, op string) {
	t.badSnapshots.Add(ctx, 1, metric.WithAttributes(attribute.String("nearside.operation", op)))
}

func (t *telemetry) heartbeat(ctx context.Context, outcome string) {
	t.heartbeats.Add(ctx, 1, metric.WithAttributes(attribute.String("nearside.outcome", outcome)))
}

// called counts one call.
func (t *telemetry) called(ctx context.Context, service string, served api.Region, outcome string, attempts int, failover bool, took time.Duration) {
	set := metric.WithAttributeSet(attribute.NewSet(
		attribute.String("nearside.service", service),
		attribute.String("nearside.region", string(served)),
		attribute.String("nearside.outcome", outcome),
	))
	t.requests.Add(ctx, 1, set)
	t.duration.Record(ctx, took.Seconds(), set)
	name := metric.WithAttributeSet(attribute.NewSet(attribute.String("nearside.service", service)))
	t.attempts.Add(ctx, int64(attempts), name)
	if attempts > 1 {
		t.retries.Add(ctx, int64(attempts-1), name)
	}
	if failover {
		t.failovers.Add(ctx, 1, name)
	}
}
