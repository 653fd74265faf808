package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// watchSilence is how long a stream may be silent before it counts as broken: a node sends
// a bookmark every api.BookmarkInterval.
const watchSilence = 3 * api.BookmarkInterval

// stream is one that is followed for as long as the user likes.
type stream struct {
	what   string // for messages
	path   string
	query  url.Values
	resume string // the parameter that takes the id of the last frame
	show   func(event) error
}

// follow shows the frames of a stream and takes it up again where it broke, until ctx ends. One
// that breaks before its first frame, by an answer that is final or because nobody takes what is
// printed is over.
func (s *session) follow(ctx context.Context, st stream) error {
	switch s.out.format {
	case formatTable, formatWide, formatJSON, formatJSONL:
	default:
		return usagef(s.cmd, "%s has no -o %s: use table, json or jsonl", st.what, s.out.format)
	}
	const pause = time.Second
	begun := false
	for {
		last, err := s.followOnce(ctx, st)
		if last != "" {
			begun = true
			st.query.Set(st.resume, last)
		}
		var no *api.Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &no) && !no.Code.Retryable(), errors.As(err, new(*writeError)), !begun:
			return fmt.Errorf("the %s broke: %w", st.what, err)
		}
		s.note("the stream broke (%s); going on in %s", asCLI(err).Error(), pause)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// writeError says that stdout is gone, which no new stream cures.
type writeError struct{ error }

// followOnce reads one stream and returns the last id that it can be taken up from.
func (s *session) followOnce(ctx context.Context, st stream) (last string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := s.client.stream(ctx, st.path, st.query)
	if err != nil {
		return "", err
	}
	defer body.Close()
	var silent atomic.Bool
	silence := time.AfterFunc(watchSilence, func() { silent.Store(true); cancel() })
	defer silence.Stop()
	err = readEvents(body, func(e event) error {
		silence.Reset(watchSilence)
		if err := st.show(e); err != nil {
			return err
		}
		if e.id != "" {
			last = e.id
		}
		return nil
	})
	switch {
	case silent.Load():
		err = fmt.Errorf("%s of silence", watchSilence)
	case err == nil:
		err = errors.New("it ended")
	}
	return last, err
}

// open sends a GET whose answer may go on for ever: its headers come within patience, or it is given
// up. The answer's body must be closed.
func (c *client) open(ctx context.Context, addr, target, accept string, patience time.Duration) (*http.Response, error) {
	var connected, late atomic.Bool
	streamCtx, cancel := context.WithCancel(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}))
	timer := time.AfterFunc(patience, func() { late.Store(true); cancel() })
	defer timer.Stop()
	req, err := c.request(streamCtx, http.MethodGet, addr+target)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Accept", accept)
	resp, err := c.http.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		// A refusal ends, and is read at once: the time is for all of it.
		resp.Body, err = readWhole(resp.Body)
	}
	if late.Load() && err == nil {
		resp.Body.Close()
		err = context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		if late.Load() {
			err = context.DeadlineExceeded
		}
		return nil, c.noAnswer(ctx, addr, connected.Load(), patience, err)
	}
	resp.Body = &endless{resp.Body, cancel}
	return resp, nil
}

// readWhole reads the body of a refusal.
func readWhole(body io.ReadCloser) (io.ReadCloser, error) {
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, 1<<20))
	return io.NopCloser(bytes.NewReader(data)), err
}

// endless is the body of an answer that open returned.
type endless struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (e *endless) Close() error {
	defer e.cancel()
	return e.ReadCloser.Close()
}

// first returns what from makes of the first address that answers.
func (c *client) first(ctx context.Context, from func(addr string) (io.ReadCloser, error)) (io.ReadCloser, error) {
	var first error
	for _, addr := range c.addrs {
		body, err := from(addr)
		if err == nil || errors.As(err, new(*api.Error)) {
			return body, err
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// event is one server-sent event.
type event struct {
	name, id string
	data     []byte
}

// readEvents reads server-sent events until the stream ends or f fails. A comment counts as
// an event without a name.
func readEvents(r io.Reader, f func(event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), 8<<20)
	var e event
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			if err := f(e); err != nil {
				return err
			}
			e = event{}
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			e.name = string(value)
		case "id":
			e.id = string(value)
		case "data":
			if e.data != nil {
				e.data = append(e.data, '\n')
			}
			e.data = append(e.data, value...)
		}
	}
	return lines.Err()
}
