package httpapi

import (
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// A client that has an answer is not sent it again, and gets every change of it.
func TestEntityTags(t *testing.T) {
	f := newFake()
	h, _ := testDoor(t, f, nil)
	for _, path := range []string{inst, "/v1/services", "/v1/services/orders/instances?limit=5"} {
		first := raw{"GET", path, "", ""}.do(t, h)
		tag := first.Header().Get("Etag")
		if first.Code != 200 || tag == "" {
			t.Fatalf("%s: %d, tag %q", path, first.Code, tag)
		}
		for _, known := range []string{tag, `"x", ` + tag, "*", tag[2:]} {
			for _, method := range []string{"GET", "HEAD"} {
				w := raw{method, path, "If-None-Match: " + known, ""}.do(t, h)
				if w.Code != 304 || w.Body.Len() != 0 || w.Header().Get("Etag") != tag || w.Header().Get(api.HeaderRevision) == "" || w.Header().Get("Content-Type") != "" {
					t.Errorf("%s %s, known %s: %d %v %q", method, path, known, w.Code, w.Header(), w.Body)
				}
			}
		}
		for _, known := range []string{`"x"`, "", "x", tag + "x", `W/"`} {
			if w := (raw{"GET", path, "If-None-Match: " + known, ""}).do(t, h); w.Code != 200 || w.Body.String() != first.Body.String() {
				t.Errorf("%s, known %q: %d %q", path, known, w.Code, w.Body)
			}
		}
	}
	first := raw{"GET", inst, "", ""}.do(t, h)
	(raw{"PUT", inst + "/drain", "", ""}).do(t, h)
	w := raw{"GET", inst, "If-None-Match: " + first.Header().Get("Etag"), ""}.do(t, h)
	if w.Code != 200 || w.Body.String() == first.Body.String() || w.Header().Get("Etag") == first.Header().Get("Etag") {
		t.Errorf("a change was hidden: %d %s", w.Code, w.Body)
	}
	// Answers with ages, writes and errors have no tag.
	for _, q := range []raw{
		{"GET", "/v1/resolve/orders", "If-None-Match: *", ""},
		{"GET", "/v1/explain/orders", "", ""},
		{"GET", "/v1/regions", "", ""},
		{"PUT", inst, asked + "\nIf-None-Match: *", good},
		{"GET", inst + "0", "If-None-Match: *", ""},
	} {
		if w := q.do(t, h); w.Header().Get("Etag") != "" || w.Code == 304 {
			t.Errorf("%s %s: %d %v", q.method, q.target, w.Code, w.Header())
		}
	}
}
