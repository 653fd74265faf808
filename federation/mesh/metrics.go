package mesh

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// metrics registers the observable instruments: they cost nothing until someone reads them.
func (m *Mesh) metrics() (unregister func(), err error) {
	provider := m.cfg.MeterProvider
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/nearside/nearside/federation")
	var errs []error
	gauge := func(name, unit, help string) metric.Float64ObservableGauge {
		g, err := meter.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(help))
		errs = append(errs, err)
		return g
	}
	counter := func(name, unit, help string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
		errs = append(errs, err)
		return c
	}
	up := gauge("nearside.federation.link.up", "1", "1 while the link to the peer is connected, 0 while it is not.")
	age := gauge("nearside.federation.replica.age", "s", "Upper bound of the time since the peer confirmed what is known of it.")
	lag := gauge("nearside.federation.replica.lag", "{revision}", "Revisions that the peer is ahead of what was applied.")
	rtt := gauge("nearside.federation.link.rtt", "s", "Measured round trip to the peer's federation.")
	services := gauge("nearside.federation.replica.services", "{service}", "Services known of the peer.")
	held := gauge("nearside.federation.replica.held", "{service}", "Services kept although the peer no longer has them, after it lost many at once.")
	in := counter("nearside.federation.received", "By", "Bytes received from the peer.")
	frames := counter("nearside.federation.frames", "{frame}", "Frames received from the peer.")
	snapshots := counter("nearside.federation.snapshots", "{snapshot}", "Whole snapshots applied.")
	refused := counter("nearside.federation.refused", "{frame}", "Frames and rows of the peer that were not applied, by reason.")
	out := counter("nearside.federation.sent", "By", "Bytes sent to readers of a region.")
	readers := gauge("nearside.federation.readers", "{stream}", "Open streams of readers in other regions.")
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	observe := func(_ context.Context, o metric.Observer) error {
		now := time.Now()
		for _, l := range m.links {
			s := l.state.Load()
			v := &s.view
			with := metric.WithAttributes(attribute.String("peer", string(l.peer)))
			connected := 0.0
			if s.connected {
				connected = 1
			}
			o.ObserveFloat64(up, connected, with)
			o.ObserveFloat64(age, v.Age(now).Seconds(), with)
			if v.Head > v.Version.Revision {
				o.ObserveFloat64(lag, float64(v.Head-v.Version.Revision), with)
			} else {
				o.ObserveFloat64(lag, 0, with)
			}
			o.ObserveFloat64(rtt, v.RTT.Seconds(), with)
			o.ObserveFloat64(services, float64(v.Rows), with)
			o.ObserveFloat64(held, float64(v.Held), with)
			o.ObserveInt64(in, int64(l.bytes.Load()), with)
			o.ObserveInt64(frames, int64(l.frames.Load()), with)
			o.ObserveInt64(snapshots, int64(l.snapshots.Load()), with)
			for why, n := range v.Refused {
				o.ObserveInt64(refused, int64(n), metric.WithAttributes(
					attribute.String("peer", string(l.peer)), attribute.String("reason", string(why))))
			}
		}
		for region, n := range m.server.BytesOut() {
			o.ObserveInt64(out, int64(n), metric.WithAttributes(attribute.String("reader", string(region))))
		}
		o.ObserveFloat64(readers, float64(len(m.server.Readers())))
		return nil
	}
	reg, err := meter.RegisterCallback(observe, up, age, lag, rtt, services, held, in, frames, snapshots, refused, out, readers)
	if err != nil {
		return nil, err
	}
	return func() { _ = reg.Unregister() }, nil
}
