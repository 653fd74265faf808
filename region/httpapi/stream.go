package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// stream writes frames as server-sent events. A write that fails ends it for good.
type stream struct {
	ctx    context.Context
	rc     *http.ResponseController
	onOpen func() // sets headers
	mu     sync.Mutex
	w      http.ResponseWriter // guarded by mu, as are all below
	opened bool
	closed bool
	failed error
	frames uint64
	buf    bytes.Buffer
	enc    *json.Encoder
}

func newStream(ctx context.Context, w http.ResponseWriter, rc *http.ResponseController, onOpen func()) *stream {
	s := &stream{ctx: ctx, w: w, rc: rc, onOpen: onOpen}
	s.enc = newEncoder(&s.buf)
	return s
}

// open sends the headers and the retry line, unless that is done or the stream is over. It
// does not wait for a send under way: that one opens the stream.
func (s *stream) open() error {
	if !s.mu.TryLock() {
		return nil
	}
	defer s.mu.Unlock()
	if s.opened || s.closed || s.ctx.Err() != nil {
		return s.failed
	}
	s.openLocked()
	return s.flushLocked()
}

func (s *stream) openLocked() {
	s.opened = true
	s.onOpen()
	s.w.WriteHeader(http.StatusOK)
	s.buf.WriteString("retry: 1000\n\n")
}

// send writes one frame of a watch.
func (s *stream) send(f api.Frame) error {
	return s.write(func() error { return s.appendLocked(f) }, more(&f))
}

// write has one frame added to the buffer, up to the end of its data line, and, unless
// others follow at once, flushes. It blocks for frameTimeout at most.
func (s *stream) write(add func() error, more bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failed != nil:
		return s.failed
	case s.closed:
		return errors.New("watch: the stream is over")
	case s.ctx.Err() != nil:
		return s.failLocked(context.Cause(s.ctx))
	}
	if !s.opened {
		s.openLocked()
	}
	if err := add(); err != nil {
		return s.failLocked(fmt.Errorf("encode a frame: %w", err))
	}
	s.buf.WriteByte('\n')
	s.frames++
	if more && s.buf.Len() < batchBytes {
		return nil
	}
	return s.flushLocked()
}

// batchBytes is how much of a long list is written at once.
const batchBytes = 16 << 10

// more reports whether another frame follows f at once: items go on up to synced, and
// changes that are marked so up to the last of their revision.
func more(f *api.Frame) bool {
	return f.Kind == api.FrameItem || f.Kind == api.FrameChange && f.More
}

// appendLocked adds f to the buffer. JSON holds no line breaks, so one data line is enough.
func (s *stream) appendLocked(f api.Frame) error {
	if resumable(&f) {
		s.buf.WriteString("id: ")
		s.buf.WriteString(f.Version.String())
		s.buf.WriteByte('\n')
	}
	s.buf.WriteString("event: ")
	s.buf.WriteString(string(f.Kind))
	s.buf.WriteString("\ndata: ")
	return s.enc.Encode(&f) // ends the line
}

// resumable reports whether a client that has f has everything up to its version.
func resumable(f *api.Frame) bool {
	switch f.Kind {
	case api.FrameSynced, api.FrameBookmark:
		return !f.Version.IsZero()
	case api.FrameChange:
		return !f.More && !f.Version.IsZero()
	}
	return false
}

func (s *stream) flushLocked() error {
	// The deadline comes before the look at ctx: whoever ends ctx to cut a write short sets
	// an earlier deadline afterwards.
	if err := s.rc.SetWriteDeadline(time.Now().Add(frameTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return s.failLocked(err)
	}
	if err := s.ctx.Err(); err != nil {
		return s.failLocked(context.Cause(s.ctx))
	}
	_, err := s.w.Write(s.buf.Bytes())
	s.buf.Reset()
	if s.buf.Cap() > maxPooled {
		s.buf = bytes.Buffer{}
		s.enc = newEncoder(&s.buf)
	}
	if err == nil {
		err = s.rc.Flush()
	}
	if err != nil {
		return s.failLocked(err)
	}
	// A deadline that passes while nothing is written would end an HTTP/2 stream. Closing
	// needs no deadline any more: the next send sees ctx.
	_ = s.rc.SetWriteDeadline(time.Time{})
	return nil
}

func (s *stream) failLocked(err error) error {
	s.failed = fmt.Errorf("watch: %w", err)
	return s.failed
}

// close ends the stream, and reports whether it was ever opened. Nothing is written
// afterwards. It may be called again.
func (s *stream) close() (opened bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.opened
}

// controller returns the controller of the connection below w. The router's own writer
// would answer Flush itself, and lose its error.
func controller(w http.ResponseWriter) *http.ResponseController {
	if u, ok := w.(interface{ Unwrap() http.ResponseWriter }); ok {
		w = u.Unwrap()
	}
	return http.NewResponseController(w)
}
