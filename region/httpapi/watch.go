package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// openAfter is how long a watch may be silent before its headers are sent: refusals come
// at once and get a status of their own, and a client that resumes a quiet stream is not
// left to guess whether it is connected.
const openAfter = 200 * time.Millisecond

// eventStream is the media type of streams.
const eventStream = "text/event-stream"

func isStream(h http.Header) bool {
	t := h["Content-Type"]
	return len(t) == 1 && t[0] == eventStream
}

// lastTimeout bounds the write that ends a stream, and before it the one under way when the
// node closes.
const lastTimeout = time.Second

var errClosing = &api.Error{
	Code: api.CodeShuttingDown, Detail: "this node shuts down",
	Remedy: "open the watch at another node, or here again later",
}

// watch is GET /v1/watch.
func (d *door) watch(w http.ResponseWriter, r *request) error {
	q, err := r.watchQuery()
	if err != nil {
		return err
	}
	return d.frames(w, r, func(ctx context.Context, send sender) error {
		return d.Registry.WatchShared(ctx, q, send)
	})
}

// sender takes a frame, and the place where it is kept as it is sent; nil when it is sent
// once only.
type sender = func(*api.Frame, *encoded.Frame) error

// frames answers with the stream of frames that source sends.
func (d *door) frames(w http.ResponseWriter, r *request, source func(context.Context, sender) error) error {
	return d.streaming(w, r, func(ctx context.Context, s *stream) error { return source(ctx, s.send) })
}

// streaming answers with what run writes to the stream. It runs in the request's own
// goroutine until the client leaves, a frame is not taken within frameTimeout, run ends the
// stream, or the node closes.
func (d *door) streaming(w http.ResponseWriter, r *request, run func(context.Context, *stream) error) error {
	if d.Closing.Err() != nil {
		return errClosing
	}
	leave, err := d.crowd.enter(r.RemoteAddr)
	if err != nil {
		return err
	}
	defer leave()
	rc := controller(w)
	// The server's deadline for reading a request would end the stream: the connection is
	// read all the while, to notice a client that leaves.
	if err := rc.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("watch: %w", err)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	s := newStream(ctx, w, rc, d.sent, func() { d.openStream(w, r.ProtoMajor) })
	s.lift = r.ProtoMajor != 1
	if r.Method == http.MethodHead {
		defer s.close()
		return s.open()
	}
	defer d.endOnClosing(cancel, rc, s)()
	d.metrics.streamOpened(ctx)
	defer d.metrics.streamClosed(ctx)

	timer := time.AfterFunc(openAfter, func() { _ = s.open() })
	defer timer.Stop()
	defer s.close()
	err = run(ctx, s)
	if s.close() {
		d.Logger.Debug("watch ended", "request_id", w.Header().Get(api.HeaderRequestID), "frames", s.frames,
			"cause", context.Cause(ctx), "error", err)
		return nil
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errClosing):
		return cause
	case err == nil:
		return &api.Error{Code: api.CodeUnavailable, Detail: "the watch ended before it began", Remedy: "try again"}
	}
	return err
}

// openStream sets the headers of a stream. An HTTP/1 connection is not used again
// afterwards: its deadlines were moved, and only the package's own server would set them
// back. In HTTP/2 deadlines are a stream's own, and the header would end all the others.
func (d *door) openStream(w http.ResponseWriter, protoMajor int) {
	h := w.Header()
	d.stamps.set(h, d.Registry.Stamp())
	h.Set("Content-Type", eventStream)
	if protoMajor == 1 {
		h.Set("Connection", "close")
	}
	h.Set("X-Accel-Buffering", "no") // proxies must not hold frames back
}

// endOnClosing ends the stream when the node closes: at once, or after lastTimeout one whose
// client takes nothing. A deadline of now would end it sooner, but over HTTP/2 a deadline
// that passes resets the stream, also a quiet one that could end well.
// The returned function must be called before the handler returns.
func (d *door) endOnClosing(cancel context.CancelCauseFunc, rc *http.ResponseController, s *stream) func() {
	ended := make(chan struct{})
	stop := context.AfterFunc(d.Closing, func() {
		defer close(ended)
		cancel(errClosing)
		_ = rc.SetWriteDeadline(time.Now().Add(lastTimeout)) // for a write under way
	})
	return func() {
		closing := !stop()
		if closing {
			<-ended // rc must not be used after the handler has returned
		}
		if s.close() || closing {
			_ = rc.SetWriteDeadline(time.Now().Add(lastTimeout)) // for the end of the answer
		}
	}
}

func (r *request) watchQuery() (registry.WatchQuery, error) {
	q := registry.WatchQuery{Namespace: api.AllNamespaces, Far: r.flag("far"), Bookmark: r.bookmark()}
	if r.query.Get("ns") != string(api.AllNamespaces) {
		q.Namespace = r.namespace()
	}
	names := r.query.all("service")
	if len(names) > api.MaxWatchServices {
		r.fail(api.FieldError("service", fmt.Sprintf("%d services in one watch", len(names)),
			fmt.Sprintf("use at most %d, or none for all of the namespace", api.MaxWatchServices)))
	}
	seen := make(map[string]bool, len(names))
	for _, s := range names {
		r.check(api.CheckServiceName(s))
		if !seen[s] {
			seen[s] = true
			q.Services = append(q.Services, api.ServiceName(s))
		}
	}
	q.From = r.resumeFrom()
	return q, r.err
}

// bookmark reads the time between bookmarks; 0 when none is given.
func (r *request) bookmark() time.Duration {
	s := r.query.Get("bookmark")
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < api.MinBookmarkInterval || d > api.BookmarkInterval {
		r.bad("bookmark", s, fmt.Sprintf("use %s to %s, or leave it out", api.MinBookmarkInterval, api.BookmarkInterval))
	}
	return d
}

// resumeFrom reads the version that a stream goes on from; zero when none is given.
func (r *request) resumeFrom() api.Version {
	// A browser opens a lost stream again with the same URL and the id it saw last, so the
	// header is the newer of the two.
	name, from := "Last-Event-ID", r.Header.Get("Last-Event-ID")
	if from == "" {
		name, from = "from", r.query.Get("from")
	}
	v, err := api.ParseVersion(from)
	if err != nil {
		r.bad(name, from, "give back the id of a frame, REGION/EPOCH/REVISION, or leave it out")
	}
	return v
}
