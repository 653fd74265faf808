package events

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// observe publishes the log's metrics until the returned function is called.
func (l *Log) observe() (stop func(), err error) {
	mp := l.cfg.MeterProvider
	if mp == nil {
		mp = noop.NewMeterProvider()
	}
	m := mp.Meter("github.com/nearside/nearside/region/events")
	dropped, err1 := m.Int64ObservableCounter("nearside.events.dropped", metric.WithUnit("{event}"),
		metric.WithDescription("Events that the log's queue had no room for."))
	bytes, err2 := m.Int64ObservableGauge("nearside.events.size", metric.WithUnit("By"),
		metric.WithDescription("Size of the event log on disk."))
	durable, err3 := m.Int64ObservableGauge("nearside.events.durable", metric.WithUnit("1"),
		metric.WithDescription("1 while the event log is written to disk."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("event log metrics: %w", err)
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		l.mu.RLock()
		total, up := size(l.segments), int64(0)
		if l.durable {
			up = 1
		}
		l.mu.RUnlock()
		o.ObserveInt64(dropped, int64(l.lost.Load()))
		o.ObserveInt64(bytes, total)
		o.ObserveInt64(durable, up)
		return nil
	}, dropped, bytes, durable)
	if err != nil {
		return nil, fmt.Errorf("event log metrics: %w", err)
	}
	return func() { _ = reg.Unregister() }, nil
}
