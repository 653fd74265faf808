package peer

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// FuzzQuery reads whatever a reader may ask: a query that is taken says the same when it is
// written again, and one that is not is refused with a code.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{
		"proto=1&reader=us-east&region=eu-west", "proto=1&reader=us-east&region=eu-west&have=eu-west/1-0000000000000001/7&digest=00000000000000ff&full=true",
		"proto=1&reader=us-east&have=a/b/c", "proto=2", "proto=0&max_proto=2&reader=us-east", "proto=1&reader=us-east&node=%0a", "proto=1&reader=us-east&digest=zz",
		"proto=1&max_proto=2&reader=us-east&at=eu-west/1-0000000000000001/7&can=hashes,telepathy", "%zz&;",
	} {
		f.Add(s)
	}
	s := &Server{cfg: ServerConfig{Region: "eu-west"}}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := s.admit(&http.Request{URL: &url.URL{RawQuery: raw}})
		var e *api.Error
		if err != nil {
			if !errors.As(err, &e) || e.Code.HTTPStatus() >= 500 {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		again, err := s.admit(&http.Request{URL: &url.URL{RawQuery: q.values().Encode()}})
		if q.Have.IsZero() {
			q.Digest = again.Digest // a digest of nothing is not written
		}
		if err != nil || !reflect.DeepEqual(again, q) {
			t.Errorf("%q is read as %+v, and written again as %+v: %v", raw, q, again, err)
		}
	})
}

// P8: whatever arrives as a compressed stream becomes no more than the bound, and ends.
func FuzzCompressed(f *testing.F) {
	var out bytes.Buffer
	z := newSqueezer(&out)
	_ = z.write([]byte("{\"kind\":\"heartbeat\"}\n"))
	_ = z.write(bytes.Repeat([]byte("\n"), 1<<20))
	z.free()
	f.Add(out.Bytes())
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := &Stream{alive: time.AfterFunc(time.Hour, func() {})}
		defer s.alive.Stop()
		u, err := newUnsqueezed(&watched{stream: s, in: bytes.NewReader(in)})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		if n, err := io.Copy(io.Discard, u); n > ratioSlack+maxRatio*int64(len(in)) {
			t.Fatalf("%d bytes became %d: %v", len(in), n, err)
		}
	})
}
