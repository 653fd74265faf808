package nearside

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// recorder keeps what a program's OpenTelemetry would get: the SDK of that is for programs only.
type recorder struct {
	mu     sync.Mutex
	spans  []*recordedSpan // in the order in which they began
	points []point
	names  map[string]string // instrument -> unit
	bounds map[string][]float64
	schema []string
}

func newRecorder() *recorder {
	return &recorder{names: map[string]string{}, bounds: map[string][]float64{}}
}

// use makes a client tell the recorder.
func (r *recorder) use(cfg *Config) {
	cfg.TracerProvider, cfg.MeterProvider = recordedTracers{rec: r}, recordedMeters{rec: r}
}

// point is one measurement.
type point struct {
	name  string
	value float64
	attrs attribute.Set
	span  trace.SpanContext
}

type recordedTracers struct {
	tracenoop.TracerProvider
	rec *recorder
}

func (p recordedTracers) Tracer(_ string, opts ...trace.TracerOption) trace.Tracer {
	cfg := trace.NewTracerConfig(opts...)
	p.rec.note(cfg.SchemaURL())
	return recordedTracer{rec: p.rec}
}

func (r *recorder) note(schema string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.schema = append(r.schema, schema)
}

type recordedTracer struct {
	tracenoop.Tracer
	rec *recorder
}

func (t recordedTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	cfg := trace.NewSpanStartConfig(opts...)
	t.rec.mu.Lock()
	defer t.rec.mu.Unlock()
	parent := trace.SpanContextFromContext(ctx)
	c := trace.SpanContextConfig{TraceID: parent.TraceID(), TraceFlags: trace.FlagsSampled}
	if !parent.IsValid() {
		binary.BigEndian.PutUint64(c.TraceID[:], uint64(len(t.rec.spans)+1))
	}
	binary.BigEndian.PutUint64(c.SpanID[:], uint64(len(t.rec.spans)+1))
	s := &recordedSpan{rec: t.rec, name: name, kind: cfg.SpanKind(), of: trace.NewSpanContext(c), parent: parent, given: cfg.Attributes()}
	s.attrs = slices.Clone(s.given)
	t.rec.spans = append(t.rec.spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

type recordedSpan struct {
	tracenoop.Span
	rec        *recorder
	name       string
	kind       trace.SpanKind
	of, parent trace.SpanContext
	given      []attribute.KeyValue // at the start, where samplers see them
	attrs      []attribute.KeyValue
	events     []string
	status     codes.Code
	text       string
	ended      int
}

func (s *recordedSpan) change(f func()) {
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	f()
}

func (s *recordedSpan) SpanContext() trace.SpanContext { return s.of }
func (s *recordedSpan) IsRecording() bool              { return true }
func (s *recordedSpan) End(...trace.SpanEndOption)     { s.change(func() { s.ended++ }) }
func (s *recordedSpan) SetName(name string)            { s.change(func() { s.name = name }) }
func (s *recordedSpan) SetAttributes(kv ...attribute.KeyValue) {
	s.change(func() { s.attrs = append(s.attrs, kv...) })
}

func (s *recordedSpan) SetStatus(c codes.Code, text string) {
	s.change(func() { s.status, s.text = c, text })
}

func (s *recordedSpan) AddEvent(name string, opts ...trace.EventOption) {
	cfg := trace.NewEventConfig(opts...)
	s.change(func() { s.events = append(s.events, fmt.Sprint(name, cfg.Attributes())) })
}

func (s *recordedSpan) RecordError(err error, _ ...trace.EventOption) {
	s.change(func() { s.events = append(s.events, err.Error()) })
}

// attr returns an attribute's text, "" when it is not there; the last one counts.
func (s *recordedSpan) attr(k attribute.Key) string {
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	for i := len(s.attrs) - 1; i >= 0; i-- {
		if s.attrs[i].Key == k {
			return s.attrs[i].Value.String()
		}
	}
	return ""
}

type recordedMeters struct {
	metricnoop.MeterProvider
	rec *recorder
}

func (p recordedMeters) Meter(_ string, opts ...metric.MeterOption) metric.Meter {
	cfg := metric.NewMeterConfig(opts...)
	p.rec.note(cfg.SchemaURL())
	return recordedMeter{rec: p.rec}
}

type recordedMeter struct {
	metricnoop.Meter
	rec *recorder
}

func (m recordedMeter) Int64Counter(name string, opts ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	cfg := metric.NewInt64CounterConfig(opts...)
	m.rec.names[name] = cfg.Unit()
	return recordedCounter{rec: m.rec, name: name}, nil
}

func (m recordedMeter) Float64Histogram(name string, opts ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	cfg := metric.NewFloat64HistogramConfig(opts...)
	m.rec.names[name], m.rec.bounds[name] = cfg.Unit(), cfg.ExplicitBucketBoundaries()
	return recordedHistogram{rec: m.rec, name: name}, nil
}

type recordedCounter struct {
	metricnoop.Int64Counter
	rec  *recorder
	name string
}

func (c recordedCounter) Enabled(context.Context) bool { return true }
func (c recordedCounter) Add(ctx context.Context, n int64, opts ...metric.AddOption) {
	cfg := metric.NewAddConfig(opts)
	c.rec.measured(ctx, c.name, float64(n), cfg.Attributes())
}

type recordedHistogram struct {
	metricnoop.Float64Histogram
	rec  *recorder
	name string
}

func (h recordedHistogram) Enabled(context.Context) bool { return true }
func (h recordedHistogram) Record(ctx context.Context, x float64, opts ...metric.RecordOption) {
	cfg := metric.NewRecordConfig(opts)
	h.rec.measured(ctx, h.name, x, cfg.Attributes())
}

func (r *recorder) measured(ctx context.Context, name string, value float64, attrs attribute.Set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.points = append(r.points, point{name, value, attrs, trace.SpanContextFromContext(ctx)})
}

// take returns the spans and points since the last take.
func (r *recorder) take(t *testing.T) (spans []*recordedSpan, points []point) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	spans, points = r.spans, r.points
	r.spans, r.points = nil, nil
	for _, s := range spans {
		if s.ended != 1 {
			t.Errorf("span %s ended %d times", s.name, s.ended)
		}
	}
	return spans, points
}

// sums adds up the points of an instrument by their attributes, in short.
func sums(points []point, name string) map[string]float64 {
	out := map[string]float64{}
	for _, p := range points {
		if p.name == name {
			var parts []string
			for _, kv := range p.attrs.ToSlice() {
				parts = append(parts, string(kv.Key)+"="+kv.Value.String())
			}
			out[strings.Join(parts, " ")] += p.value
		}
	}
	return out
}

// text is everything that was told, for tests of what must not be.
func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, s := range r.spans {
		fmt.Fprintln(&b, s.name, s.attrs, s.events, s.text)
	}
	for _, p := range r.points {
		fmt.Fprintln(&b, p.name, p.attrs.ToSlice())
	}
	return b.String()
}
