package cli

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// mute is a node that takes connections and requests, and says nothing.
func mute(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String() // the kernel takes them
}

// P3: a node that hangs holds nobody up: what has no end is given up when it does not begin, too.
func TestStreamsThatDoNotBegin(t *testing.T) {
	for name, args := range map[string][]string{
		"watch": {"watch", "orders"}, "kv watch": {"kv", "watch", "app/"}, "events": {"events", "-f"},
		"snapshot": {"snapshot", "save", filepath.Join(t.TempDir(), "f")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, mute(t), append(args, "--timeout", "50ms")...)
			wantCode(t, r, ExitTimeout)
			wantContains(t, "stderr", r.stderr, "did not answer within 50ms")
		})
		t.Run(name+" of the next address", func(t *testing.T) {
			t.Parallel()
			node := newNode(t, map[string]reply{})
			r := run(t, mute(t)+","+node.URL, append(args, "--timeout", "500ms")...)
			wantCode(t, r, ExitNotFound) // an answer, and so the last word
			if len(node.requests()) != 1 {
				t.Errorf("the second address got %d requests", len(node.requests()))
			}
		})
	}
}

// A stream that began is not bound by the time for its beginning.
func TestStreamOutlivesTimeout(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	at := api.Version{Region: "eu-west", Epoch: epochEU, Revision: 42}
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		sse(w, api.Frame{Kind: api.FrameSynced, Version: at}, at.String())
		select {
		case <-r.Context().Done():
			t.Error("the client left")
		case <-time.After(2 * time.Second):
		}
		interrupt()
	}))
	defer node.Close()
	wantCode(t, program{env: map[string]string{"NEARSIDE_ADDR": node.URL}}.run(ctx, "watch", "orders", "--timeout", "1s"), ExitInterrupted)
}

func TestPatience(t *testing.T) {
	given := &client{timeout: time.Second}
	for _, c := range []struct {
		method, path string
		want         time.Duration
	}{
		{"GET", "/v1/services", readPatience},
		{"GET", "/v1/regions/eu-west/members", readPatience},
		{"PUT", "/v1/kv/a", writePatience},
		{"DELETE", "/v1/kv/v1/regions/a/members", writePatience},
		{"PUT", "/v1/regions/eu-west/drain", writePatience},
		{"POST", "/v1/regions/eu-west/members", memberPatience},
		{"DELETE", "/v1/regions/eu-west/members/n2", memberPatience},
	} {
		if got := (&client{}).patience(c.method, c.path); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, got, c.want)
		}
		if got := given.patience(c.method, c.path); got != time.Second {
			t.Errorf("%s %s: %s although --timeout is given", c.method, c.path, got)
		}
	}
}

// A node says why it gave a write up after 5 s: the client is still there to hear it.
func TestWritesOutlastTheNodesOwnDeadline(t *testing.T) {
	t.Parallel() // it waits as long as the node does
	busy := api.Errorf(api.CodeUnavailable, "the region's store does not answer")
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(readPatience + 200*time.Millisecond):
		}
		writeReply(w, problemReply(busy))
	}))
	defer node.Close()
	r := run(t, node.URL, "kv", "put", "a", "1")
	wantCode(t, r, ExitUnreachable)
	wantContains(t, "stderr", r.stderr, "the region's store does not answer")
}

// What one node took in silence, and another then does not find, is most likely done: it is not
// told as if there had been nothing to do.
func TestRemovalRepeatedElsewhere(t *testing.T) {
	nothing := problemReply(api.Errorf(api.CodeInstanceNotFound, "there is no such instance"))
	other := newNode(t, map[string]reply{
		"DELETE /v1/services/orders/instances/o-1": nothing,
		"GET /v1/services/orders/instances":        {body: instanceList},
		"DELETE /v1/services/orders":               problemReply(api.Errorf(api.CodeServiceNotFound, "there is no such service")),
		"DELETE /v1/kv/a":                          problemReply(api.Errorf(api.CodeKeyNotFound, "there is no such key")),
		"DELETE /v1/kv/b":                          problemReply(api.Errorf(api.CodeForbidden, "not yours")),
	})
	for _, c := range []struct {
		args string
		exit int
		says string
	}{
		{"deregister orders o-1", ExitOK, "It is gone now"},
		{"kv delete a", ExitOK, "It is gone now"},
		{"deregister --all orders", ExitTimeout, "most likely it is done"},
		{"kv delete b", ExitNotAllowed, "not yours"},
	} {
		r := run(t, mute(t)+","+other.URL, append(strings.Fields(c.args), "--timeout", "300ms")...)
		if r.code != c.exit || !strings.Contains(r.stderr, c.says) {
			t.Errorf("%s: exit %d, want %d\n%s", c.args, r.code, c.exit, r.stderr)
		}
	}
	// A node that was never reached has done nothing.
	r := run(t, closedAddr(t)+","+other.URL, "deregister", "orders", "o-1")
	wantCode(t, r, ExitNotFound)
}
