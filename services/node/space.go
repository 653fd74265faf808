package node

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/metric"

	"github.com/nearside/nearside/region/store/etcdnode"
)

// observeSpace publishes what the store's upkeep sees and does, until stop is called.
func observeSpace(provider metric.MeterProvider, space func() etcdnode.Space) (stop func(), err error) {
	m := provider.Meter("github.com/nearside/nearside/region/store")
	var errs error
	gauge := func(name, unit, help string) metric.Int64ObservableGauge {
		g, err := m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(help))
		errs = errors.Join(errs, err)
		return g
	}
	counter := func(name, help string) metric.Int64ObservableCounter {
		c, err := m.Int64ObservableCounter(name, metric.WithUnit("1"), metric.WithDescription(help))
		errs = errors.Join(errs, err)
		return c
	}
	size := gauge("nearside.store.size", "By", "Size of the store's database.")
	inUse := gauge("nearside.store.in_use", "By", "Part of the database that holds data.")
	quota := gauge("nearside.store.quota", "By", "Size beyond which the store refuses puts.")
	full := gauge("nearside.store.full", "1", "1 while the store refuses puts because its quota was reached.")
	free := gauge("nearside.store.disk.free", "By", "Room on the disk of the data directory.")
	reserve := gauge("nearside.store.disk.reserve", "By", "Room below which the store refuses puts.")
	compactions := counter("nearside.store.compactions", "Times that history was dropped.")
	defrags := counter("nearside.store.defragmentations", "Times that the database was written anew.")
	disarms := counter("nearside.store.disarms", "Times that a store that was full took puts again.")
	if errs != nil {
		return nil, fmt.Errorf("store metrics: %w", errs)
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := space()
		o.ObserveInt64(size, s.Size)
		o.ObserveInt64(inUse, s.InUse)
		o.ObserveInt64(quota, s.Quota)
		o.ObserveInt64(full, zeroOne(s.Alarm))
		o.ObserveInt64(free, int64(min(s.DiskFree, 1<<62)))
		o.ObserveInt64(reserve, int64(min(s.DiskReserve, 1<<62)))
		o.ObserveInt64(compactions, int64(s.Compactions))
		o.ObserveInt64(defrags, int64(s.Defragmentations))
		o.ObserveInt64(disarms, int64(s.Disarms))
		return nil
	}, size, inUse, quota, full, free, reserve, compactions, defrags, disarms)
	if err != nil {
		return nil, fmt.Errorf("store metrics: %w", err)
	}
	return func() { _ = reg.Unregister() }, nil
}

func zeroOne(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
