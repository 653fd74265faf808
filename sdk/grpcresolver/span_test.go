package grpcresolver

import (
	"context"
	"testing"
	"testing/synctest"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc/balancer"
)

// noted is a span that keeps its attributes.
type noted struct {
	noop.Span
	kind trace.SpanKind
	got  map[attribute.Key]string
}

func (n *noted) IsRecording() bool        { return true }
func (n *noted) SpanKind() trace.SpanKind { return n.kind }
func (n *noted) SetAttributes(list ...attribute.KeyValue) {
	for _, kv := range list {
		n.got[kv.Key] = kv.Value.String()
	}
}

// The span of a call says where it went and why: region, tier, decision, and which attempt it is
// of a call that may be repeated. The span of the request that a server works on does not.
func TestSpansSayWhereCallsGo(t *testing.T) {
	onStage(t, func(t *testing.T, s *stage) {
		s.tell(t, "us:1", "eu:1")
		synctest.Wait()
		res, err := s.client.Resolve(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		s.watch.set.retry = map[string]bool{"shop.Orders/Get": true}
		ctx := context.WithValue(t.Context(), triesKey{}, &tries{})
		span := &noted{kind: trace.SpanKindClient, got: map[attribute.Key]string{}}
		for _, want := range []map[attribute.Key]string{
			{"nearside.region": "us", "nearside.instance": "0.0", "nearside.tier": "0", "nearside.attempt": "1"},
			{"nearside.region": "eu", "nearside.instance": "1.0", "nearside.tier": "1", "nearside.attempt": "2"},
		} {
			r, err := s.state.Picker.Pick(balancer.PickInfo{Ctx: trace.ContextWithSpan(ctx, span), FullMethodName: "/shop.Orders/Get"})
			if err != nil {
				t.Fatal(err)
			}
			r.Done(balancer.DoneInfo{})
			want["nearside.service"], want["nearside.decision.id"] = "orders", res.Decision.ID
			for k, v := range want {
				if span.got[k] != v {
					t.Errorf("%s is %q, want %q", k, span.got[k], v)
				}
			}
		}
		served := &noted{kind: trace.SpanKindServer, got: map[attribute.Key]string{}}
		r, err := s.state.Picker.Pick(balancer.PickInfo{Ctx: trace.ContextWithSpan(t.Context(), served)})
		if err != nil || len(served.got) > 0 {
			t.Errorf("a server's span: %v, %v", served.got, err)
		}
		r.Done(balancer.DoneInfo{})
	})
}
