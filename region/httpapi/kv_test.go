package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/region/kv"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

var _ KV = (*kv.Table)(nil)

// fakeKV is keys in one map: enough to answer every call. It records the last query.
type fakeKV struct {
	mu       sync.Mutex
	keys     map[string]api.KVEntry
	revision uint64
	last     any
}

func newFakeKV() *fakeKV {
	return &fakeKV{revision: 50, keys: map[string]api.KVEntry{
		"default/app/a": {Key: "app/a", Namespace: "default", Value: []byte("1\xff<"), Size: 3, Revision: 44, Created: 40},
	}}
}

func (f *fakeKV) find(q any, ns api.Namespace, key string, cas *uint64) (api.KVEntry, error) {
	f.last = q
	e, ok := f.keys[string(ns)+"/"+key]
	if cas != nil && *cas != e.Revision {
		return e, &api.Error{Code: api.CodeConflict, Detail: "the key is at another revision", Revision: &e.Revision}
	}
	if !ok {
		return e, api.Errorf(api.CodeKeyNotFound, "there is no key %s", key)
	}
	return e, nil
}

func (f *fakeKV) stamp() registry.Stamp {
	return registry.Stamp{Version: api.Version{Region: "us-east", Epoch: testEpoch, Revision: f.revision}, Source: api.SourceMemory, Region: "us-east"}
}

func (f *fakeKV) Get(_ context.Context, q kv.KeyQuery) (api.KVEntry, registry.Stamp, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, err := f.find(q, q.Namespace, q.Key, nil)
	return e, f.stamp(), err
}

func (f *fakeKV) List(_ context.Context, q kv.ListQuery) (api.KVList, registry.Stamp, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = q
	l := api.KVList{Namespace: q.Namespace, Prefix: q.Prefix}
	for _, e := range f.keys {
		if e.Namespace == q.Namespace && strings.HasPrefix(e.Key, q.Prefix) {
			l.Entries = append(l.Entries, e)
		}
	}
	return l, f.stamp(), nil
}

func (f *fakeKV) Put(_ context.Context, q kv.PutQuery) (api.KVWritten, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, err := f.find(q, q.Namespace, q.Key, q.CAS)
	created := api.CodeOf(err) == api.CodeKeyNotFound
	if err != nil && !created {
		return api.KVWritten{}, false, err
	}
	f.revision++
	if created {
		e = api.KVEntry{Key: q.Key, Namespace: q.Namespace, Created: f.revision}
	}
	e.Value, e.Size, e.Revision = bytes.Clone(q.Value), len(q.Value), f.revision
	f.keys[string(q.Namespace)+"/"+q.Key] = e
	return api.KVWritten{Key: q.Key, Namespace: q.Namespace, Revision: e.Revision, Created: e.Created}, created, nil
}

func (f *fakeKV) Delete(_ context.Context, q kv.DeleteQuery) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.find(q, q.Namespace, q.Key, q.CAS); err != nil {
		return 0, err
	}
	delete(f.keys, string(q.Namespace)+"/"+q.Key)
	f.revision++
	return f.revision, nil
}

func (f *fakeKV) WatchShared(ctx context.Context, q kv.WatchQuery, send func(*api.Frame, *encoded.Frame) error) error {
	return f.Watch(ctx, q, func(f api.Frame) error { return send(&f, nil) })
}

func (f *fakeKV) Watch(_ context.Context, q kv.WatchQuery, send func(api.Frame) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = q
	e := f.keys["default/app/a"]
	if err := send(api.Frame{Kind: api.FrameItem, Version: ver(44), KV: &e}); err != nil {
		return err
	}
	return send(api.Frame{Kind: api.FrameSynced, Version: ver(50)})
}

func (f *fakeKV) Limits(l *api.Limits) { l.KVKeys = 7 }

// The whole answer of every endpoint of keys, by the letter.
func TestKeysAnswer(t *testing.T) {
	one, zero := uint64(44), uint64(0)
	f := newFakeKV()
	for _, s := range []struct {
		q      raw
		status int
		body   string
		last   any
	}{
		{raw{"GET", "/v1/kv/app/a", "", ""}, 200, "1\xff<", kv.KeyQuery{Namespace: "default", Key: "app/a"}},
		{raw{"GET", "/v1/kv/app%2Fa?ns=&consistency=strong&min_revision=3", "", ""}, 200, "1\xff<", kv.KeyQuery{
			Namespace: "default", Key: "app/a", ReadOptions: registry.ReadOptions{Strong: true, MinRevision: 3},
		}},
		{
			raw{"GET", "/v1/kv/%61pp/%61?meta=true", "", ""},
			200,
			`{"key":"app/a","ns":"default","value":"Mf88","size":3,"revision":44,"created_revision":40}`, nil,
		},
		{
			raw{"GET", "/v1/kv/?prefix=app/&limit=10&cursor=app/0&keys=true&watch=false", "", ""},
			200,
			`{"ns":"default","prefix":"app/","entries":[{"key":"app/a","ns":"default","value":"Mf88","size":3,"revision":44,"created_revision":40}]}`,
			kv.ListQuery{Namespace: "default", Prefix: "app/", Limit: 10, Cursor: "app/0", KeysOnly: true},
		},
		{raw{"GET", "/v1/kv/?ns=shop", "", ""}, 200, `{"ns":"shop","prefix":"","entries":[]}`, nil},
		{
			raw{"PUT", "/v1/kv/x:1/.y?ns=shop&cas=0", "Content-Type: text/html; x", "<b>"},
			201,
			`{"key":"x:1/.y","ns":"shop","revision":51,"created_revision":51}`,
			kv.PutQuery{Namespace: "shop", Key: "x:1/.y", Value: []byte("<b>"), CAS: &zero},
		},
		{raw{"PUT", "/v1/kv/app/a?cas=44", "", ""}, 200, `{"key":"app/a","ns":"default","revision":52,"created_revision":40}`, kv.PutQuery{
			Namespace: "default", Key: "app/a", Value: []byte{}, CAS: &one,
		}},
		{raw{"GET", "/v1/kv/app/a", "", ""}, 200, ``, nil},
		{raw{"DELETE", "/v1/kv/app/a", "", ""}, 204, ``, kv.DeleteQuery{Namespace: "default", Key: "app/a"}},
	} {
		t.Run(s.q.method+" "+s.q.target, func(t *testing.T) {
			h, log := testDoor(t, newFake(), func(c *Config) { c.KV = f })
			w := s.q.do(t, h)
			if got := strings.TrimSuffix(w.Body.String(), "\n"); w.Code != s.status || got != s.body {
				t.Fatalf("%d %q, want %d %q", w.Code, got, s.status, s.body)
			}
			if s.last != nil && !reflect.DeepEqual(f.last, s.last) {
				t.Errorf("asked %#v, want %#v", f.last, s.last)
			}
			checkStamp(t, w.Header())
			if s.q.method == http.MethodGet {
				s.q.method = http.MethodHead
				if hw := s.q.do(t, h); hw.Code != w.Code || hw.Header().Get("Content-Length") != w.Header().Get("Content-Length") {
					t.Errorf("HEAD answers %d %v", hw.Code, hw.Header())
				}
			}
			if log.Len() > 0 {
				t.Errorf("logged: %s", log)
			}
		})
	}
}

// A raw value is told as bytes of no type, with what compare-and-set needs beside it.
func TestRawValueHeaders(t *testing.T) {
	h, _ := testDoor(t, newFake(), func(c *Config) { c.KV = newFakeKV() })
	hd := raw{"GET", "/v1/kv/app/a", "", ""}.do(t, h).Header()
	for name, want := range map[string]string{
		"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff", "Content-Length": "3",
		api.HeaderKeyRevision: "44", api.HeaderKeyCreated: "40", api.HeaderRevision: "50",
	} {
		if hd.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, hd.Get(name), want)
		}
	}
	if w := (raw{"PUT", "/v1/kv/app/a", "", "2"}).do(t, h); w.Header().Get(api.HeaderRevision) != "51" {
		t.Errorf("a write's revision is not in its headers: %v", w.Header())
	}
}

func TestWrongRequestsForKeysAreRefusedByName(t *testing.T) {
	big := strings.Repeat("x", api.MaxKVValueBytes+1)
	for _, tt := range []struct {
		name  string
		q     raw
		code  api.Code
		field string
	}{
		{"no slash", raw{"GET", "/v1/kv", "", ""}, api.CodeNotFound, ""},
		{"put the list", raw{"PUT", "/v1/kv/", "", "x"}, api.CodeInvalidField, "key"},
		{"delete the list", raw{"DELETE", "/v1/kv/", "", ""}, api.CodeInvalidField, "key"},
		{"post", raw{"POST", "/v1/kv/a", "", "x"}, api.CodeMethodNotAllowed, ""},
		{"missing", raw{"GET", "/v1/kv/none", "", ""}, api.CodeKeyNotFound, ""},
		{"slash in front", raw{"GET", "/v1/kv//a", "", ""}, api.CodeInvalidField, "key"},
		{"slash at the end", raw{"PUT", "/v1/kv/a/", "", "x"}, api.CodeInvalidField, "key"},
		{"two slashes", raw{"PUT", "/v1/kv/a//b", "", "x"}, api.CodeInvalidField, "key"},
		{"encoded slash alone", raw{"GET", "/v1/kv/%2F", "", ""}, api.CodeInvalidField, "key"},
		{"dots", raw{"PUT", "/v1/kv/a/../b", "", "x"}, api.CodeInvalidField, "key"},
		{"encoded dots", raw{"PUT", "/v1/kv/a%2f%2e%2e%2fb", "", "x"}, api.CodeInvalidField, "key"},
		{"encoded twice", raw{"PUT", "/v1/kv/a%252Fb", "", "x"}, api.CodeInvalidField, "key"},
		{"nul", raw{"PUT", "/v1/kv/a%00b", "", "x"}, api.CodeInvalidField, "key"},
		{"space", raw{"PUT", "/v1/kv/a%20b", "", "x"}, api.CodeInvalidField, "key"},
		{"plus", raw{"PUT", "/v1/kv/a+b", "", "x"}, api.CodeInvalidField, "key"},
		{"unicode", raw{"PUT", "/v1/kv/%D0%B0", "", "x"}, api.CodeInvalidField, "key"},
		{"backslash", raw{"PUT", "/v1/kv/a%5cb", "", "x"}, api.CodeInvalidField, "key"},
		{"513 letters", raw{"PUT", "/v1/kv/" + strings.Repeat("k", 513), "", "x"}, api.CodeInvalidField, "key"},
		{"namespace", raw{"PUT", "/v1/kv/a?ns=A", "", "x"}, api.CodeInvalidField, "ns"},
		{"cas of an unset variable", raw{"PUT", "/v1/kv/a?cas=", "", "x"}, api.CodeInvalidField, "cas"},
		{"cas word", raw{"DELETE", "/v1/kv/app/a?cas=now", "", ""}, api.CodeInvalidField, "cas"},
		{"cas twice", raw{"DELETE", "/v1/kv/app/a?cas=1&cas=44", "", ""}, api.CodeInvalidRequest, "cas"},
		{"cas on a read", raw{"GET", "/v1/kv/app/a?cas=1", "", ""}, api.CodeUnknownParameter, "cas"},
		{"epoch alone", raw{"PUT", "/v1/kv/app/a?epoch=3-0000000000000abc", "", "x"}, api.CodeInvalidField, "epoch"},
		{"epoch of an unset variable", raw{"DELETE", "/v1/kv/app/a?cas=1&epoch=", "", ""}, api.CodeInvalidField, "epoch"},
		{"epoch word", raw{"PUT", "/v1/kv/app/a?cas=1&epoch=now", "", "x"}, api.CodeInvalidField, "epoch"},
		{"meta of a list", raw{"GET", "/v1/kv/?meta=true", "", ""}, api.CodeUnknownParameter, "meta"},
		{"prefix of a key", raw{"GET", "/v1/kv/app/a?prefix=a", "", ""}, api.CodeUnknownParameter, "prefix"},
		{"watch of a key", raw{"GET", "/v1/kv/app/a?watch=true", "", ""}, api.CodeUnknownParameter, "watch"},
		{"limit of a watch", raw{"GET", "/v1/kv/?watch=true&limit=3", "", ""}, api.CodeUnknownParameter, "limit"},
		{"from of a list", raw{"GET", "/v1/kv/?from=us-east/3-0000000000000abc/9", "", ""}, api.CodeUnknownParameter, "from"},
		{"watch word", raw{"GET", "/v1/kv/?watch=1", "", ""}, api.CodeInvalidField, "watch"},
		{"watch from", raw{"GET", "/v1/kv/?watch=true&from=9", "", ""}, api.CodeInvalidField, "from"},
		{"prefix", raw{"GET", "/v1/kv/?prefix=a%20", "", ""}, api.CodeInvalidField, "prefix"},
		{"limit", raw{"GET", "/v1/kv/?limit=0", "", ""}, api.CodeInvalidField, "limit"},
		{"body on a get", raw{"GET", "/v1/kv/app/a", "", "x"}, api.CodeInvalidRequest, ""},
		{"body on a delete", raw{"DELETE", "/v1/kv/app/a", "", "x"}, api.CodeInvalidRequest, ""},
		{"packed", raw{"PUT", "/v1/kv/a", "Content-Encoding: gzip", "x"}, api.CodeUnsupportedMedia, ""},
		{"too large", raw{"PUT", "/v1/kv/a", "", big}, api.CodeBodyTooLarge, ""},
		{"foreign page writes", raw{"PUT", "/v1/kv/a", "Content-Type: text/plain\nOrigin: http://evil.example", "x"}, api.CodeForbidden, ""},
		{"foreign page deletes", raw{"DELETE", "/v1/kv/app/a", "Sec-Fetch-Site: cross-site", ""}, api.CodeForbidden, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, log := testDoor(t, newFake(), func(c *Config) { c.KV = newFakeKV() })
			w := tt.q.do(t, h)
			if p := problemOf(t, w); p.Code != tt.code || tt.field != "" && p.Field != tt.field {
				t.Errorf("code %s field %s, want %s %s: %s", p.Code, p.Field, tt.code, tt.field, w.Body)
			}
			if log.Len() > 0 {
				t.Errorf("logged: %s", log)
			}
		})
	}
}

// The revision that a compare-and-set needs next is in the refusal, also when it is 0.
func TestConflictNamesTheRevision(t *testing.T) {
	h, _ := testDoor(t, newFake(), func(c *Config) { c.KV = newFakeKV() })
	for target, want := range map[string]uint64{"/v1/kv/app/a?cas=0": 44, "/v1/kv/none?cas=9": 0} {
		p := problemOf(t, raw{"PUT", target, "", "x"}.do(t, h))
		if p.Code != api.CodeConflict || p.Status != 409 || p.Revision == nil || *p.Revision != want {
			t.Errorf("%s: %+v", target, p)
		}
	}
}

func TestANodeWithoutKeysSaysSo(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		if p := problemOf(t, raw{method, "/v1/kv/a", "", ""}.do(t, h)); p.Code != api.CodeNotFound {
			t.Errorf("%+v", p)
		}
	}
}

// P5: a watch of keys is framed like any other, and is no entry in the histogram.
func TestWatchOfKeysOnTheWire(t *testing.T) {
	f, mp := newFakeKV(), &meterSpy{seen: map[string]int{}}
	h, _ := testDoor(t, newFake(), func(c *Config) { c.KV, c.MeterProvider = f, mp })
	w := raw{"GET", "/v1/kv/?prefix=app/&watch=true&keys=true", "Last-Event-ID: us-east/3-0000000000000abc/9", ""}.do(t, h)
	const at = `"version":{"region":"us-east","epoch":"3-0000000000000abc","revision":`
	want := "retry: 1000\n\n" +
		"event: item\ndata: {" + at + `44},"kv":{"key":"app/a","ns":"default","value":"Mf88","size":3,"revision":44,"created_revision":40}}` + "\n\n" +
		"id: us-east/3-0000000000000abc/50\nevent: synced\ndata: {" + at + `50}}` + "\n\n"
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" || w.Body.String() != want {
		t.Errorf("%d %v\n%s\nwant\n%s", w.Code, w.Header(), w.Body, want)
	}
	if q := (kv.WatchQuery{Namespace: "default", Prefix: "app/", KeysOnly: true, From: ver(9)}); !reflect.DeepEqual(f.last, q) {
		t.Errorf("asked %#v", f.last)
	}
	if len(mp.seen) > 0 {
		t.Errorf("measured: %v", mp.seen)
	}
}

// A key's whole life against the real table: P1 read your write, compare-and-set, P5 watch
// and resume, beside the instances of the same region.
func TestLifeOfAKeyOverHTTP(t *testing.T) {
	withRegion(t, func(t *testing.T, c *client) {
		var w api.KVWritten
		created := c.do(t, 201, "PUT", "/v1/kv/app/db/url?cas=0", "postgres://\x00").into(t, &w)
		got := c.do(t, 200, "GET", "/v1/kv/app/db/url?consistency=strong&min_revision="+created.header.Get(api.HeaderRevision), "")
		if string(got.body) != "postgres://\x00" || got.header.Get(api.HeaderSource) != api.SourceStore {
			t.Errorf("%q %v", got.body, got.header)
		}
		s := c.watch(t, "/v1/kv/?prefix=app/&watch=true")
		defer s.Close()
		s.expect(t, "item", "synced")
		c.do(t, 201, "PUT", "/v1/services/orders/instances/a", `{"address":"10.0.0.1","port":8080}`)
		c.do(t, 409, "PUT", "/v1/kv/app/db/url?cas=0", "x")
		c.do(t, 200, "PUT", "/v1/kv/app/db/url?cas="+got.header.Get(api.HeaderKeyRevision), "y")
		s.expect(t, "change put")
		resume := s.id
		c.do(t, 204, "DELETE", "/v1/kv/app%2Fdb%2Furl", "")
		c.do(t, 404, "DELETE", "/v1/kv/app/db/url", "")
		s.expect(t, "change delete")
		again := c.watch(t, "/v1/kv/?prefix=app/&watch=true&from="+resume)
		defer again.Close()
		again.expect(t, "synced", "change delete", "bookmark")
		var services api.ServiceList
		if c.do(t, 200, "GET", "/v1/services", "").into(t, &services); len(services.Services) != 1 {
			t.Errorf("%+v", services)
		}
		var l api.Limits
		if c.do(t, 200, "GET", "/v1/limits", "").into(t, &l); l.KVKeys != kv.DefaultMaxKeys || l.KVValueBytes != 64<<10 {
			t.Errorf("%+v", l)
		}
		begin := time.Now()
		if c.do(t, 504, "GET", "/v1/kv/a?min_revision=99999", ""); time.Since(begin) > 3*time.Second {
			t.Errorf("waited %s", time.Since(begin))
		}
	})
}

// FuzzKeyPath: a path is the key that one decoding gives, or it is refused; never another key.
func FuzzKeyPath(f *testing.F) {
	for _, s := range []string{"a/b", "a%2Fb", "a%252Fb", "%2e%2e/x", "a//b", "%", "a;b", "a/?x", ".../a", "a%2f", "%c0%af", "A_b:c.d-e", "a#b", "%2500"} {
		f.Add(s)
	}
	keys := newFakeKV()
	h, _ := testDoor(f, newFake(), func(c *Config) { c.KV = keys })
	f.Fuzz(func(t *testing.T, path string) {
		if strings.ContainsAny(path, "?# \t\r\n") {
			t.Skip() // ends the path of a request line
		}
		r, err := raw{"PUT", "/v1/kv/" + path, "", "v"}.parse()
		if err != nil {
			t.Skip() // net/http answers by itself
		}
		keys.keys = map[string]api.KVEntry{}
		w := serve(h, r)
		want, err := url.PathUnescape(path)
		if err != nil || !api.ValidKVKey(want) {
			if len(keys.keys) > 0 || w.Code != 422 && w.Code != 404 {
				t.Fatalf("%q: %d, stored %v", path, w.Code, keys.keys)
			}
			problemOf(t, w)
			return
		}
		var out api.KVWritten
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 201 || out.Key != want || len(keys.keys) != 1 {
			t.Fatalf("%q: %d %s, want key %q", path, w.Code, w.Body, want)
		}
	})
}
