package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

func serve(t *testing.T, h http.HandlerFunc) (*Caller, string) {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, idle := NewHTTPClient()
	t.Cleanup(idle)
	return &Caller{HTTP: c, Token: "secret"}, srv.URL
}

// A refusal is an *api.Error, whatever form it comes in; silence is any other error.
func TestAnswersAndErrors(t *testing.T) {
	c, base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderRegion, "us")
		switch r.URL.Path {
		case "/problem":
			w.Header().Set("Content-Type", api.ProblemType)
			w.WriteHeader(409)
			fmt.Fprint(w, `{"code":"stale_incarnation","detail":"d","incarnation":7}`)
		case "/page":
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(503)
			fmt.Fprint(w, "<html>")
		case "/redirect":
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		case "/garbage":
			fmt.Fprint(w, "not json")
		default:
			if r.Header.Get("Authorization") != "Bearer secret" {
				t.Error("no token")
			}
			fmt.Fprint(w, `{"id":"a"}`)
		}
	})
	var out api.HeartbeatAck
	if a, err := c.Do(t.Context(), http.MethodPut, base, "/ok", nil, api.Heartbeat{}, &out); err != nil || out.ID != "a" || a.Region != "us" {
		t.Error(a, err)
	}
	_, err := c.Do(t.Context(), http.MethodGet, base, "/problem", nil, nil, &out)
	var no *api.Error
	if !errors.As(err, &no) || no.Code != api.CodeStaleIncarnation || no.Incarnation != 7 {
		t.Error(err)
	}
	a, err := c.Do(t.Context(), http.MethodGet, base, "/page", nil, nil, &out)
	if api.CodeOf(err) != api.CodeUnavailable || a.RetryAfter != 3*time.Second {
		t.Error(a, err)
	}
	if _, err = c.Do(t.Context(), http.MethodGet, base, "/redirect", nil, nil, &out); !errors.As(err, &no) {
		t.Errorf("P12: a redirect was followed or taken for silence: %v", err)
	}
	if _, err = c.Do(t.Context(), http.MethodGet, base, "/garbage", nil, nil, &out); err == nil || errors.As(err, &no) {
		t.Error(err)
	}
	if _, err = c.Do(t.Context(), http.MethodGet, "http://127.0.0.1:1", "/", nil, nil, &out); err == nil || errors.As(err, &no) || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

func stream(t *testing.T, text string, hold bool) (*Caller, string) {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
		if hold {
			<-r.Context().Done()
		}
	})
}

func open(t *testing.T, c *Caller, base string) *Watch {
	t.Helper()
	w, err := c.Watch(t.Context(), base, WatchRequest{Services: []api.ServiceName{"orders"}}, time.Second, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// P5: frames are read as SSE says: comments, ids and unknown events are skipped, data may
// come in several lines, lines may end in CRLF.
func TestFramesAreRead(t *testing.T) {
	c, base := stream(t, "retry: 1000\n\n: comment\n\nevent: later\ndata: {}\n\nevent: synced\r\nid: x\r\ndata: {\"version\":\r\ndata: {\"region\":\"us\",\"epoch\":\"1-0000000000000001\",\"revision\":3}}\r\n\r\n"+
		"event: bookmark\ndata: {\"version\":{\"revision\":4}}\n\n", false)
	w := open(t, c, base)
	lines := 0
	f, err := w.Next(func() { lines++ })
	if err != nil || f.Kind != api.FrameSynced || f.Version.Revision != 3 || lines < 8 {
		t.Fatal(f, err, lines)
	}
	if f, err = w.Next(nil); err != nil || f.Kind != api.FrameBookmark {
		t.Fatal(f, err)
	}
	if _, err = w.Next(nil); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// Broken frames end the stream with an error, and never with a panic or endless memory.
func TestBrokenStreams(t *testing.T) {
	for name, text := range map[string]string{
		"bad json":  "event: item\ndata: {\n\n",
		"long line": "data: " + strings.Repeat("x", maxLine+1<<16) + "\n\n",
		"long data": strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 9) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, base := stream(t, text, true)
			if f, err := open(t, c, base).Next(nil); err == nil {
				t.Errorf("%+v", f)
			}
		})
	}
}

// Row 33: silence ends a watch, before its headers and after; what is no stream is told apart.
func TestSilence(t *testing.T) {
	c, base := stream(t, "retry: 1\n\n", true)
	w, err := c.Watch(t.Context(), base, WatchRequest{}, time.Second, 30*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Next(nil); !errors.Is(err, ErrSilent) {
		t.Error(err)
	}
	c, base = serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if _, err := c.Watch(t.Context(), base, WatchRequest{}, 30*time.Millisecond, time.Second); !errors.Is(err, ErrSilent) {
		t.Error(err)
	}
	c, base = serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	if _, err := c.Watch(t.Context(), base, WatchRequest{}, time.Second, time.Second); !errors.Is(err, ErrNoStream) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Watch(ctx, base, WatchRequest{}, time.Second, time.Second); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// P1: a kept connection that the node closes as a heartbeat takes it costs no failure: what
// is safe to repeat goes out again on another one.
func TestClosedConnectionCostsNoHeartbeat(t *testing.T) {
	var asked atomic.Int32
	c, base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) != 2 {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
	})
	for range 2 {
		if _, err := c.Do(t.Context(), http.MethodPut, base, "/x", nil, api.Heartbeat{Incarnation: 7}, nil); err != nil {
			t.Error(err)
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("%d requests came", n)
	}
}
