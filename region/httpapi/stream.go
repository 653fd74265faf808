package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/nearside/nearside/region/encoded"
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
	sent   *encoded.Budget
	lift   bool    // HTTP/2: no deadline between two writes
	buf    *buffer // of the pool, while there is something to write; nil between two writes
}

func newStream(ctx context.Context, w http.ResponseWriter, rc *http.ResponseController, sent *encoded.Budget, onOpen func()) *stream {
	return &stream{ctx: ctx, w: w, rc: rc, onOpen: onOpen, sent: sent}
}

// out returns the buffer to write to; mu is held.
func (s *stream) out() *buffer {
	if s.buf == nil {
		s.buf = buffers.Get().(*buffer)
	}
	return s.buf
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
	s.out().WriteString("retry: 1000\n\n")
}

// send writes one frame of a watch. Of what many streams are sent, place keeps the bytes.
func (s *stream) send(f *api.Frame, place *encoded.Frame) error {
	add := func() error { return appendFrame(s.out(), f) }
	if place != nil {
		add = func() error {
			form := 0
			if f.More {
				form = 1
			}
			b, err := place.Bytes(form, s.sent, func() ([]byte, error) { return frameBytes(f) })
			s.out().Write(b)
			return err
		}
	}
	return s.write(add, more(f))
}

func frameBytes(f *api.Frame) ([]byte, error) {
	b := buffers.Get().(*buffer)
	defer b.release()
	err := appendFrame(b, f)
	return bytes.Clone(b.Bytes()), err
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
	s.out().WriteByte('\n')
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

// appendFrame adds f to the buffer, up to the end of its data line. JSON holds no line
// breaks, so one line is enough.
func appendFrame(b *buffer, f *api.Frame) error {
	if resumable(f) {
		b.WriteString("id: ")
		b.WriteString(f.Version.String())
		b.WriteByte('\n')
	}
	b.WriteString("event: ")
	b.WriteString(string(f.Kind))
	b.WriteString("\ndata: ")
	return b.enc.Encode(f) // ends the line
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
	_, err := s.w.Write(s.out().Bytes())
	s.buf.release()
	s.buf = nil
	if err == nil {
		err = s.rc.Flush()
	}
	if err != nil {
		return s.failLocked(err)
	}
	// A deadline that passes while nothing is written would end an HTTP/2 stream; of an HTTP/1
	// connection it says nothing, and the next write sets another. Closing needs no deadline any
	// more: the next send sees ctx.
	if s.lift {
		_ = s.rc.SetWriteDeadline(time.Time{})
	}
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
