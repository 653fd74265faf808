package httpapi

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/nearside/nearside/sdk/api"
)

// startSpan begins the server span of a request under /v1; nil for the others, for watches
// (a span of hours tells nothing) and without a TracerProvider.
func (d *door) startSpan(c echo.Context) trace.Span {
	r := c.Request()
	if d.tracer == nil || isWatch(r) || len(r.URL.Path) < 4 || r.URL.Path[:4] != "/v1/" {
		return nil
	}
	ctx := d.Propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := d.tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
	c.SetRequest(r.WithContext(ctx))
	return span
}

// endSpan ends span, when there is one. The route is known by now; the path is not told,
// and neither is the query.
func endSpan(span trace.Span, c echo.Context, status int) {
	if span == nil {
		return
	}
	if span.IsRecording() {
		method := c.Request().Method
		if c.Path() != "" {
			span.SetName(method + " " + c.Path())
		}
		span.SetAttributes(
			attribute.String("http.request.method", method), attribute.String("http.route", c.Path()),
			attribute.Int("http.response.status_code", status),
			attribute.String("nearside.request_id", c.Response().Header().Get(api.HeaderRequestID)))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
	}
	span.End()
}

// isWatch tells a request for a stream before its route is known.
func isWatch(r *http.Request) bool {
	return r.URL.Path == api.PathWatch || r.URL.Path == api.PathKV && strings.Contains(r.URL.RawQuery, "watch=true")
}
