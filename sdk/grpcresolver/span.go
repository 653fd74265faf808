package grpcresolver

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	nearside "github.com/nearside/nearside/sdk"
)

// describe tells the span of a call where it goes and why, by the names of the SDK's own spans
// (TELEMETRY.md). Making spans is the business of gRPC's own instrumentation: this adds to the
// one in the call's context. One of a server's request is not of the call, and is left alone.
func describe(ctx context.Context, service string, p *nearside.Picked, attempt int) {
	if ctx == nil {
		return
	}
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	if of, ok := span.(interface{ SpanKind() trace.SpanKind }); ok {
		if k := of.SpanKind(); k == trace.SpanKindServer || k == trace.SpanKindConsumer {
			return
		}
	}
	e := &p.Endpoint
	list := []attribute.KeyValue{
		attribute.String("nearside.service", service),
		attribute.String("nearside.decision.id", p.Decision),
		attribute.String("nearside.region", string(e.Region)),
		attribute.String("nearside.instance", string(e.ID)),
		attribute.Int("nearside.tier", e.Tier),
	}
	if e.Zone != "" {
		list = append(list, attribute.String("nearside.zone", string(e.Zone)))
	}
	if attempt > 0 {
		list = append(list, attribute.Int("nearside.attempt", attempt))
	}
	span.SetAttributes(list...)
}
