package peer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
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
	"github.com/nearside/nearside/federation/summary"
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
			DisableCompression:  true, // we ask for our own, which is flushed with each frame
		}
	}
	c.Timeout = 0
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{http: &c, verify: verify}
}

// CloseIdle closes connections that are not in use.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Stream is an open stream. It belongs to one goroutine.
type Stream struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	alive  *time.Timer
	body   io.Closer
	lines  *bufio.Scanner
	unzip  *unsqueezed // nil when the stream is plain
	echo   string      // what its greetings must say again
}

// Open asks the federation at base for its stream. meter, when not nil, is called with the
// number of bytes of every read. An *api.Error is the peer's no; anything else means that
// it could not be asked. ctx must outlive the stream; its end ends it.
func (c *Client) Open(ctx context.Context, base string, q Query, meter func(int)) (*Stream, error) {
	q.echo = rand.Text()
	s, err := c.begin(ctx, func(ctx context.Context) (*http.Response, error) { return c.open(ctx, base, q) }, meter)
	if err != nil {
		return nil, err
	}
	s.echo = q.echo
	return s, nil
}

// begin makes a stream of the answer to ask.
func (c *Client) begin(ctx context.Context, ask func(context.Context) (*http.Response, error), meter func(int)) (*Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &Stream{ctx: ctx, cancel: cancel}
	began := time.Now()
	s.alive = time.AfterFunc(AnswerLimit, func() { cancel(ErrSilent) })
	resp, err := ask(ctx)
	if err != nil {
		return nil, s.fail(err)
	}
	s.body = resp.Body
	if time.Since(began) > AnswerLimit {
		// We were suspended meanwhile, and what is in the socket may be just as old.
		cancel(ErrSilent)
		return nil, s.fail(ErrSilent)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, s.fail(problem(resp))
	}
	if ct := resp.Header.Get("Content-Type"); ct != StreamType {
		return nil, s.fail(fmt.Errorf("%w: it answers with content type %s", ErrNotPeer, api.Quote(ct)))
	}
	s.alive.Stop()
	wire := &watched{stream: s, in: resp.Body, meter: meter}
	var in io.Reader = wire
	switch e := resp.Header.Get("Content-Encoding"); e {
	case "":
	case encoding:
		if s.unzip, err = newUnsqueezed(wire); err != nil {
			return nil, s.fail(err)
		}
		in = s.unzip
	default:
		return nil, s.fail(fmt.Errorf("%w: it answers with content encoding %s", ErrNotPeer, api.Quote(e)))
	}
	s.lines = bufio.NewScanner(in)
	s.lines.Buffer(make([]byte, 0, 64<<10), replica.MaxFrameBytes)
	return s, nil
}

// open asks with what the reader knows of its rows, when it tells that. The node that answers
// may be older than the one that asked for it: then it is told less, and at last asked for
// everything.
func (c *Client) open(ctx context.Context, base string, q Query) (*http.Response, error) {
	type body struct {
		kind  string
		bytes []byte
	}
	var bodies []body
	if q.Holding != nil {
		bodies = append(bodies, body{HoldingType, q.Holding.Bytes()})
	}
	if q.Sums != nil {
		bodies = append(bodies, body{SumsType, q.Sums.Bytes()})
		if len(q.Sums) > summary.Buckets {
			bodies = append(bodies, body{SumsType, q.Sums.Fold().Bytes()})
		}
	}
	for _, b := range bodies {
		resp, err := c.send(ctx, base, PathStream, q.peer(), q.values(), b.kind, b.bytes)
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusMethodNotAllowed:
			return resp, nil
		}
		_ = resp.Body.Close() // only read from
	}
	q.Full = q.Full || bodies != nil
	return c.send(ctx, base, PathStream, q.peer(), q.values(), "", nil)
}

// Ack tells the origin at base, where stream runs, where the reader stands.
func (c *Client) Ack(ctx context.Context, base string, q Query, stream string, a replica.Ack) error {
	ctx, cancel := context.WithTimeout(ctx, SilenceLimit)
	defer cancel()
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	v := url.Values{"reader": {string(q.Reader)}, "region": {string(q.peer())}, "stream": {stream}}
	resp, err := c.send(ctx, base, PathAck, q.peer(), v, "application/json", body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode != http.StatusNoContent {
		return problem(resp)
	}
	return nil
}

// Next returns the next frame. Errors that wrap replica.ErrMalformed mean that the peer
// sends what it must not; others that the stream is over.
func (s *Stream) Next() (replica.Frame, error) {
	line, err := s.line()
	if err != nil {
		return replica.Frame{}, err
	}
	f, err := replica.Decode(line)
	if f.Kind == replica.Hello && f.Echo != "" && f.Echo != s.echo {
		return replica.Frame{}, fmt.Errorf("%w: its greeting answers another request, as a recording does", ErrNotPeer)
	}
	return f, err
}

// line returns the next line that is not empty; it holds until the next call.
func (s *Stream) line() ([]byte, error) {
	for s.lines.Scan() {
		if line := s.lines.Bytes(); len(line) > 0 {
			return line, nil
		}
	}
	err := s.lines.Err()
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("%w: over %d bytes", replica.ErrMalformed, replica.MaxFrameBytes)
	case context.Cause(s.ctx) != nil:
		return nil, context.Cause(s.ctx)
	case err != nil:
		return nil, err
	}
	return nil, ErrEnded
}

// Close ends the stream.
func (s *Stream) Close() {
	s.alive.Stop()
	s.cancel(context.Canceled)
	if s.body != nil {
		_ = s.body.Close() // only read from
	}
	if s.unzip != nil {
		s.unzip.Close()
	}
}

// Expire ends the stream after d as if it were silent, unless the returned function is called before.
func (s *Stream) Expire(d time.Duration) (stop func() bool) {
	return time.AfterFunc(d, func() { s.cancel(ErrSilent) }).Stop
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
	read   int64
	err    error
}

func (w *watched) Read(p []byte) (int, error) {
	w.stream.alive.Reset(SilenceLimit)
	n, err := w.in.Read(p)
	w.stream.alive.Stop()
	if n > 0 && w.meter != nil {
		w.meter(n)
	}
	w.read, w.err = w.read+int64(n), err
	return n, err
}

// Ping measures one round trip to the federation at base. The first ping of a connection
// includes making it.
func (c *Client) Ping(ctx context.Context, base string, q Query) (time.Duration, Pong, error) {
	ctx, cancel := context.WithTimeout(ctx, SilenceLimit)
	defer cancel()
	var pong Pong
	began := time.Now()
	resp, err := c.send(ctx, base, PathPing, q.peer(), q.values(), "", nil)
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

// send makes one request: a GET, or with a body's type a POST.
func (c *Client) send(ctx context.Context, base, path string, peer api.Region, v url.Values, bodyType string, body []byte) (*http.Response, error) {
	method := http.MethodGet
	if bodyType != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path+"?"+v.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if bodyType != "" {
		req.Header.Set("Content-Type", bodyType)
	}
	if path == PathStream || path == PathDetail {
		req.Header.Set("Accept-Encoding", encoding)
	}
	resp, err := c.http.Do(req)
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // its text repeats the whole URL
	}
	if err != nil || c.verify == nil {
		return resp, err
	}
	if err := c.verify(peer, resp.TLS); err != nil {
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
