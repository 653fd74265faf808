package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/region/kv"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// KV is the part of *kv.Table that this door calls, under the rules of [Registry].
type KV interface {
	Get(ctx context.Context, q kv.KeyQuery) (api.KVEntry, registry.Stamp, error)
	List(ctx context.Context, q kv.ListQuery) (api.KVList, registry.Stamp, error)
	Put(ctx context.Context, q kv.PutQuery) (out api.KVWritten, created bool, err error)
	Delete(ctx context.Context, q kv.DeleteQuery) (revision uint64, err error)
	WatchShared(ctx context.Context, q kv.WatchQuery, send func(*api.Frame, *encoded.Frame) error) error
	Limits(l *api.Limits)
}

// pathKVKey is the route of keys: all that follows the slash is the key, slashes included;
// nothing is the list.
const pathKVKey = api.PathKV + "*"

// valueType is what a value is told as: nobody knows what it is, and a browser must not guess.
const valueType = "application/octet-stream"

// kvRead is GET of a key, of the list and of the watch: three answers on one route.
func (d *door) kvRead(w http.ResponseWriter, r *request) error {
	if d.KV == nil {
		return errNoKV
	}
	call := d.kvGet
	switch key := r.kvKey(); {
	case key != "":
		r.only("meta", "ns", "consistency", "min_revision")
	case r.flag("watch"):
		r.only("prefix", "keys", "watch", "from", "ns")
		return d.kvWatch(w, r)
	default:
		r.only("prefix", "keys", "watch", "limit", "cursor", "ns", "consistency", "min_revision")
		call = d.kvList
	}
	ctx, cancel := context.WithTimeout(r.Context(), d.Timeout)
	defer cancel()
	a, err := call(ctx, r)
	if err != nil {
		return err
	}
	return d.write(w, a, nil)
}

var errNoKV = &api.Error{Code: api.CodeNotFound, Detail: "this node keeps no keys", Remedy: "ask a node of a region"}

func (d *door) kvGet(ctx context.Context, r *request) (answer, error) {
	q := kv.KeyQuery{Namespace: r.namespace(), Key: r.validKVKey(), ReadOptions: r.read()}
	meta := r.flag("meta")
	if r.err != nil {
		return answer{}, r.err
	}
	e, st, err := d.KV.Get(ctx, q)
	if err != nil {
		return answer{}, err
	}
	if meta {
		return answer{body: &e, stamp: st}, nil
	}
	return answer{raw: &document{valueType, e.Value}, stamp: st, header: map[string]string{
		api.HeaderKeyRevision: strconv.FormatUint(e.Revision, 10), api.HeaderKeyCreated: strconv.FormatUint(e.Created, 10),
	}}, nil
}

func (d *door) kvList(ctx context.Context, r *request) (answer, error) {
	q := kv.ListQuery{
		Namespace: r.namespace(), Prefix: r.kvPrefix(), KeysOnly: r.flag("keys"), Limit: r.limit(), Cursor: r.cursor(), ReadOptions: r.read(),
	}
	if r.err != nil {
		return answer{}, r.err
	}
	l, st, err := d.KV.List(ctx, q)
	if err != nil {
		return answer{}, err
	}
	l.Entries = some(l.Entries)
	return answer{body: &l, stamp: st}, nil
}

func (d *door) kvWatch(w http.ResponseWriter, r *request) error {
	q := kv.WatchQuery{Namespace: r.namespace(), Prefix: r.kvPrefix(), KeysOnly: r.flag("keys"), From: r.resumeFrom()}
	if r.err != nil {
		return r.err
	}
	return d.frames(w, r, func(ctx context.Context, send sender) error { return d.KV.WatchShared(ctx, q, send) })
}

func (d *door) kvPut(ctx context.Context, r *request) (answer, error) {
	if d.KV == nil {
		return answer{}, errNoKV
	}
	q := kv.PutQuery{Namespace: r.namespace(), Key: r.validKVKey(), CAS: r.cas(), Epoch: r.epoch()}
	if r.err != nil {
		return answer{}, r.err
	}
	var err error
	if q.Value, err = r.value(); err != nil {
		return answer{}, err
	}
	out, created, err := d.KV.Put(ctx, q)
	if err != nil {
		return answer{}, err
	}
	a := answer{body: &out, stamp: d.atLeast(out.Revision)}
	if created {
		a.status = http.StatusCreated
	}
	return a, nil
}

func (d *door) kvDelete(ctx context.Context, r *request) (answer, error) {
	if d.KV == nil {
		return answer{}, errNoKV
	}
	q := kv.DeleteQuery{Namespace: r.namespace(), Key: r.validKVKey(), CAS: r.cas(), Epoch: r.epoch()}
	if r.err != nil {
		return answer{}, r.err
	}
	revision, err := d.KV.Delete(ctx, q)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent, stamp: d.atLeast(revision)}, nil
}

// atLeast is where the node stands after a write: what a client gives as ?min_revision= to
// read its write on any node.
func (d *door) atLeast(revision uint64) registry.Stamp {
	st := d.Registry.Stamp()
	st.Version.Revision = max(st.Version.Revision, revision)
	return st
}

// kvKey returns the rest of the path, decoded exactly once; "" asks for the list.
func (r *request) kvKey() string {
	raw := r.params.Param("*")
	if r.URL.RawPath == "" {
		return raw // the router matched on the decoded path
	}
	key, err := url.PathUnescape(raw)
	if err != nil {
		r.bad("key", raw, "percent-encode it correctly")
	}
	return key
}

func (r *request) validKVKey() string {
	key := r.kvKey()
	r.check(api.CheckKVKey(key))
	return key
}

func (r *request) kvPrefix() string {
	s := r.query.Get("prefix")
	r.check(api.CheckKVPrefix(s))
	return s
}

// cas returns ?cas=, nil when it is not given.
func (r *request) cas() *uint64 {
	if !r.query.Has("cas") {
		return nil
	}
	n := r.number("cas")
	return &n
}

// epoch returns ?epoch=, the history that ?cas= is a revision of; zero when it is not given.
func (r *request) epoch() api.Epoch {
	if !r.query.Has("epoch") {
		return api.Epoch{}
	}
	s := r.query.Get("epoch")
	e, err := api.ParseEpoch(s)
	switch {
	case err != nil, e.IsZero():
		r.bad("epoch", s, "give back the Nearside-Epoch of the answer that told the revision, or leave it out")
	case !r.query.Has("cas"):
		r.bad("epoch", s, "give it together with cas: it says of which history that revision is")
	}
	return e
}

// value reads the body as it is. Any media type is fine, and kept nowhere; an encoding is
// not, because what comes back would not be what was meant.
func (r *request) value() ([]byte, error) {
	tooLarge := &api.Error{
		Code: api.CodeBodyTooLarge, Detail: fmt.Sprintf("the value has more than %d bytes", api.MaxKVValueBytes),
		Remedy: "keep large things elsewhere, and here where they are",
	}
	if r.ContentLength > api.MaxKVValueBytes {
		return nil, tooLarge
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, &api.Error{
			Code: api.CodeUnsupportedMedia, Detail: "the content encoding " + api.Quote(enc) + " is not read here", Remedy: "send the value unpacked",
		}
	}
	if r.Body == nil {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, api.MaxKVValueBytes+1))
	switch {
	case err != nil:
		return nil, &api.Error{Code: api.CodeInvalidRequest, Detail: "the request body ended early", Remedy: "send it again"}
	case len(b) > api.MaxKVValueBytes:
		return nil, tooLarge
	}
	return b, nil
}

// only refuses parameters of the route's other answers.
func (r *request) only(names ...string) {
	for _, name := range r.query.names() { // sorted, so that the same request always gets the same answer
		if !slices.Contains(names, name) {
			r.fail(unknownParameter(name, names))
		}
	}
}
