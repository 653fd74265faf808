package nearside

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"
)

// Headers that the transport sets on answers: who served, and after how many attempts.
const (
	HeaderServedRegion   = "Nearside-Served-Region"
	HeaderServedInstance = "Nearside-Served-Instance"
	HeaderAttempts       = "Nearside-Attempts"
)

// domain is the ending under which service names may also be called.
const domain = ".nearside.internal"

// transport is what Client.Transport returns.
type transport struct {
	c    *Client
	base http.RoundTripper
	own  bool // base dials plain TCP with the client's dialer
}

// Transport returns a RoundTripper that calls services by name. These hosts are services:
//
//	http://orders/path                              orders in Config.Namespace
//	http://orders.nearside.internal/path            the same
//	http://orders.svc.nearside.internal/path        the same
//	http://orders.shop.svc.nearside.internal/path   orders in the namespace shop
//
// Any other host goes to base untouched: one with another dot (http://orders.shop/ is a DNS
// name, although Pick takes "orders.shop"), one with a port (http://orders:8080/; instances
// have ports, services do not), and "localhost". base nil means the client's own
// *http.Transport: no proxy, dials of 500 ms, 64 idle connections per instance.
//
// https://orders/path calls the instances over TLS, also with HTTP/2. Their certificates are
// verified for the host as it is written, here "orders", by Config.ServiceTLS. That is so with
// the client's own transport. A base of the program's own is given the URL with an instance's
// address, and verifies for that, unless it says otherwise (tls.Config.ServerName).
//
// For every attempt the next instance is picked and the URL rewritten to its address; the
// Host header stays the service's name. An attempt is repeated on the next instance, after
// two failures in the next tier, and last in another region:
//
//   - when no connection came about: always, since nothing was sent;
//   - when the connection broke before an answer began, the answer is 502, 503 or 504, none
//     came within Config.AttemptTimeout, or the instance turned out to answer nobody: if the
//     call is safe to repeat. These are GET,
//     HEAD, OPTIONS, TRACE, PUT and DELETE, POST and PATCH with an Idempotency-Key
//     header, and all under WithIdempotent, if the body can be read again (Request.GetBody).
//
// An answer of 503 may ask for a pause by Retry-After: repeats then go to instances that did not
// ask, and if all did, the answer is returned at once. 429 is never repeated.
//
// Never after an answer began, never more than Config.MaxAttempts times (refused
// connections and instances that answer nobody aside), and only within the retry budget;
// leaving an instance that answers nobody takes nothing of it. The time of an attempt is
// bounded only while there is another instance to try and the budget allows it, and for
// bodies up to 64 KiB; otherwise it has as long as the request's context, or until the
// instance turns out to answer nobody. WithAttemptTimeout changes it for one call. An answer
// of 502, 503 or 504 that is not repeated is returned as it is. With Config.Hedge a safe call that
// waits for long asks a second instance. The request's own deadline is kept throughout, and nothing
// of a call runs after RoundTrip but the reading of its answer.
//
// Answers carry the headers Nearside-Served-Region, Nearside-Served-Instance and
// Nearside-Attempts. Errors are those of Pick, or a *CallError.
func (c *Client) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		return &transport{c: c, base: c.base, own: true}
	}
	return &transport{c: c, base: base}
}

// maxQuickBody is the greatest body that an attempt's time is enough for: longer uploads
// may rightly take longer.
const maxQuickBody = 64 << 10

// attemptLimit returns how long an attempt of req may take; 0 = not bounded.
// judged tells whether its time says something about the instance.
func (c *Client) attemptLimit(req *http.Request) (limit time.Duration, judged bool) {
	if req.Body != nil && req.Body != http.NoBody && (req.ContentLength < 0 || req.ContentLength > maxQuickBody) {
		return 0, false
	}
	if d, ok := req.Context().Value(attemptKey{}).(time.Duration); ok {
		return max(d, 0), false
	}
	return max(c.cfg.AttemptTimeout, 0), true
}

type attemptKey struct{}

// WithAttemptTimeout returns a context whose calls through a Transport have another time
// per attempt than Config.AttemptTimeout; 0 = no limit. Long polls and slow reports need
// it: without, a slow answer counts as a hung instance.
func WithAttemptTimeout(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, attemptKey{}, d)
}

// dial is how the client's own transport and its keeper connect.
func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: probeDial, KeepAlive: 15 * time.Second}
	return d.DialContext(ctx, network, address)
}

func newBase() *http.Transport {
	d := net.Dialer{Timeout: probeDial, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:                 nil, // an instance is called directly, whatever the environment says
		DialContext:           d.DialContext,
		MaxIdleConnsPerHost:   64,
		MaxIdleConns:          0,
		IdleConnTimeout:       60 * time.Second,
		TLSHandshakeTimeout:   3 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// serviceOf returns the service that a request's host names; ok is false when it names none.
func serviceOf(host string) (name string, ok bool) {
	host = strings.ToLower(host)
	if short, cut := strings.CutSuffix(host, domain); cut {
		if svc, rest, ns := strings.Cut(short, "."); ns {
			// orders.svc, and orders.shop.svc with the namespace in between
			space, isSvc := strings.CutSuffix("."+rest, ".svc")
			if !isSvc {
				return "", false
			}
			return svc + space, true
		}
		return short, short != ""
	}
	if host == "" || host == "localhost" || strings.ContainsAny(host, ".:") {
		return "", false
	}
	return host, true
}

// RoundTrip calls a service; see Client.Transport.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || req.Header == nil {
		return t.base.RoundTrip(req) // it says what is missing
	}
	name, ok := serviceOf(req.URL.Host)
	if !ok {
		return t.base.RoundTrip(req)
	}
	body := newBody(req)
	ctx := req.Context()
	s, a, err := t.c.current(ctx, name)
	if err == nil && len(a.tiers) == 0 {
		err = s.nothing(a)
	}
	if err != nil {
		body.finish()
		t.c.tel.refused(ctx, err)
		return nil, err
	}
	r := run{
		t: t, s: s, req: req, body: body, name: name, base: t.base, start: time.Now(),
		call: call{ctx: ctx, safe: repeatable(req)},
	}
	if t.own && req.URL.Scheme == "https" {
		r.base = t.c.secure.named(strings.ToLower(req.URL.Host))
	}
	r.limit, r.judged = t.c.attemptLimit(req)
	t.c.budget.called(r.start)
	ctx, span := r.begin(ctx, a)
	defer span.End()
	resp, err := r.attempts(ctx, a)
	r.count(ctx, span, resp)
	return resp, err
}
