package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// maxTraceFile bounds the trace file; with the older half kept beside it as FILE.1 the
	// traces never take more than twice this.
	maxTraceFile = 8 << 20
	// traceDelay is how long a finished span may wait to be written.
	traceDelay = time.Second
)

// tracing owns what the services of one process need to record spans. The services
// share the file, and each has a provider of its own that names it.
type tracing struct {
	file      *spanFile              // nil = no spans are kept
	spans     sdktrace.SpanProcessor // nil with file
	providers []*sdktrace.TracerProvider
}

// newTracing opens the trace file; with path "" spans are not recorded, but trace ids
// still travel with the calls.
func newTracing(path string, log *slog.Logger) (*tracing, error) {
	if path == "" {
		return &tracing{}, nil
	}
	file, err := openSpanFile(path, maxTraceFile, log)
	if err != nil {
		return nil, err
	}
	return &tracing{file: file, spans: sdktrace.NewBatchSpanProcessor(file, sdktrace.WithBatchTimeout(traceDelay))}, nil
}

// provider returns the TracerProvider of one service. Not for concurrent use.
func (t *tracing) provider(service, instance, region, zone string) *sdktrace.TracerProvider {
	who := resource.NewSchemaless(
		attribute.String("service.name", service),
		attribute.String("service.instance.id", instance),
		attribute.String("cloud.region", region),
		attribute.String("cloud.availability_zone", zone))
	opts := []sdktrace.TracerProviderOption{sdktrace.WithResource(who)}
	if t.spans != nil {
		opts = append(opts, sdktrace.WithSpanProcessor(t.spans), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	} else {
		opts = append(opts, sdktrace.WithSampler(sdktrace.NeverSample()))
	}
	p := sdktrace.NewTracerProvider(opts...)
	t.providers = append(t.providers, p)
	return p
}

// close writes what is left, within ctx, and closes the file.
func (t *tracing) close(ctx context.Context) error {
	var errs []error
	for _, p := range t.providers {
		errs = append(errs, p.Shutdown(ctx))
	}
	if t.spans != nil { // providers end it too, but there may be none
		errs = append(errs, t.spans.Shutdown(ctx))
	}
	if t.file != nil {
		errs = append(errs, t.file.close())
	}
	return errors.Join(errs...)
}

// spanFile is an exporter that appends a line of JSON per span to a file of bounded size:
// when it is full it becomes FILE.1, in place of the one before, and a new one begins.
type spanFile struct {
	path  string
	limit int64
	log   *slog.Logger

	mu     sync.Mutex
	file   *os.File // nil after close
	size   int64
	broken bool // a write failed; said once
}

// spanLine is a line of the trace file.
type spanLine struct {
	Start      time.Time      `json:"t"`
	Trace      string         `json:"trace_id"`
	Span       string         `json:"span_id"`
	Parent     string         `json:"parent_id,omitempty"`
	Service    string         `json:"service"`
	Instance   string         `json:"instance"`
	Region     string         `json:"region"`
	Name       string         `json:"name"`
	Kind       string         `json:"kind"`
	DurationMS float64        `json:"duration_ms"`
	Status     string         `json:"status,omitempty"` // "Ok" or "Error"
	Attributes map[string]any `json:"attributes,omitempty"`
}

func openSpanFile(path string, limit int64, log *slog.Logger) (*spanFile, error) {
	f, size, err := openLines(path)
	if err != nil {
		return nil, fmt.Errorf("trace file: %w", err)
	}
	return &spanFile{path: path, limit: limit, log: log, file: f, size: size}, nil
}

// ExportSpans appends the spans. A full disk loses spans, never a request: the first
// failure is logged, and nil returned, since nobody above could do more.
func (s *spanFile) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	err := s.writeLocked(spans)
	if err != nil && !s.broken {
		s.log.Warn("spans are lost", "file", s.path, "error", err)
	}
	s.broken = err != nil
	return nil
}

// Shutdown does nothing: the file is closed by its owner, after all providers ended.
func (s *spanFile) Shutdown(context.Context) error { return nil }

func (s *spanFile) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

func (s *spanFile) writeLocked(spans []sdktrace.ReadOnlySpan) error {
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	enc.SetEscapeHTML(false)
	for _, span := range spans {
		if err := enc.Encode(lineOf(span)); err != nil {
			return err
		}
	}
	if s.size > 0 && s.size+int64(lines.Len()) > s.limit {
		if err := s.rotateLocked(); err != nil {
			return err
		}
	}
	n, err := s.file.Write(lines.Bytes())
	s.size += int64(n)
	return err
}

func (s *spanFile) rotateLocked() error {
	if err := os.Rename(s.path, s.path+".1"); err != nil {
		return err
	}
	next, size, err := openLines(s.path)
	if err != nil {
		return err
	}
	old := s.file
	s.file, s.size = next, size
	return old.Close()
}

func lineOf(span sdktrace.ReadOnlySpan) spanLine {
	out := spanLine{
		Start:      span.StartTime().UTC(),
		Trace:      span.SpanContext().TraceID().String(),
		Span:       span.SpanContext().SpanID().String(),
		Name:       span.Name(),
		Kind:       span.SpanKind().String(),
		DurationMS: milliseconds(span.EndTime().Sub(span.StartTime())),
	}
	if span.Parent().HasSpanID() {
		out.Parent = span.Parent().SpanID().String()
	}
	if s := span.Status().Code.String(); s != "Unset" {
		out.Status = s
	}
	who := span.Resource().Set()
	for key, field := range map[attribute.Key]*string{
		"service.name": &out.Service, "service.instance.id": &out.Instance, "cloud.region": &out.Region,
	} {
		if v, ok := who.Value(key); ok {
			*field = v.AsString()
		}
	}
	if attrs := span.Attributes(); len(attrs) > 0 {
		out.Attributes = make(map[string]any, len(attrs))
		for _, a := range attrs {
			out.Attributes[string(a.Key)] = a.Value.AsInterface()
		}
	}
	return out
}

// milliseconds returns d in ms, to the microsecond.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
