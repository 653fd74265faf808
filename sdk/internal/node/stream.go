package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// maxLine bounds one line of a watch; a summary of 32 endpoints with the greatest metadata
// is about 1 MiB.
const maxLine = 8 << 20

// ErrSilent ends a watch that proved no life for too long.
var ErrSilent = errors.New("the watch went silent")

// ErrNoStream means that something answered, but not with a stream.
var ErrNoStream = errors.New("the answer is no event stream")

// WatchRequest says what to watch.
type WatchRequest struct {
	Namespace api.Namespace
	Services  []api.ServiceName
	From      api.Version // zero = from the start
}

// Watch is an open stream. Use it from one goroutine; Close may come from any.
type Watch struct {
	Answer
	body   io.ReadCloser
	lines  *bufio.Reader
	cancel context.CancelCauseFunc
	life   *time.Timer // ends the stream when it fires
	quiet  time.Duration
	once   sync.Once
}

// Watch opens a stream at a node. headers bounds the wait for the answer's headers, quiet
// the time without a byte after them. The stream ends with ctx, and must be closed.
func (c *Caller) Watch(ctx context.Context, base string, w WatchRequest, headers, quiet time.Duration) (*Watch, error) {
	q := url.Values{"far": {"true"}}
	for _, s := range w.Services {
		q.Add("service", string(s))
	}
	if w.Namespace != "" && w.Namespace != api.DefaultNamespace {
		q.Set("ns", string(w.Namespace))
	}
	if !w.From.IsZero() {
		q.Set("from", w.From.String())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	life := time.AfterFunc(headers, func() { cancel(ErrSilent) })
	resp, err := c.send(ctx, http.MethodGet, base, api.PathWatch, q, nil, "text/event-stream")
	if err != nil {
		life.Stop()
		if cause := context.Cause(ctx); errors.Is(cause, ErrSilent) {
			err = fmt.Errorf("registry %s: no answer within %s: %w", base, headers, ErrSilent)
		}
		cancel(nil)
		return nil, err
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode != http.StatusOK || media != "text/event-stream" {
		err := problem(resp)
		if resp.StatusCode == http.StatusOK {
			err = fmt.Errorf("registry %s: the watch came as %s: %w", base, api.Quote(media), ErrNoStream)
		}
		life.Stop()
		_ = resp.Body.Close()
		cancel(nil)
		return nil, err
	}
	life.Reset(quiet)
	return &Watch{
		Answer: answerOf(resp), body: resp.Body, lines: bufio.NewReaderSize(resp.Body, 32<<10),
		cancel: cancel, life: life, quiet: quiet,
	}, nil
}

// Close ends the stream. Next returns an error from then on.
func (w *Watch) Close() {
	w.once.Do(func() {
		w.life.Stop()
		w.cancel(nil)
		_ = w.body.Close()
	})
}

// SetQuiet changes how long the stream may be silent, from now on. Use it from the
// goroutine of Next.
func (w *Watch) SetQuiet(d time.Duration) {
	w.quiet = d
	w.life.Reset(d)
}

// Next returns the next frame. alive is called for every line, also for those that are no
// frame; it may be nil. Events of an unknown name are skipped: a later registry may have
// more. Any error ends the stream.
func (w *Watch) Next(alive func()) (api.Frame, error) {
	var kind, data []byte
	for {
		line, err := w.line()
		if err != nil {
			return api.Frame{}, err
		}
		w.life.Reset(w.quiet)
		if alive != nil {
			alive()
		}
		if len(line) == 0 {
			if len(data) == 0 {
				kind = nil
				continue
			}
			f, ok, err := frame(kind, data)
			if err != nil || ok {
				return f, err
			}
			kind, data = nil, nil
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			kind = bytes.Clone(value)
		case "data":
			if len(data)+len(value) > maxLine {
				return api.Frame{}, errLine
			}
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, value...)
		}
	}
}

var errLine = fmt.Errorf("a line of the watch is over %d bytes", maxLine)

// line returns the next line without its end; it is valid until the next call.
func (w *Watch) line() ([]byte, error) {
	line, err := w.lines.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			if len(long) > maxLine {
				return nil, errLine
			}
			line, err = w.lines.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if err != nil {
		if !w.life.Stop() && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("nothing came for %s: %w", w.quiet, ErrSilent)
		}
		return nil, fmt.Errorf("the watch ended: %w", err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func frame(kind, data []byte) (f api.Frame, known bool, err error) {
	f.Kind = api.FrameKind(kind)
	switch f.Kind {
	case api.FrameItem, api.FrameSynced, api.FrameChange, api.FrameReset, api.FrameBookmark, api.FrameReplica, api.FramePolicy:
	default:
		return f, false, nil
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, false, fmt.Errorf("a %s of the watch is not readable: %w", api.Quote(string(kind)), err)
	}
	return f, true, nil
}
