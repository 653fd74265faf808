package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/region/kv"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/steering"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// secret is a token that hostile requests carry: it must stand in no answer and no log.
const secret = "s3cr3t-t0ken-of-nobody"

// hostileNames stand where a path has a name.
var hostileNames = []string{
	"orders", "a", "UPPER", "-a", "a_b", ".", "..", "%2e%2e", "%2e%2e%2fetc%2fpasswd", "..%5c..%5c", "a%2fb", "a%252fb", "%00", "a%00", "%0d%0aX-Evil:%201", "%1b[31m",
	"%c0%af", "%ff%fe", "%e2%80%ae", "%f0%9f%92%a9", "a%20b", "a;b", "a,b", "a=b", "a@b", "*", "$%7bjndi:x%7d", "%3cscript%3e", "'%20or%201=1--", strings.Repeat("a", 64), strings.Repeat("a", 4000), "%", "%zz", "%u0041",
}

// hostileQueries stand behind a path.
var hostileQueries = []string{
	"", "?", "?x=1", "?ns=", "?ns=UP", "?ns=a&ns=b", "?ns=%00", "?%00=1", "?=", "?&&", "?a%zz", "?;", "?limit=0", "?limit=-1", "?limit=1e9", "?limit=99999999999999999999", "?limit=",
	"?cursor=x", "?cursor=" + strings.Repeat("A", 5000), "?cursor=%ff", "?min_revision=-1", "?min_revision=x", "?min_revision=18446744073709551616", "?consistency=", "?consistency=STRONG",
	"?consistency=strong&consistency=eventual", "?filter=", "?filter=((((", "?filter=" + strings.Repeat("(", 900), "?filter=ID%20==%20%22", "?filter=Metadata.x%20matches%20%22(%22", "?filter=" + strings.Repeat("not%20", 200) + "ID==a",
	"?status=", "?status=up", "?status=passing,,", "?zone=UP", "?tag=", "?tag=" + strings.Repeat("t", 500), "?region=UP", "?region=mars", "?incarnation=", "?incarnation=-1", "?incarnation=1.5",
	"?cas=", "?cas=-1", "?cas=1&cas=2", "?epoch=1", "?cas=1&epoch=x", "?cas=0&epoch=3-0000000000000abc", "?since=", "?since=yesterday", "?since=-5m", "?since=99999999999999999999999", "?kind=", "?kind=explosion", "?subject=", "?subject=a//b", "?subject=%0a",
	"?follow=1", "?follow=true&limit=3", "?watch=true&cursor=a", "?watch=maybe", "?from=", "?from=x", "?from=a/b/c", "?from=us-east/3-0000000000000abc/99999999999999999999", "?service=UP", "?service=", "?far=1",
	"?prefix=%00", "?prefix=../", "?meta=2", "?keys=yes", "?policy=x", "?at=now", "?" + strings.Repeat("a=b&", 3000), "?__proto__=1", "?callback=alert", "?_method=DELETE",
}

// hostileBodies are sent to every method of every path.
func hostileBodies() []string {
	return []string{
		"", " ", "{", "}", "[]", "null", "0", `""`, "true", "{}", "{}{}", "{} x", `{"a":1}`, `{"address":}`, `{"address":"10.0.0.1","port":8080,"port":8081}`, `{"address":"10.0.0.1","address":"10.0.0.2","port":1}`,
		`{"ADDRESS":"10.0.0.1","port":80}`, `{"address":["10.0.0.1"],"port":80}`, `{"address":"10.0.0.1","port":"80"}`, `{"address":"10.0.0.1","port":1e400}`, `{"address":"10.0.0.1","port":-1}`, `{"address":"10.0.0.1","port":80.5}`,
		`{"address":"a b","port":80}`, `{"address":"http://x","port":80}`, `{"address":"10.0.0.1\u0000","port":80}`, `{"address":"10.0.0.1","port":80,"ttl":"-1s"}`, `{"address":"10.0.0.1","port":80,"ttl":"9999999h"}`, `{"address":"10.0.0.1","port":80,"weight":-1}`,
		`{"address":"10.0.0.1","port":80,"metadata":{"":"x"}}`, `{"address":"10.0.0.1","port":80,"metadata":{"k":{"deep":1}}}`, `{"address":"10.0.0.1","port":80,"tags":[null]}`, `{"address":"10.0.0.1","port":80,"tags":["\ud800"]}`,
		`{"address":"10.0.0.1","port":80,"checks":[{"kind":"exec","path":"/bin/sh"}]}`, `{"address":"169.254.169.254","port":80,"checks":[{"kind":"http"}]}`, `{"address":"10.0.0.1","port":80,"checks":[{"kind":"http","path":"//evil.example/"}]}`, `{"address":"10.0.0.1","port":80,"checks":[{"kind":"http","interval":"1ns"}]}`,
		`{"address":"10.0.0.1","port":80,"status":"draining"}`, `{"status":"up"}`, `{"status":"passing","note":"` + strings.Repeat("n", 300) + `"}`, `{"status":"critical","note":"\u001b[31m"}`, `{"note":7}`, `{"incarnation":18446744073709551616}`,
		`{"instances":null}`, `{"instances":[]}`, `{"instances":[7]}`, `{"instances":[{}]}`, `{"heartbeats":[{"service":"..","id":"/"}]}`, `{"instances":[],"instances":[]}`, `{"heartbeats":[` + strings.Repeat(`{},`, 1001) + `{}]}`,
		strings.Repeat("[", 20_000), strings.Repeat(`{"a":`, 20_000), `{"metadata":` + strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 501), "\xef\xbb\xbf{}", "\xff\xfe{\x00}\x00", "PK\x03\x04", "<?xml version=\"1.0\"?><a/>", "a=b&c=d", strings.Repeat("x", api.MaxKVValueBytes+1),
	}
}

// hostileHeaders come with a request of every route.
var hostileHeaders = []string{
	"", "Content-Type: application/json", "Content-Type: text/plain", "Content-Type: multipart/form-data; boundary=x", "Content-Type: application/json; charset=utf-7", "Content-Type: ;;;", "Content-Type: application/json\nContent-Type: text/html",
	"Content-Encoding: gzip\nContent-Type: application/json", "Content-Encoding: gzip, gzip", "Transfer-Encoding: chunked", "Host: evil.example", "Host: evil.example:7400", "Host: 127.0.0.1.evil.example", "Host: [::1", "Host: a\nHost: b", "Host:",
	"Origin: http://evil.example", "Origin: null", "Origin: http://127.0.0.1:7400.evil.example", "Sec-Fetch-Site: cross-site", "X-Forwarded-For: 127.0.0.1\nX-Forwarded-Host: evil.example\nForwarded: for=1", "X-HTTP-Method-Override: DELETE", "Upgrade: websocket\nConnection: Upgrade", "Upgrade: h2c\nConnection: Upgrade, HTTP2-Settings\nHTTP2-Settings: x",
	"Authorization: Basic " + secret, "Authorization: Bearer " + secret, "Authorization: Bearer  \t", "Authorization: " + secret, "Cookie: token=" + secret, "If-None-Match: *", "If-None-Match: \"" + strings.Repeat("x", 5000) + "\"", "If-Match: \"1\"", "Range: bytes=0-0", "Expect: 100-continue", "Expect: 200-maybe",
	"Last-Event-ID: x", "Last-Event-ID: -1", "Last-Event-ID: us-east/3-0000000000000abc/9", "X-Request-ID: " + strings.Repeat("r", 3000), "X-Request-ID: a\x01b", "X-Request-ID: <script>", "Accept: image/png", "Accept-Encoding: gzip", "Traceparent: 00-zz", "Content-Length: 5", "Content-Length: -1", "TE: trailers", "Trailer: X",
}

var hostileMethods = []string{"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get", "G\tET"}

// targets returns the paths of the specification with names put in for their parameters: every
// hostile one at each place.
func targets(t *testing.T) []string {
	var out []string
	for path := range readOpenAPI(t).Paths {
		out = append(out, fillPath(path, "orders"), path, path+"/", path+"//", "/"+path, path+"/%2e%2e/%2e%2e/etc/passwd", strings.ToUpper(path))
		if !strings.Contains(path, "{") {
			continue
		}
		for _, name := range hostileNames {
			out = append(out, fillPath(path, name))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func fillPath(path, name string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if strings.HasPrefix(p, "{") {
			parts[i] = name
		}
	}
	return strings.Join(parts, "/")
}

// judge is what holds of every answer to whatever was sent.
func judge(t *testing.T, what string, method string, code int, header http.Header, body []byte) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%.300q: %d: %s\n%.400q", what, code, fmt.Sprintf(format, args...), body)
	}
	if code >= 500 && code != http.StatusNotImplemented && code != http.StatusServiceUnavailable && code != http.StatusGatewayTimeout && code != http.StatusInsufficientStorage {
		fail("a 5xx")
	}
	id := header.Get(api.HeaderRequestID)
	if id == "" {
		fail("no request id")
	}
	for name, values := range header {
		if strings.HasPrefix(name, "Access-Control") || name == "X-Evil" || slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, secret) }) {
			fail("header %s: %q", name, values)
		}
	}
	if bytes.Contains(body, []byte(secret)) {
		fail("the secret is told")
	}
	if code < 400 || method == http.MethodHead {
		return
	}
	if got := header.Get("Content-Type"); got != api.ProblemType && !strings.HasSuffix(what, "/readyz") {
		fail("content type %q", got)
		return
	}
	var p api.Problem
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		fail("no problem document: %v", err)
		return
	}
	switch {
	case api.Codes()[p.Code] == 0 || p.Status != code || p.Detail == "" || p.RequestID != id:
		fail("%+v", p)
	case len(body) > 8<<10:
		fail("a refusal of %d bytes", len(body))
	case strings.ContainsFunc(p.Detail+p.Remedy+p.Field, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x1b }):
		fail("control characters: %q", p.Detail)
	}
}

// P8, P12: whatever comes, at every path of the specification, by every method: never a 5xx that
// is not true, always a problem document with a code from the closed list and the request's id,
// never the secret that came with it, and nothing is left running (TestMain).
func TestHostileRequests(t *testing.T) {
	h, log := wholeDoor(t, nil)
	sent, skipped := 0, 0
	codes := map[int]int{}
	send := func(q raw) {
		t.Helper()
		r, err := q.parse()
		if err != nil {
			skipped++ // net/http answers by itself: see TestHostileConnections
			return
		}
		// A stream that opens ends with its client.
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if !strings.Contains(q.target, "watch") && !strings.Contains(q.target, "follow") {
			ctx = t.Context()
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(ctx))
		sent++
		codes[w.Code]++
		judge(t, q.method+" "+q.header+" "+q.target, q.method, w.Code, w.Header(), w.Body.Bytes())
	}
	all := targets(t)
	for _, target := range all {
		for _, method := range hostileMethods {
			send(raw{method, target, "", ""})
		}
		send(raw{"PUT", target, asked, good})
		send(raw{"GET", target + "?ns=shop&ns=shop", "Authorization: Bearer " + secret, ""})
	}
	for path := range readOpenAPI(t).Paths {
		target := fillPath(path, "orders")
		for _, query := range hostileQueries {
			for _, method := range []string{"GET", "PUT", "DELETE", "POST"} {
				if strings.HasSuffix(query, "min_revision=18446744073709551616") {
					continue
				}
				send(raw{method, target + query, "", ""})
			}
		}
		for _, body := range hostileBodies() {
			for _, method := range []string{"PUT", "POST", "DELETE", "GET"} {
				send(raw{method, target, asked, body})
			}
		}
		for _, header := range hostileHeaders {
			for _, method := range []string{"GET", "PUT", "POST", "DELETE", "OPTIONS"} {
				send(raw{method, target, header, good})
			}
		}
	}
	t.Logf("%d targets, %d requests, %d that net/http refuses by itself; answers %v", len(all), sent, skipped, codes)
	if bytes.Contains(log.Bytes(), []byte(secret)) {
		t.Error("the secret is in the log")
	}
	if sent < 10_000 {
		t.Errorf("only %d requests", sent)
	}
	// After all of it the node still does its work.
	for _, q := range []raw{{"PUT", "/v1/services/after/instances/a", asked, good}, {"GET", "/v1/resolve/after", "", ""}, {"GET", "/readyz", "", ""}} {
		if w := q.do(t, h); w.Code > 201 {
			t.Errorf("%s %s: %d %s", q.method, q.target, w.Code, w.Body)
		}
	}
}

// P8: what comes over a connection that is no request, half of one, or never ends: the
// connection ends in time and nothing stays.
func TestHostileConnections(t *testing.T) {
	st, err := memstore.New("us-east")
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(registry.Config{Region: "us-east", Node: "n1", Store: st})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.New(kv.Config{Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	steer, err := steering.New(steering.Config{Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- reg.Run(ctx) }()
	<-reg.Loaded()
	h, _ := testDoor(t, reg, func(c *Config) { c.KV, c.Steering, c.Closing = keys, steer, ctx })
	srv := Server(h)
	// The product's limits are seconds; what is asked here is that there are some.
	srv.ReadHeaderTimeout, srv.ReadTimeout = 200*time.Millisecond, 400*time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	const end = "\r\n\r\n"
	const put = "PUT /v1/services/orders/instances/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
	for what, c := range map[string]struct {
		send   string
		status string // the answer's first line has it; "" = any refusal, or none
		plain  bool   // net/http answers by itself
	}{
		"not HTTP":                     {"\x16\x03\x01\x02\x00\x01\x00" + end, "400", true},
		"a request line alone":         {"GET", "", true},
		"no version":                   {"GET /v1/limits" + end, "400", true},
		"HTTP/0.9 as HTTP/9.9":         {"GET /v1/limits HTTP/9.9\r\nHost: a" + end, "505", true},
		"a bare line feed in a name":   {"GET /v1/limits HTTP/1.1\r\nHost: a\r\nX\n: b" + end, "400", true},
		"a blank in a header's name":   {"GET /v1/limits HTTP/1.1\r\nHost: a\r\nX y: b" + end, "400", true},
		"two hosts":                    {"GET /v1/limits HTTP/1.1\r\nHost: a\r\nHost: b" + end, "400", true},
		"two lengths":                  {put + "Content-Length: 3\r\nContent-Length: 4" + end + "{}  ", "400", true},
		"length and chunks":            {put + "Content-Length: 3\r\nTransfer-Encoding: chunked" + end + "2\r\n{}\r\n0" + end, "", false},
		"an encoding that nobody has":  {put + "Transfer-Encoding: gzip" + end, "501", true},
		"a chunk that lies":            {put + "Transfer-Encoding: chunked" + end + "zz\r\n{}\r\n0" + end, "400", false},
		"a chunk of eternity":          {put + "Transfer-Encoding: chunked" + end + "ffffffffffffffff\r\n{", "", false},
		"a body that never comes":      {put + "Content-Length: 100" + end + "{", "400", false},
		"headers that never end":       {"GET /v1/limits HTTP/1.1\r\nHost: a\r\nX: ", "", true},
		"headers of 64 KiB":            {"GET /v1/limits HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 64<<10) + end, "431", true},
		"a target of 64 KiB":           {"GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: a" + end, "431", true},
		"CONNECT":                      {"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80" + end, "404", false},
		"a proxy's request":            {"GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\nHost: 169.254.169.254" + end, "404", false},
		"a foreign page's request":     {"GET /v1/services HTTP/1.1\r\nHost: evil.example" + end, "403", false},
		"a second request in the body": {"GET /v1/limits HTTP/1.1\r\nHost: a\r\nContent-Length: 40" + end + "GET /v1/services HTTP/1.1\r\nHost: a\r\n\r\n  ", "400", false},
		"HTTP/2 without asking":        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", true},
		"nothing at all":               {"", "", true},
		"a client that leaves at once": {put + "Content-Length: 1000000" + end, "", false},
	} {
		t.Run(what, func(t *testing.T) {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, c.send); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Logf("cut off while sending: %v", err) // the answer may be lost with it
			}
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the connection is still open")
			}
			if err != nil {
				if c.status != "" && c.status != "431" {
					t.Errorf("no answer: %v", err)
				}
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the answer never ends")
			}
			if c.status != "" && fmt.Sprint(resp.StatusCode) != c.status {
				t.Errorf("%s, want %s: %.200q", resp.Status, c.status, body)
			}
			if resp.StatusCode < 400 && c.status != "" {
				t.Errorf("taken: %s %.200q", resp.Status, body)
			}
			if !c.plain {
				judge(t, what, "GET", resp.StatusCode, resp.Header, body)
			}
		})
	}
	cancel()
	sctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	if err := srv.Shutdown(sctx); err != nil {
		t.Error(err)
	}
	<-served
	<-ran
}
