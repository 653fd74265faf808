package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// answer is what a handler returns instead of an error.
type answer struct {
	status int               // 0 = 200
	body   any               // nil = none
	raw    *document         // sent as it is, instead of body
	header map[string]string // more of them; canonical names
	stamp  registry.Stamp
	short  bool // the server counts the bytes: never for GET, because HEAD sends none to count
	bare   bool // no stamp: the answer is about the node, not about data
	tagged bool // the body changes only when what it tells changes: see etag.go
}

// document is bytes of a media type.
type document struct {
	media string
	bytes []byte
}

// buffer holds an encoder and its output, used again and again.
type buffer struct {
	bytes.Buffer
	enc *json.Encoder
}

const maxPooled = 1 << 20 // bytes; larger buffers are left to the collector

var buffers = sync.Pool{New: func() any {
	b := new(buffer)
	b.enc = newEncoder(&b.Buffer)
	return b
}}

func newEncoder(b *bytes.Buffer) *json.Encoder {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false) // answers are never read as HTML: see the nosniff header
	return enc
}

func (b *buffer) release() {
	if b.Cap() <= maxPooled {
		b.Reset()
		buffers.Put(b)
	}
}

const jsonType = "application/json"

// write sends an answer; known are the entity tags that the client has already. The error
// says that the body could not be encoded; nothing was sent then. A client that does not take the bytes is no error of ours.
func (d *door) write(w http.ResponseWriter, a answer, known []string) error {
	h := w.Header()
	if !a.bare {
		d.stamps.set(h, a.stamp)
	}
	for name, value := range a.header {
		h[name] = []string{value}
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.raw != nil {
		h.Set("Content-Type", a.raw.media)
		h.Set("Content-Length", strconv.Itoa(len(a.raw.bytes)))
		w.WriteHeader(a.status)
		_, _ = w.Write(a.raw.bytes)
		return nil
	}
	if a.body == nil {
		w.WriteHeader(a.status)
		return nil
	}
	if a.tagged && a.status == http.StatusOK {
		return writeTagged(w, known, a.body)
	}
	if in, ok := a.body.(*api.Instance); ok {
		return writeInstance(w, a.status, in)
	}
	if p, ok := a.body.(plain); ok {
		writePlain(w, a, p)
		return nil
	}
	return writeJSON(w, a.status, jsonType, a.body)
}

var jsonTypes = []string{jsonType}

// maxShort is how many bytes of an answer net/http counts by itself, and a margin.
const maxShort = 1 << 10

func writePlain(w http.ResponseWriter, a answer, p plain) {
	b := buffers.Get().(*buffer)
	defer b.release()
	body := append(p.appendJSON(b.AvailableBuffer()), '\n')
	b.Buffer.Write(body) // so that the buffer grows to what is needed
	h := w.Header()
	h["Content-Type"] = jsonTypes
	if !a.short || len(body) > maxShort {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(b.Bytes())
}

func writeInstance(w http.ResponseWriter, status int, in *api.Instance) error {
	b := buffers.Get().(*buffer)
	defer b.release()
	body, err := encoded.AppendInstance(b.AvailableBuffer(), in)
	if err != nil {
		return err
	}
	b.Buffer.Write(append(body, '\n')) // so that the buffer grows to what is needed
	h := w.Header()
	h["Content-Type"] = jsonTypes
	h["Content-Length"] = []string{strconv.Itoa(b.Len())}
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
	return nil
}

func writeJSON(w http.ResponseWriter, status int, media string, body any) error {
	b := buffers.Get().(*buffer)
	defer b.release()
	if err := b.enc.Encode(body); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
	return nil
}

// writeProblem sends the problem document of e.
func writeProblem(w http.ResponseWriter, e *api.Error) {
	h := w.Header()
	forBrowsers(h)
	switch e.Code {
	case api.CodeUnauthorized:
		h.Set("Www-Authenticate", "Bearer")
	case api.CodeTooManyRequests, api.CodeUnavailable:
		h.Set("Retry-After", "1")
	case api.CodeShuttingDown:
		h.Set("Retry-After", "1")
		h.Set("Connection", "close")
	case api.CodeBodyTooLarge:
		h.Set("Connection", "close") // do not read the rest of it
	}
	p := e.Problem(h.Get(api.HeaderRequestID))
	// A Problem holds strings and numbers only: it always encodes.
	_ = writeJSON(w, p.Status, api.ProblemType, p)
}

// asError returns what the client is told about err.
func (d *door) asError(err error) *api.Error {
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return &api.Error{
			Code: api.CodeTimeout, Detail: "the registry did not answer within " + d.Timeout.String(),
			Remedy: "try again, or ask another node",
		}
	}
	e = &api.Error{Code: api.CodeInternal, Detail: "this node made a mistake", Remedy: "look for the request id in its log"}
	if d.Dev {
		e.Detail += ": " + err.Error()
	}
	return e
}

// stamper writes the headers that say where an answer stands. Texts are kept from one answer
// to the next, because they hardly ever change between two.
type stamper struct {
	region api.Region
	own    []string // header values are shared between answers and never changed
	node   []string
	last   *atomic.Pointer[versionText]
}

type versionText struct {
	epoch    api.Epoch
	revision uint64
	texts    [2]string // of both
}

func newStamper(region api.Region, node string) stamper {
	return stamper{region: region, own: []string{string(region)}, node: []string{node}, last: new(atomic.Pointer[versionText])}
}

// ages are the texts of the ages that a node has while its store answers, in milliseconds.
var ages = func() (texts [2048]string) {
	for i := range texts {
		texts[i] = api.AgeHeader(time.Duration(i) * time.Millisecond)
	}
	return texts
}()

var fromMemory = []string{api.SourceMemory}

func (s *stamper) set(h http.Header, st registry.Stamp) {
	region := st.Region
	if region == "" {
		region = st.Version.Region
	}
	if region == "" || region == s.region {
		h[api.HeaderRegion] = s.own
	} else {
		h[api.HeaderRegion] = []string{string(region)}
	}
	if st.Version.Epoch.IsZero() {
		return // nothing is loaded yet: an answer about the node itself, of no version
	}
	v := s.last.Load()
	if v == nil || v.epoch != st.Version.Epoch || v.revision != st.Version.Revision {
		v = &versionText{
			epoch: st.Version.Epoch, revision: st.Version.Revision,
			texts: [2]string{st.Version.Epoch.String(), strconv.FormatUint(st.Version.Revision, 10)},
		}
		s.last.Store(v)
	}
	h[api.HeaderEpoch] = v.texts[0:1:1]
	h[api.HeaderRevision] = v.texts[1:2:2]
	if ms := st.Age.Milliseconds(); ms >= 0 && ms < int64(len(ages)) {
		h[api.HeaderAgeMS] = ages[ms : ms+1 : ms+1]
	} else {
		h[api.HeaderAgeMS] = []string{api.AgeHeader(st.Age)}
	}
	if st.Source == api.SourceMemory {
		h[api.HeaderSource] = fromMemory
	} else {
		h[api.HeaderSource] = []string{st.Source}
	}
}
