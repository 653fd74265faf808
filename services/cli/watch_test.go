package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

func sse(w http.ResponseWriter, f api.Frame, id string) {
	data, _ := json.Marshal(f)
	if id != "" {
		fmt.Fprintf(w, "id: %s\n", id)
	}
	fmt.Fprintf(w, "event: %s\ndata: %s\n\n", f.Kind, data)
	w.(http.Flusher).Flush()
}

// A stream that breaks is taken up where it broke; Ctrl-C ends the watch with 130.
func TestWatchGoesOnWhereItBroke(t *testing.T) {
	t.Parallel() // it waits for a second or two, as the program does
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	one := instanceList.Instances[0]
	at := api.Version{Region: "eu-west", Epoch: epochEU, Revision: 42}
	var streams atomic.Int32
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "retry: 1000\n\n")
		if streams.Add(1) == 1 {
			sse(w, api.Frame{Kind: api.FrameItem, Version: at, Service: "orders", Instance: &one}, "")
			sse(w, api.Frame{Kind: api.FrameSynced, Version: at}, at.String())
			return
		}
		if got := r.URL.Query().Get("from"); got != at.String() {
			t.Errorf("taken up from %q, want %q", got, at)
		}
		sse(w, api.Frame{Kind: api.FrameChange, Version: at, Op: api.OpDelete, Cause: api.CauseEvict, Service: "orders", Instance: &one}, "")
		interrupt()
		<-r.Context().Done()
	}))
	defer node.Close()
	r := program{env: map[string]string{"NEARSIDE_ADDR": node.URL}}.run(ctx, "watch", "orders")
	wantCode(t, r, ExitInterrupted)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if len(lines) < 2 || lines[0] != "12:00:00  is                   orders/orders-1  10.0.0.1:8080  passing" || !strings.Contains(lines[1], at.String()) {
		t.Errorf("stdout:\n%s", r.stdout)
	}
	wantContains(t, "stderr", r.stderr, "the stream broke (it ended)")
}

func TestWatchRefused(t *testing.T) {
	node := newNode(t, map[string]reply{"GET /v1/watch?service=orders": problemReply(api.Errorf(api.CodeForbidden, "not yours"))})
	wantCode(t, run(t, node.URL, "watch", "orders"), ExitNotAllowed)
	wantCode(t, run(t, closedAddr(t), "watch", "orders"), ExitUnreachable)
	wantCode(t, run(t, node.URL, "watch"), ExitUsage)
	wantCode(t, run(t, node.URL, "watch", "orders", "-o", "name"), ExitUsage)
}

// Frames for programs are lines of JSON with their kind.
func TestWatchJSONLines(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		sse(w, api.Frame{Kind: api.FrameSynced, Version: api.Version{Region: "eu-west", Epoch: epochEU, Revision: 1}}, "")
		<-r.Context().Done()
	}))
	defer node.Close()
	out := &notifying{seen: interrupt}
	a := &app{
		stdout: out, stderr: out, now: nil,
		lookupEnv: func(k string) (string, bool) { return node.URL, k == "NEARSIDE_ADDR" },
	}
	if code := a.run(ctx, []string{"watch", "orders", "-o", "jsonl"}); code != ExitInterrupted {
		t.Fatalf("exit %d: %s", code, out.text())
	}
	first, _, _ := strings.Cut(out.text(), "\n")
	wantJSON(t, first, map[string]any{
		"event":   "synced",
		"version": map[string]any{"region": "eu-west", "epoch": epochEU.String(), "revision": 1},
	})
}
