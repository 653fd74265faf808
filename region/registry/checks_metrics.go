package registry

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/sdk/api"
)

// observe publishes the metrics of checks until the returned function is called.
func (c *checker) observe() (stop func(), err error) {
	m := c.reg.cfg.MeterProvider.Meter("github.com/nearside/nearside/region/registry")
	runs, err1 := m.Int64ObservableCounter("nearside.registry.checks.runs", metric.WithUnit("{run}"), metric.WithDescription("Checks run, by outcome; unknown ones could not be carried out and are discarded."))
	checks, err2 := m.Int64ObservableGauge("nearside.registry.checks", metric.WithUnit("{check}"), metric.WithDescription("Checks of this node, by status."))
	lag, err3 := m.Float64ObservableGauge("nearside.registry.checks.lag", metric.WithUnit("s"), metric.WithDescription("How late checks begin: 99th percentile of the last few thousand."))
	doubt, err4 := m.Int64ObservableGauge("nearside.registry.checks.suspended", metric.WithUnit("1"), metric.WithDescription("1 while this node suspects itself and makes no status worse."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, fmt.Errorf("check metrics: %w", err)
	}
	outcomes := map[check.Outcome]metric.MeasurementOption{}
	for o, name := range map[check.Outcome]string{check.Unknown: "unknown", check.Success: "success", check.Failure: "failure"} {
		outcomes[o] = metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", name)))
	}
	status := map[api.Status]metric.MeasurementOption{}
	for _, s := range api.Statuses {
		status[s] = metric.WithAttributeSet(attribute.NewSet(attribute.String("status", string(s))))
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for outcome, attr := range outcomes {
			o.ObserveInt64(runs, c.counts[outcome].Load(), attr)
		}
		info := c.info()
		for s, attr := range status {
			o.ObserveInt64(checks, int64(info.Statuses[s]), attr)
		}
		o.ObserveFloat64(lag, c.rounds.Lag().P99.Seconds())
		o.ObserveInt64(doubt, zeroOne(info.Suspended))
		return nil
	}, runs, checks, lag, doubt)
	if err != nil {
		return nil, fmt.Errorf("check metrics: %w", err)
	}
	return func() { _ = reg.Unregister() }, nil
}
