package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// maxAnswerBytes bounds what is read of one answer.
const maxAnswerBytes = 64 << 20

// client asks region nodes over HTTP v1. Its addresses are tried in order, and the next
// one only when a node gave no answer at all: an answer, even "no", is final. Every request
// that the verbs send is safe to repeat, but for a compare-and-set that may have arrived.
type client struct {
	addrs   []string
	http    *http.Client
	token   string
	timeout time.Duration                    // of one request; 0 = see patience
	note    func(format string, args ...any) // nil = nobody is told of what is no error
}

// How long the client waits for one answer when nobody says it. A node gives a write up after 5 s, and
// a change of its members after 14 s, and then says why: whoever hangs up before that never hears it.
const (
	readPatience   = 5 * time.Second
	writePatience  = 10 * time.Second
	memberPatience = 20 * time.Second
)

// patience returns how long to wait for the answer to one request.
func (c *client) patience(method, path string) time.Duration {
	switch {
	case c.timeout > 0:
		return c.timeout
	case method == http.MethodGet || method == http.MethodHead:
		return readPatience
	case strings.HasPrefix(path, api.PathRegions+"/") && strings.Contains(path, "/members"):
		return memberPatience
	}
	return writePatience
}

// answer is what an answer's headers say.
type answer struct {
	addr   string // of the node that gave it
	status int
	region api.Region
	age    time.Duration // 0 when not told
	source string
	again  string // an address that took the request before and kept silent; "" = none
}

func (c *client) close() { c.http.CloseIdleConnections() }

// get reads path into into (nil = ignore the body).
func (c *client) get(ctx context.Context, path string, query url.Values, into any) (answer, error) {
	return c.do(ctx, http.MethodGet, path, query, into)
}

// do sends one request. Errors are *api.Error when a node said no, and *cliError or the
// context's own otherwise.
func (c *client) do(ctx context.Context, method, path string, query url.Values, into any) (answer, error) {
	return c.send(ctx, method, path, query, nil, into)
}

// payload is the body of a request.
type payload struct {
	media string
	data  []byte
}

// sendJSON is do with a body of JSON.
func (c *client) sendJSON(ctx context.Context, method, path string, query url.Values, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	_, err = c.send(ctx, method, path, query, &payload{"application/json", b}, into)
	return err
}

// send is do with a body (nil = none).
func (c *client) send(ctx context.Context, method, path string, query url.Values, value *payload, into any) (answer, error) {
	a, body, err := c.exchange(ctx, method, path, query, value)
	if err != nil {
		return a, err
	}
	if a.status < 200 || a.status > 299 {
		err := problem(a, body)
		if method == http.MethodDelete && a.again != "" && isGone(err) {
			return a, c.perhapsDone(a, into == nil, err)
		}
		return a, err
	}
	if into == nil {
		return a, nil
	}
	if err := json.Unmarshal(body.data, into); err != nil {
		return a, &cliError{
			exit: ExitError, detail: fmt.Sprintf("%s answered something that is not the API: %s", a.addr, err),
			remedy: "is --addr a region node's HTTP address?", err: err,
		}
	}
	return a, nil
}

// isGone reports whether a node says that there is no such thing.
func isGone(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && exitOf(e.Code) == ExitNotFound && e.Code != api.CodeRegionNotFound
}

// perhapsDone is what becomes of a removal that one node took without an answer, and of which another
// says then that there is nothing to remove: the first has done it, or there never was anything.
func (c *client) perhapsDone(a answer, done bool, err error) error {
	detail := fmt.Sprintf("%s took the request and did not answer, and %s has nothing to remove then: %s", a.again, a.addr, err)
	if done && c.note != nil {
		c.note("%s. It is gone now", detail)
		return nil
	}
	return &cliError{exit: ExitTimeout, detail: detail, remedy: "most likely it is done: look before you repeat it", err: err, reached: true}
}

// content is a body as read.
type content struct {
	data      []byte
	mediaType string
	requestID string
}

// exchange returns the first answer that any address gives, whatever its status.
func (c *client) exchange(ctx context.Context, method, path string, query url.Values, value *payload) (answer, content, error) {
	var first error
	again := ""
	for _, addr := range c.addrs {
		a, body, err := c.exchangeWith(ctx, addr, method, path, query, value)
		if err == nil {
			a.again = again
			return a, body, nil
		}
		if again == "" && reached(err) {
			again = addr
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil || (query.Has("cas") || query.Has("if_revision")) && reached(err) {
			break // sent again, a compare-and-set could meet its own first result
		}
	}
	return answer{}, content{}, first
}

func (c *client) exchangeWith(ctx context.Context, addr, method, path string, query url.Values, value *payload) (answer, content, error) {
	a := answer{addr: addr}
	target := addr + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var connected atomic.Bool
	patience := c.patience(method, path)
	reqCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	traced := httptrace.WithClientTrace(reqCtx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := c.request(traced, method, target)
	if err != nil {
		return a, content{}, err
	}
	if value != nil {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(value.data)), int64(len(value.data))
		req.Header.Set("Content-Type", value.media)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return a, content{}, c.noAnswer(ctx, addr, connected.Load(), patience, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return a, content{}, c.noAnswer(ctx, addr, true, patience, err)
	}
	if len(data) > maxAnswerBytes {
		return a, content{}, &cliError{
			exit: ExitError, detail: fmt.Sprintf("%s answered more than %d MiB", addr, maxAnswerBytes>>20), remedy: "ask for less, with --limit",
		}
	}
	a.status = resp.StatusCode
	a.region = api.Region(resp.Header.Get(api.HeaderRegion))
	a.source = resp.Header.Get(api.HeaderSource)
	if ms, err := strconv.ParseInt(resp.Header.Get(api.HeaderAgeMS), 10, 64); err == nil && ms > 0 {
		a.age = time.Duration(ms) * time.Millisecond
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return a, content{data: data, mediaType: media, requestID: resp.Header.Get(api.HeaderRequestID)}, nil
}

// request builds a request with the headers that all have.
func (c *client) request(ctx context.Context, method, target string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, &cliError{exit: ExitUsage, detail: err.Error(), err: err}
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "nearside-cli/"+Version)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// problem returns what a node's refusal says.
func problem(a answer, body content) error {
	var p api.Problem
	if json.Unmarshal(body.data, &p) == nil && p.Code != "" {
		e := p.Err()
		if e.RequestID == "" {
			e.RequestID = body.requestID
		}
		if e.Detail == "" {
			e.Detail = fmt.Sprintf("%s answered %d", a.addr, a.status)
		}
		return e
	}
	out := &cliError{
		exit: ExitError, requestID: body.requestID,
		detail: strings.TrimSpace(fmt.Sprintf("%s answered %d %s", a.addr, a.status, http.StatusText(a.status))),
		remedy: "that is not a region node's API: check --addr",
	}
	if speaksTLS(a, body) {
		out.detail, out.remedy = a.addr+" speaks TLS", "use https:// in --addr, and --ca-cert for an authority of your own"
	}
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		out.exit, out.remedy = ExitNotAllowed, "something in front of the node wants other credentials: check --addr and --token-file"
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		out.exit, out.remedy = ExitUnreachable, "something in front of the node cannot reach it: try again, or another --addr"
	case http.StatusGatewayTimeout:
		out.exit, out.remedy = ExitTimeout, "something in front of the node waited in vain: try again, or another --addr"
	}
	return out
}

// speaksTLS reports whether a node that was asked in plain text has TLS.
func speaksTLS(a answer, body content) bool {
	return a.status == http.StatusBadRequest && strings.HasPrefix(a.addr, "http:") && bytes.Contains(body.data, []byte("HTTPS server"))
}

// reached reports whether a node may have acted on the request that failed with err.
func reached(err error) bool {
	var e *cliError
	return !errors.As(err, &e) || e.reached
}

// noAnswer says why a request got none. A node that was never reached is unreachable, one
// that took the request and kept silent timed out.
func (c *client) noAnswer(ctx context.Context, addr string, connected bool, patience time.Duration, err error) error {
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	var (
		timedOut  = errors.Is(err, context.DeadlineExceeded)
		netErr    net.Error
		opErr     *net.OpError
		dnsErr    *net.DNSError
		unknownCA x509.UnknownAuthorityError
		hostname  x509.HostnameError
		record    tls.RecordHeaderError
	)
	timedOut = timedOut || errors.As(err, &netErr) && netErr.Timeout()
	out := &cliError{exit: ExitUnreachable, err: err, reached: connected, remedy: "is a node running there? start one with \"nearside dev\", or say where it is with --addr or NEARSIDE_ADDR"}
	cause := err.Error()
	switch {
	case timedOut && connected:
		return &cliError{
			exit: ExitTimeout, detail: fmt.Sprintf("%s did not answer within %s", addr, patience),
			remedy: "try again, or wait longer with --timeout", err: err, reached: true,
		}
	case timedOut:
		cause = fmt.Sprintf("no connection within %s", patience)
	case errors.As(err, &unknownCA), errors.As(err, &hostname):
		out.remedy = "trust its authority with --ca-cert, or correct the host name in --addr"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		cause, out.remedy = "it does not speak TLS", "use http:// in --addr"
	case errors.As(err, &dnsErr):
		cause = "the host name is not known"
		out.remedy = "check the host name in --addr"
	case errors.As(err, &opErr):
		cause = opErr.Err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		cause = "it closed the connection"
	}
	cause = strings.TrimPrefix(cause, "connect: ")
	out.detail = fmt.Sprintf("%s does not answer: %s", addr, cause)
	return out
}
