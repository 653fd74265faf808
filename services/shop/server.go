package shop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"sync/atomic"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/nearside/nearside/sdk/api"
)

// server is what the five services have in common: routing, headers, JSON, errors,
// health. A service adds its routes with handle before the first request.
type server struct {
	name     string // of the service
	region   string
	instance string
	call     *caller
	log      *slog.Logger

	mux      *http.ServeMux
	draining atomic.Bool
}

// reply is a success.
type reply struct {
	status int // 0 = 200
	body   any
	// paymentsRegion is where payments was served on the way; "" if it wasn't asked.
	paymentsRegion string
}

// newServer returns the named service, ready to serve.
func newServer(name, region, instance string, call *caller, log *slog.Logger) (*server, error) {
	s := &server{name: name, region: region, instance: instance, call: call, log: log, mux: http.NewServeMux()}
	s.handle("GET /healthz", s.health)
	s.handle("GET "+api.PathReadyz, s.ready)
	switch name {
	case Storefront:
		addStorefront(s)
	case Catalog:
		addCatalog(s)
	case Orders:
		addOrders(s)
	case Payments:
		addPayments(s)
	case Users:
		addUsers(s)
	default:
		return nil, fmt.Errorf("service %q is not known", name)
	}
	return s, nil
}

func (s *server) health(*http.Request) (reply, error) {
	if s.draining.Load() {
		return reply{}, fail(http.StatusServiceUnavailable, errDraining, "%s is going away", s.instance)
	}
	return reply{body: map[string]string{"status": "ok", "service": s.name, "instance": s.instance}}, nil
}

// ready answers as a node of the registry does, so that "nearside check ready" serves both.
// Being registered is no part of it: calls that come are answered either way.
func (s *server) ready(*http.Request) (reply, error) {
	check := api.ReadinessCheck{Name: "serving", OK: !s.draining.Load()}
	rep := reply{body: api.Readiness{
		Ready: check.OK, Region: api.Region(s.region), Node: s.instance, Checks: []api.ReadinessCheck{check},
	}}
	if !check.OK {
		rep.status = http.StatusServiceUnavailable
	}
	return rep, nil
}

// handler returns the whole service: a span around each request, then the headers, then
// the route.
func (s *server) handler(traces trace.TracerProvider, propagator propagation.TextMapPropagator) http.Handler {
	return otelhttp.NewHandler(http.HandlerFunc(s.serve), s.name,
		otelhttp.WithTracerProvider(traces),
		otelhttp.WithPropagators(propagator),
		otelhttp.WithMeterProvider(noop.NewMeterProvider()),
		otelhttp.WithFilter(func(r *http.Request) bool { return r.URL.Path != "/healthz" && r.URL.Path != api.PathReadyz }),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
			if r.Pattern != "" {
				return r.Pattern // "GET /products/{id}": never the id itself, names must be few
			}
			return r.Method
		}))
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(HeaderRegion, s.region)
	w.Header().Set(HeaderInstance, s.instance)
	if span := trace.SpanContextFromContext(r.Context()); span.HasTraceID() {
		w.Header().Set(HeaderTrace, span.TraceID().String())
	}
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			s.writeError(w, r, fail(http.StatusInternalServerError, errInternal, "%s met a bug", s.name))
		}
	}()
	ctx, cancel := context.WithTimeout(r.Context(), patienceOf(s.name).answer)
	defer cancel()
	outer := r
	r = r.WithContext(ctx)
	r.Body = http.MaxBytesReader(w, r.Body, maxRequestBody)
	if h, pattern := s.mux.Handler(r); pattern == "" {
		s.writeError(w, r, noRoute(h, w.Header(), r))
		return
	}
	s.mux.ServeHTTP(w, r)
	outer.Pattern = r.Pattern // names the span
}

// handle adds a route. What h returns as an error is answered as JSON; a *failure says
// with which status.
func (s *server) handle(pattern string, h func(*http.Request) (reply, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		rep, err := h(r)
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		if rep.paymentsRegion != "" {
			w.Header().Set(HeaderPaymentsRegion, rep.paymentsRegion)
		}
		if rep.status == 0 {
			rep.status = http.StatusOK
		}
		s.writeJSON(w, rep.status, rep.body)
	})
}

func (s *server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var f *failure
	if !errors.As(err, &f) {
		f = fail(http.StatusInternalServerError, errInternal, "%v", err)
	}
	if f.status >= 500 && !errors.Is(r.Context().Err(), context.Canceled) { // else nobody listens any more
		span := trace.SpanFromContext(r.Context())
		span.SetAttributes(attribute.String("shop.error", f.Detail))
		s.log.Warn("request failed", "method", r.Method, "path", r.URL.Path, "status", f.status,
			"error", f.Detail, "trace", span.SpanContext().TraceID().String())
	}
	s.writeJSON(w, f.status, f.problem)
}

func (s *server) writeJSON(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil { // only a type of ours that JSON can't say: a bug
		s.log.Error("answer is not JSON", "error", err)
		status, data = http.StatusInternalServerError, []byte(`{"error":"internal","detail":"the answer is not JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // the caller is gone when this fails
}

// noRoute asks the mux's own handler whether the path or only the method is unknown: it
// would answer as plain text, and everything here answers as JSON.
func noRoute(h http.Handler, into http.Header, r *http.Request) error {
	probe := statusProbe{header: http.Header{}}
	h.ServeHTTP(&probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		allow := probe.header.Get("Allow")
		into.Set("Allow", allow)
		return fail(http.StatusMethodNotAllowed, errMethod, "%s is not for this path; use %s", clip(r.Method), allow)
	}
	return notFound("no such path: %q", clip(r.URL.Path))
}

type statusProbe struct {
	header http.Header
	status int
}

func (p *statusProbe) Header() http.Header         { return p.header }
func (p *statusProbe) WriteHeader(status int)      { p.status = status }
func (p *statusProbe) Write(b []byte) (int, error) { return len(b), nil }

// readJSON decodes the one JSON value in r's body into out, strictly.
func readJSON(r *http.Request, out any) error {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" {
			return fail(http.StatusUnsupportedMediaType, errMediaType, "send application/json, not %q", clip(ct))
		}
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(out)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err == nil {
			err = errors.New("more than one value")
		}
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return fail(http.StatusRequestEntityTooLarge, errTooLarge, "the body is longer than %d bytes", tooLarge.Limit)
	}
	if errors.Is(err, io.EOF) {
		return badRequest("the body is empty; send JSON")
	}
	return badRequest("the body is not what is expected: %v", err)
}

// clip cuts what a stranger sent to a length that fits into a message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
