package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// route is one line of the table below. Exactly one of call, stream and plain is set.
type route struct {
	method string // a GET answers HEAD as well
	path   string
	query  []string // the parameters it knows
	repeat []string // those that may be given more than once
	body   bool     // it reads a body
	beats  bool     // it writes nothing, so nobody asks who it was

	// call answers with one document.
	call func(ctx context.Context, r *request) (answer, error)
	// stream writes for as long as it likes, or answers by itself; its error is for the time
	// before the first byte.
	stream func(w http.ResponseWriter, r *request) error
	// plain is not part of /v1: any query is fine.
	plain func(w http.ResponseWriter, r *http.Request) error
}

// routes is the door's table of contents.
func (d *door) routes() []route {
	const (
		services  = api.PathServices
		instances = services + "/:service/instances"
		instance  = instances + "/:id"
	)
	read := func(more ...string) []string { return append(more, "ns", "consistency", "min_revision") }
	return append([]route{
		{method: "PUT", path: instance, query: []string{"ns"}, body: true, call: d.register},
		{method: "GET", path: instance, query: read(), call: d.get},
		{method: "DELETE", path: instance, query: []string{"incarnation", "ns"}, call: d.deregister},
		{method: "PUT", path: instance + "/heartbeat", query: []string{"incarnation", "ns"}, body: true, beats: true, call: d.heartbeat},
		{method: "PUT", path: instance + "/status", query: []string{"ns"}, body: true, call: d.setStatus},
		{method: "PUT", path: instance + "/drain", query: []string{"ns"}, body: true, call: d.drain},
		{method: "DELETE", path: instance + "/drain", query: []string{"incarnation", "ns"}, call: d.endDrain},
		{method: "POST", path: api.PathBatchRegister, query: []string{"ns"}, body: true, call: d.batchRegister},
		{method: "POST", path: api.PathBatchHeartbeats, query: []string{"ns"}, body: true, beats: true, call: d.batchHeartbeats},

		{method: "POST", path: "/v1/nodes/:node/report", body: true, call: d.nodeReport},

		{method: "GET", path: services, query: read("limit", "cursor"), call: d.listServices},
		{method: "DELETE", path: services + "/:service", query: []string{"ns"}, call: d.removeService},
		{method: "GET", path: instances, query: read("status", "zone", "tag", "filter", "region", "limit", "cursor"), call: d.listInstances},
		{method: "GET", path: "/v1/resolve/:service", query: read("zone", "limit", "policy"), call: d.resolve},
		{method: "GET", path: "/v1/explain/:service", query: read("from", "zone", "limit", "policy", "at"), call: d.explain},
		{method: "GET", path: api.PathWhatIf, query: []string{"lose", "lose_zone", "lose_link", "service", "from", "limit", "cursor", "ns"}, repeat: []string{"lose", "lose_zone", "lose_link", "service"}, call: d.whatIf},
		{method: "GET", path: api.PathWatch, query: []string{"service", "from", "far", "bookmark", "ns"}, repeat: []string{"service"}, stream: d.watch},

		{method: "GET", path: api.PathEvents, query: []string{"since", "kind", "subject", "limit", "cursor", "follow", "ns"}, stream: d.events},

		{method: "GET", path: api.PathRegions, query: []string{"ns"}, call: d.regions},
		{method: "GET", path: api.PathRegions + "/:region", query: []string{"ns"}, call: d.regionInfo},
		{method: "POST", path: api.PathRegions + "/:region/epoch", body: true, call: d.raiseEpoch},
		{method: "GET", path: api.PathRegions + "/:region/members", call: d.listMembers},
		{method: "POST", path: api.PathRegions + "/:region/members", body: true, call: d.addMember},
		{method: "DELETE", path: api.PathRegions + "/:region/members/:node", query: []string{"force"}, call: d.removeMember},
		{method: "GET", path: api.PathFederation, call: d.federation},
		{method: "POST", path: api.PathVerify, query: []string{"region"}, call: d.verifyRegion},
		{method: "POST", path: api.PathResync, query: []string{"region"}, call: d.resyncRegion},
		{method: "GET", path: api.PathLimits, call: d.limits},
		{method: "GET", path: api.PathSnapshot, stream: d.snapshot},

		{method: "GET", path: pathKVKey, query: read("prefix", "keys", "limit", "cursor", "watch", "from", "meta"), stream: d.kvRead},
		{method: "PUT", path: pathKVKey, query: []string{"cas", "epoch", "ns"}, body: true, call: d.kvPut},
		{method: "DELETE", path: pathKVKey, query: []string{"cas", "epoch", "ns"}, call: d.kvDelete},

		{method: "GET", path: api.PathPrometheus, query: []string{"service", "ns", "region"}, call: d.prometheus},
		{method: "GET", path: api.PathOpenAPI, call: d.openAPI},

		{method: "GET", path: api.PathLivez, plain: d.livez},
		{method: "GET", path: api.PathReadyz, plain: d.readyz},
		{method: "GET", path: api.PathMetrics, plain: d.exportMetrics},
	}, d.steeringRoutes(read)...)
}

// absent are paths that the design names and this version does not have: whoever read of
// them learns why they are not there.
var absent = []string{
	"/ui", "/ui/*", "/consul/*", "/eureka/*",
}

func (d *door) router(routes []route) http.Handler {
	e := echo.New()
	e.IPExtractor = echo.ExtractIPDirect() // X-Forwarded-For comes from anyone
	e.Pre(d.around)                        // before routing, so that no path escapes it
	for _, rt := range routes {
		h := d.handler(rt)
		e.Add(rt.method, rt.path, h)
		if rt.method == http.MethodGet {
			e.Add(http.MethodHead, rt.path, h)
		}
	}
	for _, path := range absent {
		e.RouteNotFound(path, func(c echo.Context) error {
			return &api.Error{
				Code: api.CodeNotFound, Detail: "the path " + api.Quote(c.Request().URL.Path) + " is not in this version of Nearside",
				Remedy: "GET /v1/limits shows what a node allows; the README lists what there is",
			}
		})
	}
	return e
}

// handler turns a route into echo's form. Everything that echo knows of a request stays
// in this file.
func (d *door) handler(rt route) echo.HandlerFunc {
	if rt.plain != nil {
		return func(c echo.Context) error { return rt.plain(c.Response(), c.Request()) }
	}
	return func(c echo.Context) error {
		r := &request{Request: c.Request(), params: c}
		var err error
		if r.query, err = parseQuery(r.URL.RawQuery, rt.query, rt.repeat); err != nil {
			return err
		}
		if !rt.body {
			if err := r.refuseBody(); err != nil {
				return err
			}
		}
		ctx := r.Context()
		if auth := r.Header.Get("Authorization"); auth != "" {
			if ctx, err = withToken(ctx, auth); err != nil {
				return err
			}
		}
		if rt.method != http.MethodGet && !rt.beats {
			ctx = registry.WithActor(ctx, strings.TrimSpace("client "+c.RealIP()))
		}
		if rt.stream != nil {
			r.Request = r.WithContext(ctx)
			return rt.stream(c.Response(), r)
		}
		within := withDeadline(ctx, d.Timeout)
		defer within.end()
		a, err := rt.call(within, r)
		if err != nil {
			return err
		}
		return d.write(c.Response(), a, r.Header["If-None-Match"])
	}
}

// withToken puts the bearer token where the registry's authorizer finds it.
func withToken(ctx context.Context, header string) (context.Context, error) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return ctx, &api.Error{
			Code: api.CodeUnauthorized, Detail: "the Authorization header is not of the form Bearer TOKEN",
			Remedy: "send Authorization: Bearer and the token, or no such header",
		}
	}
	return registry.WithToken(ctx, token), nil
}

// around is what every request goes through: id, guard, panics, errors, measures. It
// returns nil: every answer is written when it returns.
func (d *door) around(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		begin := time.Now()
		w := c.Response()
		h := w.Header()
		h[api.HeaderRequestID] = []string{d.ids.of(c.Request().Header)}
		h[api.HeaderNode] = d.stamps.node
		if m := c.Request().Method; m != http.MethodPut && m != http.MethodDelete {
			forBrowsers(h)
		}
		span, status := d.startSpan(c), http.StatusInternalServerError // until told otherwise
		defer func() { endSpan(span, c, status) }()

		err := d.guard.check(c.Request())
		if err == nil {
			err = d.protect(next, c)
		}
		ctx := c.Request().Context()
		gone := err != nil && ctx.Err() != nil
		if status = w.Status; err != nil {
			status = d.refuse(c, err, gone)
		}
		if err != nil || !isStream(h) {
			d.metrics.observe(ctx, c.Request().Method, c.Path(), status, gone, time.Since(begin))
		}
		return nil
	}
}

var (
	noSniff = []string{"nosniff"}
	noStore = []string{"no-store"}
)

// forBrowsers tells browsers and caches to keep nothing and to guess nothing. Answers to PUT
// and DELETE, which neither shows nor keeps, do without unless they are refusals: more than
// eight headers cost as much as the rest of a heartbeat.
func forBrowsers(h http.Header) {
	h["X-Content-Type-Options"] = noSniff
	h["Cache-Control"] = noStore
}

// protect turns a panic into an error. Once bytes were sent the connection is cut instead,
// so that the client does not take half an answer for a whole one.
func (d *door) protect(next echo.HandlerFunc, c echo.Context) (err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v == http.ErrAbortHandler {
			panic(v)
		}
		d.Logger.Error("panic in a request", "request_id", c.Response().Header().Get(api.HeaderRequestID),
			"route", c.Path(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		if c.Response().Committed {
			panic(http.ErrAbortHandler)
		}
		err = fmt.Errorf("panic: %v", v)
	}()
	return next(c)
}

// refuse answers with the problem that err is, and returns its status.
func (d *door) refuse(c echo.Context, err error, gone bool) int {
	var e *api.Error
	var he *echo.HTTPError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &he) && he.Code == http.StatusMethodNotAllowed:
		e = &api.Error{
			Code: api.CodeMethodNotAllowed, Detail: api.Quote(c.Request().Method) + " does not work on this path",
			Remedy: "use " + c.Response().Header().Get(echo.HeaderAllow),
		}
	case errors.As(err, &he):
		e = unknownPath(c.Request().URL)
		if d.beside {
			e.Remedy = "this is the federation of region " + string(d.Region) + "; ask one of the region's nodes"
		}
	default:
		e = d.asError(err)
	}
	w := c.Response()
	if status := e.Code.HTTPStatus(); status >= http.StatusInternalServerError && !gone {
		d.Logger.Warn("request failed", "request_id", w.Header().Get(api.HeaderRequestID), "method", c.Request().Method,
			"route", c.Path(), "status", status, "code", e.Code, "error", err)
	}
	if !w.Committed {
		writeProblem(w, e)
	}
	return e.Code.HTTPStatus()
}

func unknownPath(u *url.URL) *api.Error {
	e := &api.Error{Code: api.CodeNotFound, Detail: "there is no path " + api.Quote(u.Path)}
	switch {
	case u.Path == "/v1/kv":
		e.Remedy = "use /v1/kv/KEY, or /v1/kv/?prefix= for a list"
	case len(u.Path) > 1 && strings.HasSuffix(u.Path, "/"):
		e.Remedy = "leave out the slash at the end"
	case strings.HasPrefix(u.Path, "/v1/services/"):
		e.Remedy = "use /v1/services/SERVICE/instances or /v1/services/SERVICE/instances/ID"
	default:
		e.Remedy = "paths begin with /v1/, such as " + api.PathServices
	}
	return e
}
