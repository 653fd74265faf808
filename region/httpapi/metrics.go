package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// instruments measures requests by route template, never by path: names of strangers are
// no labels. Safe for concurrent use.
type instruments struct {
	duration metric.Float64Histogram
	streams  metric.Int64UpDownCounter
	labels   map[routeID]*routeLabels
	other    *routeLabels
}

type routeID struct{ method, path string }

// routeLabels holds the ready-made attributes of one route by status class; index 0 is for
// clients that left before the answer.
type routeLabels [6][]metric.RecordOption

// buckets of the duration, in seconds: answers from memory are below a millisecond,
// writes wait for a disk, and anything above is waiting for something.
var buckets = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

func newInstruments(mp metric.MeterProvider, routes []route) (*instruments, error) {
	if mp == nil {
		mp = noop.NewMeterProvider()
	}
	m := mp.Meter("github.com/nearside/nearside/region/httpapi")
	i := &instruments{labels: make(map[routeID]*routeLabels), other: newRouteLabels("other", "other")}
	var err error
	i.duration, err = m.Float64Histogram("nearside.http.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from the first byte of a request to its answer, by route and status class; of a watch, its refusals only."),
		metric.WithExplicitBucketBoundaries(buckets...))
	if err != nil {
		return nil, fmt.Errorf("http api: request duration: %w", err)
	}
	i.streams, err = m.Int64UpDownCounter("nearside.http.streams", metric.WithUnit("{stream}"),
		metric.WithDescription("Watches open at this node."))
	if err != nil {
		return nil, fmt.Errorf("http api: streams: %w", err)
	}
	for _, rt := range routes {
		i.labels[routeID{rt.method, rt.path}] = newRouteLabels(rt.method, rt.path)
		if rt.method == http.MethodGet {
			i.labels[routeID{http.MethodHead, rt.path}] = newRouteLabels(http.MethodHead, rt.path)
		}
	}
	return i, nil
}

func newRouteLabels(method, path string) *routeLabels {
	var l routeLabels
	for class := range l {
		status := "gone"
		if class > 0 {
			status = fmt.Sprintf("%dxx", class)
		}
		l[class] = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(
			attribute.String("method", method), attribute.String("route", path), attribute.String("status", status)))}
	}
	return &l
}

// observe counts one request. A watch that was opened is not a request but a stream.
func (i *instruments) observe(ctx context.Context, method, path string, status int, gone bool, took time.Duration) {
	l := i.labels[routeID{method, path}]
	if l == nil {
		l = i.other
	}
	class := status / 100
	if gone || class < 0 || class >= len(l) {
		class = 0
	}
	i.duration.Record(ctx, took.Seconds(), l[class]...)
}

func (i *instruments) streamOpened(ctx context.Context) { i.streams.Add(ctx, 1) }
func (i *instruments) streamClosed(ctx context.Context) { i.streams.Add(ctx, -1) }
