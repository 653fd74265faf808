package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// Verify returns an error unless the connection's other end has proved to be a region.
type Verify func(region api.Region, conn *tls.ConnectionState) error

// Client opens streams of other regions. Safe for concurrent use.
type Client struct {
	http   *http.Client
	verify Verify
}

// NewClient returns a client that sends through hc, without following redirects and without
// a limit on the whole request (a stream has no end; silence ends it). hc nil makes one of
// its own that uses no proxy. verify is asked about every answer before it is read; nil
// believes what the peer says of itself.
func NewClient(hc *http.Client, verify Verify) *Client {
	var c http.Client
	if hc != nil {
		c = *hc
	} else {
		c.Transport = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout: 3 * time.Second,
			MaxIdleConns:        64,
			MaxIdleConnsPerHost: 2,
			IdleConnTimeout:     30 * time.Second,
			DisableCompression:  true, // a compressed stream would be held back in the compressor
		}
	}
	c.Timeout = 0
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{http: &c, verify: verify}
}

// CloseIdle closes connections that are not in use.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Stream is an open stream. It belongs to one goroutine, but Close may come from any.
type Stream struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	alive  *time.Timer
	body   io.Closer
	lines  *bufio.Scanner
}

// Open asks the federation at base for its stream. meter, when not nil, is called with the
// number of bytes of every read. An *api.Error is the peer's no; anything else means that
// it could not be asked. ctx must outlive the stream; its end ends it.
func (c *Client) Open(ctx context.Context, base string, q Query, meter func(int)) (*Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &Stream{ctx: ctx, cancel: cancel}
	s.alive = time.AfterFunc(AnswerLimit, func() { cancel(ErrSilent) })
	resp, err := c.get(ctx, base, PathStream, q)
	if err != nil {
		return nil, s.fail(err)
	}
	s.body = resp.Body
	if resp.StatusCode != http.StatusOK {
		return nil, s.fail(problem(resp))
	}
	if ct := resp.Header.Get("Content-Type"); ct != StreamType {
		return nil, s.fail(fmt.Errorf("%w: it answers with content type %s", ErrNotPeer, api.Quote(ct)))
	}
	s.alive.Stop()
	s.lines = bufio.NewScanner(&watched{stream: s, in: resp.Body, meter: meter})
	s.lines.Buffer(make([]byte, 0, 64<<10), replica.MaxFrameBytes)
	return s, nil
}

// Next returns the next frame. Errors that wrap replica.ErrMalformed mean that the peer
// sends what it must not; others that the stream is over.
func (s *Stream) Next() (replica.Frame, error) {
	for s.lines.Scan() {
		if line := s.lines.Bytes(); len(line) > 0 {
			return replica.Decode(line)
		}
	}
	err := s.lines.Err()
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		return replica.Frame{}, fmt.Errorf("%w: over %d bytes", replica.ErrMalformed, replica.MaxFrameBytes)
	case context.Cause(s.ctx) != nil:
		return replica.Frame{}, context.Cause(s.ctx)
	case err != nil:
		return replica.Frame{}, err
	}
	return replica.Frame{}, ErrEnded
}

// Close ends the stream.
func (s *Stream) Close() {
	s.alive.Stop()
	s.cancel(context.Canceled)
	if s.body != nil {
		_ = s.body.Close() // only read from
	}
}

// fail closes s and returns the cause that helps most.
func (s *Stream) fail(err error) error {
	if cause := context.Cause(s.ctx); errors.Is(cause, ErrSilent) {
		err = fmt.Errorf("%w within %s", ErrSilent, AnswerLimit)
	}
	s.Close()
	return err
}

// watched counts what is read, and takes every byte as a sign of life: a frame may be long
// and the link slow. Silence counts only while we listen: when we are busy with the last
// frames, or were suspended, it is not the peer who is silent.
type watched struct {
	stream *Stream
	in     io.Reader
	meter  func(int)
}

func (w *watched) Read(p []byte) (int, error) {
	w.stream.alive.Reset(SilenceLimit)
	n, err := w.in.Read(p)
	w.stream.alive.Stop()
	if n > 0 && w.meter != nil {
		w.meter(n)
	}
	return n, err
}

// Ping measures one round trip to the federation at base. The first ping of a connection
// includes making it.
func (c *Client) Ping(ctx context.Context, base string, q Query) (time.Duration, Pong, error) {
	ctx, cancel := context.WithTimeout(ctx, SilenceLimit)
	defer cancel()
	var pong Pong
	began := time.Now()
	resp, err := c.get(ctx, base, PathPing, q)
	if err != nil {
		return 0, pong, err
	}
	rtt := time.Since(began)
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode != http.StatusOK {
		return 0, pong, problem(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err == nil {
		err = json.Unmarshal(body, &pong)
	}
	return rtt, pong, err
}

func (c *Client) get(ctx context.Context, base, path string, q Query) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+path+"?"+q.values().Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // its text repeats the whole URL
	}
	if err != nil || c.verify == nil {
		return resp, err
	}
	if err := c.verify(q.Origin, resp.TLS); err != nil {
		_ = resp.Body.Close() // not read at all
		return nil, fmt.Errorf("%w: %w", ErrNotPeer, err)
	}
	return resp, nil
}

// problem reads the peer's no.
func problem(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var p api.Problem
	if err == nil && json.Unmarshal(body, &p) == nil && p.Code != "" {
		return p.Err()
	}
	return fmt.Errorf("%w: it answers with status %d", ErrNotPeer, resp.StatusCode)
}

// Offended reports whether err shows a peer that answers and answers wrongly, or refuses us
// for good: trying again soon is useless. A peer that is away, stopping or busy is not meant.
func Offended(err error) bool {
	var e *api.Error
	if errors.As(err, &e) {
		return !e.Code.Retryable()
	}
	return errors.Is(err, ErrNotPeer) || errors.Is(err, replica.ErrRefused) || errors.Is(err, replica.ErrMalformed)
}
