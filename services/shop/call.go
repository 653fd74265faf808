package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

const (
	maxRequestBody  = 64 << 10
	maxResponseBody = 1 << 20
)

// caller calls other services by name. Finding an instance, and repeating a failed call
// at another one, is the business of its transport; when to give up is said by the context.
// It may be used concurrently.
type caller struct{ client *http.Client }

func newCaller(transport http.RoundTripper) *caller {
	return &caller{client: &http.Client{
		Transport: transport,
		// No service of the shop redirects, and following one would leave discovery.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// get asks service for path and reads its JSON answer into out.
func (c *caller) get(ctx context.Context, service, path string, out any) (http.Header, error) {
	return c.do(ctx, http.MethodGet, service, path, "", nil, out)
}

// post sends in as JSON. The key makes the call safe to repeat, for the SDK and for us.
func (c *caller) post(ctx context.Context, service, path, key string, in, out any) (http.Header, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", service, err)
	}
	return c.do(ctx, http.MethodPost, service, path, key, body, out)
}

// do returns a *failure for anything but a success: the downstream's own when it refused
// what was asked (the fault is the shopper's), else a 502 that names the service.
func (c *caller) do(ctx context.Context, method, service, path, key string, body []byte, out any) (http.Header, error) {
	// A bytes.Reader gives the request a GetBody, without which nobody could repeat it.
	ctx = withAttempt(ctx, quickAttempt(service, path))
	req, err := http.NewRequestWithContext(ctx, method, "http://"+service+path, bytes.NewReader(body))
	if err != nil {
		return nil, downstream(service, err)
	}
	req.Header.Set("Accept", "application/json")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(HeaderIdempotencyKey, key)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, downstream(service, cause(err))
	}
	defer resp.Body.Close() //nolint:errcheck // nothing to do about it after reading
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBody+1))
	switch {
	case err != nil:
		return nil, downstream(service, err)
	case len(data) > maxResponseBody:
		return nil, downstream(service, errors.New("the answer is too long"))
	case resp.StatusCode >= 300:
		return nil, refusal(service, resp.StatusCode, data)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return nil, downstream(service, fmt.Errorf("the answer is not readable: %w", err))
	}
	return resp.Header, nil
}

// refusal turns an answer without success into an error of ours.
func refusal(service string, status int, data []byte) error {
	var p problem
	if json.Unmarshal(data, &p) != nil {
		p = problem{}
	}
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity:
		if p.Error != "" {
			return &failure{status: status, problem: p}
		}
	}
	if p.Detail == "" {
		return downstream(service, fmt.Errorf("answered %d", status))
	}
	return downstream(service, fmt.Errorf("answered %d (%s)", status, p.Detail))
}

// cause strips the method and URL that an http.Client puts before an error: the same
// trouble should read the same, whatever was asked for.
func cause(err error) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
