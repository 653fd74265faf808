// Package node speaks HTTP v1 with the nodes of a region: small requests and watches.
// It knows no fail-over; callers choose the node.
package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// maxAnswer bounds the body of an answer that is not a stream.
const maxAnswer = 64 << 20

// Caller sends requests to nodes. Its fields are set once; it is safe for concurrent use.
type Caller struct {
	HTTP  *http.Client // required
	Token string       // bearer token; "" = none
}

// NewHTTPClient returns the client for talking to registries: no proxy, no redirects (they
// would carry the token elsewhere), quick dials. The second result closes its idle
// connections and ends dials that are under way: a transport goes on with those after the
// request that began them is over.
func NewHTTPClient() (*http.Client, func()) {
	all, stop := context.WithCancel(context.Background())
	d := net.Dialer{Timeout: time.Second, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		Proxy: nil,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(all, cancel)()
			return d.DialContext(ctx, network, address)
		},
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   3 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
	c := &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, func() {
		stop()
		t.CloseIdleConnections()
	}
}

// Answer is what a node said besides the body.
type Answer struct {
	Region api.Region // whose node it is; "" when it did not say
	// RetryAfter is how long the node asks to be left alone; 0 = it did not say.
	RetryAfter time.Duration
}

// Do sends one request and decodes a 2xx answer into out (nil = ignored). An answer that
// is not 2xx is an *api.Error; any other error means that no answer came.
func (c *Caller) Do(ctx context.Context, method, base, path string, query url.Values, in, out any) (Answer, error) {
	resp, err := c.send(ctx, method, base, path, query, in, "application/json")
	if err != nil {
		return Answer{}, err
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
		_ = resp.Body.Close()
	}()
	a := answerOf(resp)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return a, problem(resp)
	}
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return a, nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return a, fmt.Errorf("answer of %s: %w", base, err)
	}
	if len(b) > maxAnswer {
		return a, fmt.Errorf("answer of %s is over %d bytes", base, maxAnswer)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return a, fmt.Errorf("answer of %s is not what it should be: %w", base, err)
	}
	return a, nil
}

// Region asks a node for its region; "" when it answers and does not say. It is asked at
// api.PathReadyz, which every program may, ready or not.
func (c *Caller) Region(ctx context.Context, base string) (api.Region, error) {
	resp, err := c.send(ctx, http.MethodGet, base, api.PathReadyz, nil, nil, "application/json")
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if r := answerOf(resp).Region; r != "" {
		return r, nil
	}
	var ready api.Readiness
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(b, &ready) != nil || !api.ValidLabel(string(ready.Region)) {
		return "", nil // something in between that does not know this path, perhaps
	}
	return ready.Region, nil
}

func (c *Caller) send(ctx context.Context, method, base, path string, query url.Values, in any, accept string) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("request to %s: %w", base, err)
		}
		body = bytes.NewReader(b)
	}
	u := base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, fmt.Errorf("request to %s: %w", base, err)
	}
	req.Header.Set("Accept", accept)
	if method == http.MethodPut {
		// Safe to repeat, each with its incarnation: a connection that the node closed in the moment it
		// was taken from the pool costs no failure. Without a value the header is not sent.
		req.Header["Idempotency-Key"] = nil
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", base, bare(err))
	}
	return resp, nil
}

// bare takes the *url.Error off: it repeats the method and the whole URL.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func answerOf(resp *http.Response) Answer {
	a := Answer{}
	if r := resp.Header.Get(api.HeaderRegion); api.ValidLabel(r) {
		a.Region = api.Region(r)
	}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		a.RetryAfter = min(time.Duration(n)*time.Second, 30*time.Second)
	}
	return a
}

// problem reads a problem document; anything else becomes an *api.Error of the status.
func problem(resp *http.Response) error {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media == api.ProblemType || media == "application/json" {
		var p api.Problem
		if json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&p) == nil && p.Code != "" {
			return p.Err()
		}
	}
	code := api.CodeInternal
	switch resp.StatusCode {
	case http.StatusBadRequest:
		code = api.CodeInvalidRequest
	case http.StatusUnauthorized:
		code = api.CodeUnauthorized
	case http.StatusForbidden:
		code = api.CodeForbidden
	case http.StatusNotFound:
		code = api.CodeNotFound
	case http.StatusTooManyRequests:
		code = api.CodeTooManyRequests
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		code = api.CodeUnavailable
	case http.StatusGatewayTimeout:
		code = api.CodeTimeout
	}
	return api.Errorf(code, "%s answered %d without saying why", resp.Request.URL.Host, resp.StatusCode)
}
