package httpapi

import (
	"testing"
)

// FuzzRequests sends whatever bytes net/http lets through: never a panic, never a 5xx,
// and every refusal is a problem document.
func FuzzRequests(f *testing.F) {
	for _, s := range []raw{
		{"GET", "/v1/services", "", ""},
		{"PUT", inst, asked, good},
		{"PUT", inst, "Content-Type: text/json\nContent-Encoding: br", `{"metadata":{"a":"\u2028"},"tags":[""],"ttl":1e300}`},
		{"GET", "/v1/services/%2e%2e/instances?limit=1&status=,", "", ""},
		{"DELETE", inst + "?incarnation=18446744073709551616", "", ""},
		{"GET", "/v1/watch?service=a&service=b&far=true&from=us-east/3-0000000000000abc/9", "", ""},
		{"GET", "/v1/explain/orders?from=a/b/c&zone=", "", ""},
		{"GET", "/v1/kv/?prefix=a/&watch=true&keys=true&from=us-east/3-0000000000000abc/9", "", ""},
		{"PUT", "/v1/kv/a%2Fb?cas=0", "Content-Type: x", "\x00"},
		{"GET", "/v1/sd/prometheus?service=a", "", ""},
		{"POST", "/v1/kv/%00?x=%zz;", "Origin: ://", "x"},
		{"OPTIONS", "*", "Host: [::1", ""},
		{"GET", "http://[::1]:7400//v1/limits#a?b", "Authorization: Bearer", ""},
		{"PUT", inst + "/heartbeat", "Transfer-Encoding: chunked", ""},
		{"CONNECT", "127.0.0.1:7400", "", ""},
	} {
		f.Add(s.method, s.target, s.header, s.body)
	}
	fk := newFake()
	fk.onWatch = watchNothing
	h, log := testDoor(f, fk, func(c *Config) { c.KV = newFakeKV() })
	f.Fuzz(func(t *testing.T, method, target, header, body string) {
		r, err := raw{method, target, header, body}.parse()
		if err != nil {
			t.Skip() // net/http answers by itself
		}
		w := serve(h, r)
		switch {
		case w.Code >= 500:
			t.Errorf("%d: %s\n%s", w.Code, w.Body, log)
		case w.Code >= 400 && r.Method != "HEAD":
			problemOf(t, w)
		}
	})
}
