package mesh

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/nearside/nearside/sdk/api"
)

// metrics registers the observable instruments: they cost nothing until someone reads them.
func (m *Mesh) metrics() (unregister func(), err error) {
	provider := m.cfg.MeterProvider
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/nearside/nearside/federation")
	m.canaryMetric, err = meter.Float64Histogram("nearside.federation.canary", metric.WithUnit("s"),
		metric.WithDescription("Time from a moment in the peer's region to everything older being visible here: an upper bound, at most one round trip too high."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30))
	errs := []error{err}
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
	double := gauge("nearside.federation.duplicate", "1", "1 while another region with the name of the peer is met, and refused, 0 otherwise.")
	relayed := gauge("nearside.federation.relayed", "{relay}", "Through how many other regions the peer's rows come; 0 = from the peer itself.")
	held := gauge("nearside.federation.replica.held", "{service}", "Services kept although the peer no longer has them, after it lost many at once.")
	in := counter("nearside.federation.received", "By", "Bytes received from the peer.")
	frames := counter("nearside.federation.frames", "{frame}", "Frames received from the peer.")
	snapshots := counter("nearside.federation.snapshots", "{snapshot}", "Whole snapshots applied.")
	refused := counter("nearside.federation.refused", "{frame}", "Frames and rows of the peer that were not applied, by reason.")
	out := counter("nearside.federation.sent", "By", "Bytes sent to readers of a region.")
	turned := counter("nearside.federation.readers_refused", "{request}", "Requests of readers that did not prove to be the region that they said, by cause.")
	readers := gauge("nearside.federation.readers", "{stream}", "Open streams of readers in other regions.")
	word := gauge("nearside.federation.reader.word_age", "s", "Time since a reader on an open stream last said where it stands. High while the stream is open: what is sent there does not arrive, or its answers do not.")
	readerAge := gauge("nearside.federation.reader.age", "s", "How old a reader takes its knowledge of this region to be.")
	unused := gauge("nearside.federation.reader.quarantined", "{row}", "Rows of this region that a reader does not use.")
	unheard := counter("nearside.federation.unheard", "{ack}", "Words to the peer of where we stand that did not arrive.")
	state := gauge("nearside.federation.replica.state", "1", "State of what is known of the peer by age: 0 fresh, 1 stale, 2 suspect, 3 expired.")
	behind := gauge("nearside.federation.replica.behind", "s", "How long the oldest change that the peer announced has waited to be applied.")
	badRows := gauge("nearside.federation.replica.quarantined", "{row}", "Rows of the peer whose newest form is not used.")
	isDown := gauge("nearside.federation.region.down", "1", "1 while enough regions and its endpoints agree that the peer's region is down. Unreachable alone is not down.")
	probes := counter("nearside.federation.probes", "{probe}", "Connections to endpoints of a region that cannot be reached, by outcome.")
	readerCanary := gauge("nearside.federation.reader.canary", "s", "Time from a moment here to a reader having everything older, and its word of that: an upper bound by our own clock.")
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	observe := func(_ context.Context, o metric.Observer) error {
		now := time.Now()
		for _, l := range m.all() {
			s := l.state.Load()
			v := &s.view
			with := metric.WithAttributes(attribute.String("peer", string(l.peer)))
			connected := 0.0
			if s.connected {
				connected = 1
			}
			o.ObserveFloat64(up, connected, with)
			two, depth := 0.0, 0.0
			if l.doubles.known() != nil {
				two = 1
			}
			if s.via != "" {
				depth = float64(v.Depth)
			}
			o.ObserveFloat64(double, two, with)
			o.ObserveFloat64(relayed, depth, with)
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
			o.ObserveInt64(unheard, int64(l.unheard.Load()), with)
			o.ObserveFloat64(state, stateNumber(v.Origin(now).State), with)
			o.ObserveFloat64(badRows, float64(v.Quarantined), with)
			waited, fell := 0.0, 0.0
			if !s.behind.IsZero() {
				waited = now.Sub(s.behind).Seconds()
			}
			if d := l.verdict.Load(); d != nil && d.Down {
				fell = 1
			}
			o.ObserveFloat64(behind, waited, with)
			o.ObserveFloat64(isDown, fell, with)
			for outcome, n := range map[string]uint64{"answered": l.probeCounts.answered.Load(), "failed": l.probeCounts.failed.Load()} {
				o.ObserveInt64(probes, int64(n), metric.WithAttributes(
					attribute.String("peer", string(l.peer)), attribute.String("outcome", outcome)))
			}
			for why, n := range v.Refused {
				o.ObserveInt64(refused, int64(n), metric.WithAttributes(
					attribute.String("peer", string(l.peer)), attribute.String("reason", string(why))))
			}
		}
		for _, x := range m.server.Words() {
			with := metric.WithAttributes(attribute.String("reader", string(x.Reader)))
			o.ObserveFloat64(word, x.Age.Seconds(), with)
			o.ObserveFloat64(readerAge, float64(x.AgeMS)/1000, with)
			o.ObserveFloat64(unused, float64(x.Quarantined), with)
			if x.Canary > 0 {
				o.ObserveFloat64(readerCanary, x.Canary.Seconds(), with)
			}
		}
		for region, n := range m.server.BytesOut() {
			o.ObserveInt64(out, int64(n), metric.WithAttributes(attribute.String("reader", string(region))))
		}
		for cause, n := range m.refusals.counts() {
			o.ObserveInt64(turned, int64(n), metric.WithAttributes(attribute.String("reason", cause)))
		}
		o.ObserveFloat64(readers, float64(len(m.server.Readers())))
		return nil
	}
	reg, err := meter.RegisterCallback(observe, up, double, relayed, age, lag, rtt, services, held, in, frames, snapshots, refused, out, readers, word, readerAge, unused, unheard,
		state, behind, badRows, isDown, probes, readerCanary, turned)
	if err != nil {
		return nil, err
	}
	return func() { _ = reg.Unregister() }, nil
}

// stateNumber orders the states of age.
func stateNumber(s api.AgeState) float64 {
	switch s {
	case api.AgeFresh:
		return 0
	case api.AgeStale:
		return 1
	case api.AgeSuspect:
		return 2
	}
	return 3
}
