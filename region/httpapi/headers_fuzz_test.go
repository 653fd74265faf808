package httpapi

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// FuzzHeaders reads the headers that strangers write: host, token, entity tags, request id. A
// host that is let in is one that a stranger cannot own, and what goes to a log is sane.
func FuzzHeaders(f *testing.F) {
	for _, s := range []string{"localhost:7400", "[::1]:80", "evil.example", "a.LOCALHOST.", "10.0.0.1", "0x7f.1", "Bearer abc", "bearer  ", `W/"1", "2"`, "*", "a\nb", "::", "node_1", "[fe80::1%eth0]"} {
		f.Add(s)
	}
	g := newGuard([]string{"node.example", ".inner.example"})
	f.Fuzz(func(t *testing.T, s string) {
		if g.allows(s) {
			h := hostName(s)
			if strings.Contains(h, ".") && !isAddress(h) && !strings.HasSuffix(h, ".localhost") && h != "node.example" && !strings.HasSuffix(h, ".inner.example") {
				t.Errorf("host %q is let in as %q", s, h)
			}
		}
		if ctx, err := withToken(t.Context(), s); err != nil {
			var e *api.Error
			if !errors.As(err, &e) || e.Code != api.CodeUnauthorized || ctx != t.Context() {
				t.Errorf("token %q: %v", s, err)
			}
		}
		_ = matches([]string{s}, `W/"0123"`)
		if saneRequestID(s) && (len(s) > maxRequestID || strings.ContainsAny(s, "\r\n\x00 \"")) {
			t.Errorf("request id %q", s)
		}
	})
}

// FuzzBatchRegister reads batches of registrations: an item is read as a request of its
// own would be, and one that is not hinders no other.
func FuzzBatchRegister(f *testing.F) {
	for _, s := range []string{
		`{"instances":[{"service":"a","id":"b","address":"x","port":1}]}`, `{"instances":[{"service":1},{"service":"a","Service":"b"},null,{}]}`,
		`{"instances":null}`, `{"instances":[],"instances":[]}`, `{"heartbeats":[]}`, `[]`, `{"instances":[{"checks":[{"interval":"x"}]}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		items, bad, err := decodeBatch[api.BatchRegistration](body, "instances")
		var e *api.Error
		if err != nil {
			if !errors.As(err, &e) || e.Code.HTTPStatus() >= 500 {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		if len(items) > api.MaxBatchItems || len(bad) > len(items) {
			t.Errorf("%q: %d items, %d bad", body, len(items), len(bad))
		}
		for i, err := range bad {
			if i >= len(items) || !errors.As(err, &e) || e.Code.HTTPStatus() >= 500 {
				t.Errorf("%q: item %d: %v", body, i, err)
			}
		}
		// The quick way and the thorough one read the same.
		if quick, ok := decodeWell[api.BatchRegistration](body, "instances"); ok && (len(bad) > 0 || !reflect.DeepEqual(quick, items)) {
			t.Errorf("%q is read in two ways: %v and %v", body, quick, items)
		}
	})
}
