package nearside

import (
	"io"
	"net/http"
	"sync"
)

// body hands one request body to several attempts. A base transport closes the body it
// was given even when it could not connect; so it gets a reader whose Close only counts
// until it is certain that no other attempt follows.
type body struct {
	first   io.ReadCloser // nil = no body
	get     func() (io.ReadCloser, error)
	current *attemptBody
}

func newBody(req *http.Request) *body {
	b := &body{get: req.GetBody}
	if req.Body != nil && req.Body != http.NoBody {
		b.first = req.Body
	}
	return b
}

// reader returns the body of the attempt that follows; nil when there is none.
func (b *body) reader() io.ReadCloser {
	if b.first == nil {
		return nil
	}
	if b.current == nil {
		b.current = &attemptBody{rc: b.first}
	}
	b.current.given = true
	return b.current
}

// again prepares the next attempt. It reports false when the body was touched and cannot
// be had from its start again.
func (b *body) again() bool {
	if b.first == nil || b.current == nil {
		return true
	}
	if rc := b.current.handOver(); rc != nil {
		b.current = &attemptBody{rc: rc}
		return true
	}
	if b.get == nil {
		return false
	}
	rc, err := b.get()
	if err != nil {
		return false
	}
	b.current.finish()
	b.current = &attemptBody{rc: rc}
	return true
}

// finish lets go of the body: it is closed now, or when the base transport that has it closes it.
func (b *body) finish() {
	switch {
	case b.current != nil:
		b.current.finish()
	case b.first != nil:
		_ = b.first.Close()
	}
}

// attemptBody is the body as one attempt sees it. The transport may read and close it
// from another goroutine, and after RoundTrip returned.
type attemptBody struct {
	given bool // a transport has it; else nobody but finish closes it

	mu     sync.Mutex
	rc     io.ReadCloser
	read   bool
	closed bool // by the transport
	final  bool // no other attempt will read it
	gone   bool // another attempt has it
}

// Read reads from the body.
func (b *attemptBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.closed || b.gone {
		b.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	b.read = true
	b.mu.Unlock()
	return b.rc.Read(p)
}

// Close closes the body, unless another attempt may still want it untouched.
func (b *attemptBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if !b.gone && (b.read || b.final) {
		return b.rc.Close()
	}
	return nil
}

// handOver gives an untouched body to another attempt; nil when it was read from.
func (b *attemptBody) handOver() io.ReadCloser {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read {
		return nil
	}
	b.gone = true
	return b.rc
}

func (b *attemptBody) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.final {
		return
	}
	b.final = true
	if !b.gone && !b.read && (b.closed || !b.given) {
		_ = b.rc.Close()
	}
}

// answerBody tells when the caller is done with an answer.
type answerBody struct {
	io.ReadCloser
	once sync.Once
	done func()
}

// Read tells at the end.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.once.Do(b.done)
	}
	return n, err
}

// Close tells, if the end was not reached.
func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.done)
	return err
}

// wrapBody wraps the body of an answer; that of a switched protocol can be written too.
func wrapBody(rc io.ReadCloser, done func()) io.ReadCloser {
	b := &answerBody{ReadCloser: rc, done: done}
	if w, ok := rc.(io.Writer); ok {
		return struct {
			*answerBody
			io.Writer
		}{b, w}
	}
	return b
}
