package registry

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/nearside/nearside/sdk/api"
)

// counters are counted on the hot path and read when metrics are collected: an atomic add
// costs a tenth of an instrument's.
type counters struct {
	created, changed, refreshed atomic.Int64
	deregistered                atomic.Int64
	heartbeats                  atomic.Int64
	evictions                   atomic.Int64
	protected, slow             atomic.Bool
	forwarded                   atomic.Int64
}

// observe publishes the registry's metrics until the returned function is called.
func (r *Registry) observe() (stop func(), err error) {
	m := r.cfg.MeterProvider.Meter("github.com/nearside/nearside/region/registry")
	var errs error
	counter := func(name, unit, help string) metric.Int64ObservableCounter {
		c, err := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
		errs = errors.Join(errs, err)
		return c
	}
	gauge := func(name, unit, help string) metric.Int64ObservableGauge {
		g, err := m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(help))
		errs = errors.Join(errs, err)
		return g
	}
	registrations := counter("nearside.registry.registrations", "{registration}", "Registrations accepted, by result.")
	deregistrations := counter("nearside.registry.deregistrations", "{deregistration}", "Instances removed on request.")
	heartbeats := counter("nearside.registry.heartbeats", "{heartbeat}", "Heartbeats acknowledged.")
	evictions := counter("nearside.registry.evictions", "{eviction}", "Instances whose heartbeats stopped for longer than their TTL.")
	protection := gauge("nearside.registry.protection", "1", "1 while the eviction brake holds instances.")
	slow := gauge("nearside.registry.slow", "1", "1 while this node is starved of processor time and so evicts nobody.")
	overdue := gauge("nearside.registry.overdue", "{instance}", "Instances that the brake holds although their heartbeats stopped.")
	watches := gauge("nearside.registry.watches", "{watch}", "Open watches.")
	instances := gauge("nearside.registry.instances", "{instance}", "Instances, by status.")
	services := gauge("nearside.registry.services", "{service}", "Services with at least one instance.")
	revision := gauge("nearside.registry.revision", "{revision}", "Revision that reads show.")
	storeUp := gauge("nearside.registry.store.up", "1", "1 while the store answers.")
	forwarded := counter("nearside.registry.heartbeats.forwarded", "{heartbeat}", "Heartbeats that the node which owns liveness took, or refused, for this one.")
	owns := gauge("nearside.registry.liveness.owner", "1", "1 while this node holds the deadlines of the region's heartbeats.")
	if errs != nil {
		return nil, fmt.Errorf("registry metrics: %w", errs)
	}
	result := func(s string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String("result", s)))
	}
	created, changed, refreshed := result("created"), result("changed"), result("refreshed")
	status := map[api.Status]metric.MeasurementOption{}
	for _, s := range api.Statuses {
		status[s] = metric.WithAttributeSet(attribute.NewSet(attribute.String("status", string(s))))
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		c := &r.counts
		o.ObserveInt64(registrations, c.created.Load(), created)
		o.ObserveInt64(registrations, c.changed.Load(), changed)
		o.ObserveInt64(registrations, c.refreshed.Load(), refreshed)
		o.ObserveInt64(deregistrations, c.deregistered.Load())
		o.ObserveInt64(heartbeats, c.heartbeats.Load())
		o.ObserveInt64(evictions, c.evictions.Load())
		o.ObserveInt64(forwarded, c.forwarded.Load())
		o.ObserveInt64(owns, zeroOne(r.own.holds(r.now())))
		o.ObserveInt64(protection, zeroOne(c.protected.Load()))
		o.ObserveInt64(slow, zeroOne(c.slow.Load()))
		_, held := r.overlay.Load().Len()
		o.ObserveInt64(overdue, int64(held))
		o.ObserveInt64(watches, r.watches.Load())
		snap := r.Snapshot()
		counts := snap.Counts().ByStatus
		for s, attr := range status {
			o.ObserveInt64(instances, int64(counts[s]), attr)
		}
		n, _ := snap.Len()
		o.ObserveInt64(services, int64(n))
		o.ObserveInt64(revision, int64(min(snap.Version().Revision, 1<<62)))
		o.ObserveInt64(storeUp, zeroOne(r.health.trouble() == ""))
		return nil
	}, registrations, deregistrations, heartbeats, evictions, forwarded, owns, protection, slow, overdue, watches, instances, services, revision, storeUp)
	if err != nil {
		return nil, fmt.Errorf("registry metrics: %w", err)
	}
	return func() { _ = reg.Unregister() }, nil
}

func zeroOne(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
