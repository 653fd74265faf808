package httpapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func watchNothing(_ context.Context, _ registry.WatchQuery, send func(api.Frame) error) error {
	return send(api.Frame{Kind: api.FrameSynced})
}

// pipes is a listener without a network: it works inside synctest, and has no buffers, so
// that a client that does not read blocks its server at once.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dial sends the head of a GET and returns the client's end of the connection.
func (p *pipes) dial(t *testing.T, target, header string) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	p.conns <- server
	if header != "" {
		header += "\r\n"
	}
	if _, err := io.WriteString(client, "GET "+target+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+header+"\r\n"); err != nil {
		t.Fatal(err)
	}
	return client
}

// withServer runs test inside a synctest bubble against the package's own server. Channels
// must be made by test, or the bubble's clock stands still while somebody waits for them.
func withServer(t *testing.T, f *fake, test func(t *testing.T, p *pipes, closing context.CancelFunc)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		closing, shut := context.WithCancel(context.Background())
		h, _ := testDoor(t, f, func(c *Config) { c.Closing = closing })
		srv, p := Server(h), newPipes()
		served := make(chan error, 1)
		go func() { served <- srv.Serve(p) }()
		test(t, p, shut)
		shut()
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
	})
}

func ver(revision uint64) api.Version {
	return api.Version{Region: "us-east", Epoch: testEpoch, Revision: revision}
}

// P5: frames are framed to the letter, and only those that are safe to resume from have an id.
func TestFramesOnTheWire(t *testing.T) {
	f := newFake()
	i := api.Instance{Namespace: "default", Service: "orders", ID: "a\nb", Region: "us-east", StatusSince: testTime, RegisteredAt: testTime}
	f.onWatch = func(_ context.Context, _ registry.WatchQuery, send func(api.Frame) error) error {
		for _, fr := range []api.Frame{
			{Kind: api.FrameReset, Version: ver(1), Reason: "epoch changed"},
			{Kind: api.FrameItem, Version: ver(1), Service: "orders", Instance: &i},
			{Kind: api.FrameReplica, Version: ver(1), Service: "orders", Origin: &api.Origin{Region: "eu-west"}},
			{Kind: api.FrameSynced, Version: ver(1)},
			{Kind: api.FrameChange, Version: ver(2), Op: api.OpDelete, Cause: api.CauseEvict, Service: "orders", More: true},
			{Kind: api.FrameChange, Version: ver(2), Op: api.OpPut, Cause: api.CauseRegister, Service: "users", Namespace: "shop"},
			{Kind: api.FrameBookmark, Version: ver(3), Addresses: []string{"http://10.0.0.1:7400?a&b"}},
		} {
			if err := send(fr); err != nil {
				return err
			}
		}
		return nil
	}
	h, _ := testDoor(t, f, nil)
	w := raw{"GET", "/v1/watch?service=orders", "", ""}.do(t, h)
	const at = `"version":{"region":"us-east","epoch":"3-0000000000000abc","revision":`
	want := "retry: 1000\n\n" +
		"event: reset\ndata: {" + at + `1},"reason":"epoch changed"}` + "\n\n" +
		"event: item\ndata: {" + at + `1},"instance":{"ns":"default","service":"orders","id":"a\nb","region":"us-east","address":"",` +
		`"port":0,"weight":0,"status":"","status_since":"2026-11-22T10:00:00Z",` +
		`"registered_at":"2026-11-22T10:00:00Z","revision":0},"service":"orders"}` + "\n\n" +
		"event: replica\ndata: {" + at + `1},"service":"orders","origin":{"region":"eu-west","epoch":"","revision":0,"age_ms":0,"state":"","complete":false}}` + "\n\n" +
		"id: us-east/3-0000000000000abc/1\nevent: synced\ndata: {" + at + `1}}` + "\n\n" +
		"event: change\ndata: {" + at + `2},"op":"delete","cause":"evict","service":"orders","more":true}` + "\n\n" +
		"id: us-east/3-0000000000000abc/2\nevent: change\ndata: {" + at + `2},"op":"put","cause":"register","service":"users","ns":"shop"}` + "\n\n" +
		"id: us-east/3-0000000000000abc/3\nevent: bookmark\ndata: {" + at + `3},"addresses":["http://10.0.0.1:7400?a&b"]}` + "\n\n"
	if got := w.Body.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	checkStamp(t, w.Header())
}

func TestWatchQueries(t *testing.T) {
	f := newFake()
	f.onWatch = watchNothing
	h, _ := testDoor(t, f, nil)
	for _, tt := range []struct {
		target, header string
		want           registry.WatchQuery
	}{
		{"/v1/watch", "", registry.WatchQuery{Namespace: "default"}},
		{"/v1/watch?service=b&service=a&service=b&far=true&ns=shop", "", registry.WatchQuery{Namespace: "shop", Services: []api.ServiceName{"b", "a"}, Far: true}},
		{"/v1/watch?ns=*&bookmark=2s", "", registry.WatchQuery{Namespace: api.AllNamespaces, Bookmark: 2 * time.Second}},
		{"/v1/watch?from=" + ver(7).String(), "", registry.WatchQuery{Namespace: "default", From: ver(7)}},
		{"/v1/watch?from=", "Last-Event-ID: " + ver(8).String(), registry.WatchQuery{Namespace: "default", From: ver(8)}},
		// A browser that reconnects repeats the URL: the header is newer.
		{"/v1/watch?from=" + ver(7).String(), "Last-Event-ID: " + ver(9).String(), registry.WatchQuery{Namespace: "default", From: ver(9)}},
	} {
		w := raw{"GET", tt.target, tt.header, ""}.do(t, h)
		if w.Code != 200 || !reflect.DeepEqual(f.last, tt.want) {
			t.Errorf("%s %s: %d, asked %+v, want %+v", tt.target, tt.header, w.Code, f.last, tt.want)
		}
	}
}

// An error before the first frame has a status of its own.
func TestWatchRefusalsAreProblems(t *testing.T) {
	for _, code := range []api.Code{api.CodeTooManyRequests, api.CodeForbidden, api.CodeUnavailable} {
		f := newFake()
		f.failure = api.Errorf(code, "no")
		h, _ := testDoor(t, f, nil)
		if p := problemOf(t, raw{"GET", "/v1/watch", "", ""}.do(t, h)); p.Code != code {
			t.Errorf("%s: %+v", code, p)
		}
	}
	f := newFake()
	f.onWatch = func(context.Context, registry.WatchQuery, func(api.Frame) error) error { return nil }
	h, _ := testDoor(t, f, nil)
	if p := problemOf(t, raw{"GET", "/v1/watch", "", ""}.do(t, h)); p.Code != api.CodeUnavailable {
		t.Errorf("%+v", p)
	}
}

// An error after the first frame ends the stream: nothing is mixed into it.
func TestWatchErrorsEndTheStream(t *testing.T) {
	f := newFake()
	f.onWatch = func(ctx context.Context, q registry.WatchQuery, send func(api.Frame) error) error {
		_ = watchNothing(ctx, q, send)
		return api.Errorf(api.CodeUnavailable, "too slow")
	}
	h, _ := testDoor(t, f, nil)
	w := raw{"GET", "/v1/watch", "", ""}.do(t, h)
	if w.Code != 200 || strings.Contains(w.Body.String(), "too slow") || !strings.HasSuffix(w.Body.String(), "\n\n") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHeadOfAWatchAnswersAtOnce(t *testing.T) {
	h, _ := testDoor(t, newFake(), nil)
	if w := (raw{"HEAD", "/v1/watch?service=orders", "", ""}).do(t, h); w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// A quiet stream is open soon, and stays open: the deadlines of ordinary requests are not
// those of a stream.
func TestQuietWatchStaysOpen(t *testing.T) {
	f := newFake()
	withServer(t, f, func(t *testing.T, p *pipes, _ context.CancelFunc) {
		left := make(chan error, 1)
		f.onWatch = func(ctx context.Context, _ registry.WatchQuery, send func(api.Frame) error) error {
			select {
			case <-ctx.Done():
				left <- ctx.Err()
				return ctx.Err()
			case <-time.After(10 * time.Minute):
			}
			left <- nil
			return send(api.Frame{Kind: api.FrameBookmark, Version: ver(1)})
		}

		begin := time.Now()
		c := p.dial(t, "/v1/watch", "")
		defer c.Close()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 || time.Since(begin) > time.Second {
			t.Fatalf("%v %v after %s", resp, err, time.Since(begin))
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || !strings.HasSuffix(string(body), "event: bookmark\ndata: {\"version\":{\"region\":\"us-east\",\"epoch\":\"3-0000000000000abc\",\"revision\":1}}\n\n") {
			t.Errorf("%q %v", body, err)
		}
		if err := <-left; err != nil {
			t.Errorf("the stream was ended: %v", err)
		}
	})
}

// P8: a client that leaves is noticed without a write.
func TestDisconnectedClientEndsItsWatch(t *testing.T) {
	f := newFake()
	withServer(t, f, func(t *testing.T, p *pipes, _ context.CancelFunc) {
		left := make(chan struct{})
		f.onWatch = func(ctx context.Context, q registry.WatchQuery, send func(api.Frame) error) error {
			defer close(left)
			if err := watchNothing(ctx, q, send); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}

		c := p.dial(t, "/v1/watch", "")
		b := bufio.NewReader(c)
		for line := ""; line != "data: {\"version\":{\"region\":\"\",\"epoch\":\"\",\"revision\":0}}\n"; {
			var err error
			if line, err = b.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		_ = c.Close()
		<-left
		if d := time.Since(begin); d > time.Second {
			t.Errorf("noticed after %s", d)
		}
	})
}

// P5, P8: a client that does not read loses its stream, and costs one blocked goroutine
// until then, never the writer of the catalogue.
func TestSlowClientLosesItsWatch(t *testing.T) {
	f := newFake()
	withServer(t, f, func(t *testing.T, p *pipes, _ context.CancelFunc) {
		sent := make(chan error, 1)
		f.onWatch = func(ctx context.Context, _ registry.WatchQuery, send func(api.Frame) error) error {
			var err error
			for err == nil {
				err = send(api.Frame{Kind: api.FrameBookmark, Version: ver(1)})
			}
			sent <- err
			return err
		}

		begin := time.Now()
		c := p.dial(t, "/v1/watch", "")
		defer c.Close()
		err := <-sent
		if d := time.Since(begin); d != frameTimeout || err == nil {
			t.Errorf("ended after %s with %v, want %s", d, err, frameTimeout)
		}
	})
}

// On shutdown streams end at once: the quiet ones, and those whose client takes nothing.
func TestClosingEndsWatches(t *testing.T) {
	f := newFake()
	withServer(t, f, func(t *testing.T, p *pipes, closing context.CancelFunc) {
		ends := make(chan error, 2)
		f.onWatch = func(ctx context.Context, q registry.WatchQuery, send func(api.Frame) error) error {
			err := send(api.Frame{Kind: api.FrameSynced, Version: ver(1)})
			for err == nil && len(q.Services) > 0 {
				err = send(api.Frame{Kind: api.FrameBookmark, Version: ver(1)})
			}
			<-ctx.Done()
			ends <- context.Cause(ctx)
			return err
		}

		quiet := p.dial(t, "/v1/watch", "")
		defer quiet.Close()
		body := make(chan string, 1)
		go func() {
			resp, err := http.ReadResponse(bufio.NewReader(quiet), nil)
			if err != nil {
				body <- err.Error()
				return
			}
			b, err := io.ReadAll(resp.Body)
			body <- string(b) + errText(err)
		}()
		blocked := p.dial(t, "/v1/watch?service=orders", "")
		defer blocked.Close()
		synctest.Wait()
		begin := time.Now()
		closing()
		for range 2 {
			if err := <-ends; !errors.Is(err, errClosing) {
				t.Errorf("ended with %v", err)
			}
		}
		if got := <-body; !strings.Contains(got, "event: synced") || strings.Contains(got, "error") {
			t.Errorf("the quiet stream did not end well: %q", got)
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("streams ended after %s", d)
		}
		late := p.dial(t, "/v1/watch", "")
		defer late.Close()
		resp, err := http.ReadResponse(bufio.NewReader(late), nil)
		if err != nil || resp.StatusCode != 503 || resp.Header.Get("Content-Type") != api.ProblemType {
			t.Errorf("a watch during shutdown: %v %v", resp, err)
		}
	})
}

// On shutdown a stream over HTTP/2 ends as over HTTP/1: with its end, not with a reset, which
// a client would have to take for a failure. One whose client takes nothing is cut soon.
func TestClosingEndsWatchesOverHTTP2(t *testing.T) {
	f := newFake()
	synctest.Test(t, func(t *testing.T) {
		f.onWatch = func(ctx context.Context, q registry.WatchQuery, send func(api.Frame) error) error {
			err := send(api.Frame{Kind: api.FrameSynced, Version: ver(1)})
			for err == nil && len(q.Services) > 0 {
				err = send(api.Frame{Kind: api.FrameBookmark, Version: ver(1)})
			}
			<-ctx.Done()
			return err
		}
		closing, shut := context.WithCancel(context.Background())
		h, _ := testDoor(t, f, func(c *Config) { c.Closing = closing })
		srv, p := Server(h), newPipes()
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetUnencryptedHTTP2(true)
		served := make(chan error, 1)
		go func() { served <- srv.Serve(p) }()
		tr := &http.Transport{Protocols: srv.Protocols, DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			p.conns <- server
			return client, nil
		}}
		get := func(target string) *http.Response {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1"+target, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := tr.RoundTrip(req)
			if err != nil || resp.StatusCode != 200 || resp.ProtoMajor != 2 {
				t.Fatalf("%v %v", resp, err)
			}
			return resp
		}

		quiet, other, blocked := get("/v1/watch"), get("/v1/watch"), get("/v1/watch?service=orders")
		synctest.Wait() // blocked has filled its window
		begin := time.Now()
		shut()
		for _, resp := range []*http.Response{quiet, other} {
			body, err := io.ReadAll(resp.Body)
			if err != nil || !strings.Contains(string(body), "event: synced") {
				t.Errorf("the stream ended with %v: %q", err, body)
			}
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("quiet streams ended after %s", d)
		}
		time.Sleep(2 * lastTimeout)
		synctest.Wait()
		if _, err := io.ReadAll(blocked.Body); err == nil {
			t.Error("half a stream that was cut looks whole")
		}
		tr.CloseIdleConnections()
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("the server was down after %s", d)
		}
	})
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return " error: " + err.Error()
}

// P8: a client that sends its request byte by byte does not hold a goroutine for long.
func TestSlowRequestIsCutOff(t *testing.T) {
	withServer(t, newFake(), func(t *testing.T, p *pipes, _ context.CancelFunc) {
		client, server := net.Pipe()
		p.conns <- server
		defer client.Close()
		begin := time.Now()
		_, _ = io.WriteString(client, "PUT "+inst+" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil || resp.StatusCode != 400 || time.Since(begin) > readTimeout+time.Second {
			t.Errorf("%v %v after %s", resp, err, time.Since(begin))
		}
	})
}
