package nearside

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Attributes of spans and metrics. The first ones are those of OpenTelemetry's semantic conventions for HTTP clients
// (schemaURL says which version), the others are ours.
const (
	attrMethod         = attribute.Key("http.request.method") // of the known ones; else "_OTHER"
	attrMethodOriginal = attribute.Key("http.request.method_original")
	attrResends        = attribute.Key("http.request.resend_count") // 0 is left out
	attrStatus         = attribute.Key("http.response.status_code")
	attrServer         = attribute.Key("server.address")
	attrPort           = attribute.Key("server.port")
	attrURL            = attribute.Key("url.full") // without user, query and fragment
	attrScheme         = attribute.Key("url.scheme")
	attrProtocol       = attribute.Key("network.protocol.version")
	attrError          = attribute.Key("error.type")

	attrService  = attribute.Key("nearside.service") // "orders", or "orders.namespace"
	attrRegion   = attribute.Key("nearside.region")
	attrZone     = attribute.Key("nearside.zone")
	attrInstance = attribute.Key("nearside.instance")
	attrTier     = attribute.Key("nearside.tier")        // place in the decision, 0 = nearest
	attrAttempt  = attribute.Key("nearside.attempt")     // 1 = the first
	attrAttempts = attribute.Key("nearside.attempts")    // of the call
	attrDecision = attribute.Key("nearside.decision.id") // see route.DecisionID
	attrReason   = attribute.Key("nearside.reason")      // of the decision
	attrOutcome  = attribute.Key("nearside.outcome")
	attrOp       = attribute.Key("nearside.operation")
)

// schemaURL is the version of the semantic conventions that the names above are of.
const schemaURL = "https://opentelemetry.io/schemas/1.43.0"

// notTraced is the span of a client without a TracerProvider.
var notTraced trace.Span = noop.Span{}

// begin starts the span of a call: all of its attempts are within. It is an internal one, for each attempt is a
// request of its own, with a client span.
func (r *run) begin(ctx context.Context, a *answer) (context.Context, trace.Span) {
	tel := r.t.c.tel
	if !tel.tracing {
		return ctx, notTraced
	}
	list := append(methodAttributes(r.req),
		attrService.String(r.s.label), attrDecision.String(a.id), attrReason.String(string(a.decision.Reason)))
	return tel.tracer.Start(ctx, spanMethod(r.req)+" "+r.s.label, trace.WithSpanKind(trace.SpanKindInternal), trace.WithAttributes(list...))
}

// count ends the call for spans and metrics.
func (r *run) count(ctx context.Context, span trace.Span, resp *http.Response) {
	outcome, served := "ok", r.served
	switch {
	case resp == nil:
		outcome, served = r.kind.String(), ""
	case resp.StatusCode >= 500:
		outcome = "error"
	}
	failover := resp != nil && r.kind == kindAnswer && served != r.first
	r.t.c.tel.called(ctx, r.s.label, served, outcome, r.tries, failover, time.Since(r.start))
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attrAttempts.Int(r.tries), attrOutcome.String(outcome))
	if resp != nil {
		span.SetAttributes(attrRegion.String(string(served)), attrStatus.Int(resp.StatusCode))
	}
	if failed := errorType(resp, r.kind); failed != "" {
		span.SetAttributes(attrError.String(failed))
		span.SetStatus(codes.Error, "")
	}
}

// attempted is the span of one attempt, and what its measure needs.
type attempted struct {
	trace.Span
	began time.Time
	sl    *slot
}

// span starts the client span of an attempt.
func (r *run) span(ctx context.Context, sl *slot) (context.Context, attempted) {
	tel, e, began := r.t.c.tel, &sl.endpoint, time.Now()
	if !tel.tracing {
		return ctx, attempted{notTraced, began, sl}
	}
	list := append(methodAttributes(r.req),
		attrServer.String(e.Address), attrPort.Int(e.Port), attrScheme.String(scheme(r.req)), attrURL.String(safeURL(r.req.URL, net.JoinHostPort(e.Address, strconv.Itoa(e.Port)))),
		attrService.String(r.s.label), attrRegion.String(string(e.Region)), attrInstance.String(string(e.ID)),
		attrTier.Int(sl.tier), attrAttempt.Int(r.tries),
	)
	if e.Zone != "" {
		list = append(list, attrZone.String(string(e.Zone)))
	}
	if r.tries > 1 {
		list = append(list, attrResends.Int(r.tries-1))
	}
	if a := sl.from; a != nil {
		list = append(list, attrDecision.String(a.id), attrReason.String(string(a.decision.Reason)))
	}
	ctx, span := tel.tracer.Start(ctx, spanMethod(r.req), trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(began), trace.WithAttributes(list...))
	return ctx, attempted{span, began, sl}
}

// endSpan ends an attempt for spans and metrics. The text of an error stays out of both: it is of the base transport, and
// may hold what the request does, its query above all. What kind of an error it was is told.
func (r *run) endSpan(span attempted, resp *http.Response, _ error) {
	failed := errorType(resp, r.kind)
	r.t.c.tel.sent(r, span.Span, span.sl.endpoint.Region, resp, failed, time.Since(span.began))
	if span.IsRecording() {
		if resp != nil {
			span.SetAttributes(attrStatus.Int(resp.StatusCode))
			if v := protocol(resp); v != "" {
				span.SetAttributes(attrProtocol.String(v))
			}
		}
		if failed != "" {
			span.SetAttributes(attrError.String(failed))
			span.SetStatus(codes.Error, "")
		}
	}
	span.End()
}

// errorType is what the conventions call error.type: the status of an answer from 400 on, or what happened
// instead of an answer; "" = nothing failed.
func errorType(resp *http.Response, k kind) string {
	switch {
	case resp == nil:
		return k.String()
	case resp.StatusCode >= 400:
		return strconv.Itoa(resp.StatusCode)
	}
	return ""
}

// methodAttributes tell the method; one that is not known would make a name of its own in every table.
func methodAttributes(req *http.Request) []attribute.KeyValue {
	m, known := knownMethod(req), method(req)
	list := make([]attribute.KeyValue, 0, 16)
	list = append(list, attrMethod.String(m))
	if m != known {
		list = append(list, attrMethodOriginal.String(cut(known, 64)))
	}
	return list
}

// knownMethod is the method as the conventions tell it: one of RFC 9110 and RFC 5789, or "_OTHER".
func knownMethod(req *http.Request) string {
	switch m := method(req); m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return m
	}
	return "_OTHER"
}

// spanMethod is the method in the name of a span, for which the conventions say HTTP where it is not known.
func spanMethod(req *http.Request) string {
	if m := knownMethod(req); m != "_OTHER" {
		return m
	}
	return "HTTP"
}

func method(req *http.Request) string {
	if req.Method == "" {
		return http.MethodGet
	}
	return req.Method
}

func scheme(req *http.Request) string {
	if req.URL.Scheme == "" {
		return "http"
	}
	return strings.ToLower(req.URL.Scheme)
}

// maxURL bounds url.full, in bytes.
const maxURL = 1024

// safeURL is where an attempt goes, without what may be secret: user and password, query, fragment.
func safeURL(u *url.URL, host string) string {
	safe := url.URL{Scheme: u.Scheme, Host: host, Path: u.Path, RawPath: u.RawPath}
	return cut(safe.String(), maxURL)
}

func cut(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// protocol is the version of HTTP that an answer came in: "1.1", "2".
func protocol(resp *http.Response) string {
	switch {
	case resp.ProtoMajor == 1:
		return "1." + strconv.Itoa(resp.ProtoMinor)
	case resp.ProtoMajor > 1:
		return strconv.Itoa(resp.ProtoMajor)
	}
	return ""
}
