package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// noon is the time at which the tests run, but those that talk to a real registry: it has the
// clock of the machine, and a program with another one would plan in its past.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// result is what one run of the program left.
type result struct {
	code           int
	stdout, stderr string
}

// program is the program under test, with the world it is given.
type program struct {
	env      map[string]string
	siblings []*cobra.Command
	now      func() time.Time // nil = noon
}

func (p program) run(ctx context.Context, args ...string) result {
	var out, errs bytes.Buffer
	if p.now == nil {
		p.now = func() time.Time { return noon }
	}
	a := &app{
		stdin: strings.NewReader(""), stdout: &out, stderr: &errs,
		lookupEnv: func(k string) (string, bool) { v, ok := p.env[k]; return v, ok },
		now:       p.now, siblings: p.siblings,
	}
	code := a.run(ctx, args)
	return result{code, out.String(), errs.String()}
}

// run runs the program against a node at addr.
func run(t *testing.T, addr string, args ...string) result {
	t.Helper()
	return program{env: map[string]string{"NEARSIDE_ADDR": addr}}.run(t.Context(), args...)
}

// reply is a fake node's answer to one request.
type reply struct {
	status int // 0 = 200
	body   any // a string is sent as it is; other values as JSON
	header map[string]string
}

// fakeNode answers requests, named like "GET /v1/services?ns=shop", with prepared replies
// and everything else with 404.
type fakeNode struct {
	*httptest.Server

	mu   sync.Mutex
	seen []*http.Request
}

func newNode(t *testing.T, replies map[string]reply) *fakeNode {
	t.Helper()
	n := &fakeNode{}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		n.seen = append(n.seen, r)
		n.mu.Unlock()
		rep, ok := replies[r.Method+" "+r.URL.RequestURI()]
		if !ok {
			rep = problemReply(api.Errorf(api.CodeNotFound, "there is no %s", r.URL.RequestURI()))
		}
		writeReply(w, rep)
	}))
	t.Cleanup(n.Close)
	return n
}

func writeReply(w http.ResponseWriter, rep reply) {
	for k, v := range rep.header {
		w.Header().Set(k, v)
	}
	if rep.status == 0 {
		rep.status = http.StatusOK
	}
	w.WriteHeader(rep.status)
	if s, ok := rep.body.(string); ok {
		_, _ = w.Write([]byte(s))
	} else if rep.body != nil {
		_ = json.NewEncoder(w).Encode(rep.body)
	}
}

// requests returns what the node was asked so far.
func (n *fakeNode) requests() []*http.Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*http.Request(nil), n.seen...)
}

func problemReply(e *api.Error) reply {
	return reply{
		status: e.Code.HTTPStatus(), body: e.Problem("req-1"),
		header: map[string]string{"Content-Type": api.ProblemType},
	}
}

func wantCode(t *testing.T, r result, code int) {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", r.code, code, r.stdout, r.stderr)
	}
}

func wantText(t *testing.T, name, got, want string) {
	t.Helper()
	if want = strings.TrimPrefix(want, "\n"); got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

func wantContains(t *testing.T, name, got, part string) {
	t.Helper()
	if !strings.Contains(got, part) {
		t.Errorf("%s has no %q:\n%s", name, part, got)
	}
}

// wantJSON compares two JSON texts by value.
func wantJSON(t *testing.T, got string, want any) {
	t.Helper()
	w, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var g, x any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, got)
	}
	if err := json.Unmarshal(w, &x); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, x) {
		t.Errorf("got %s\nwant %s", got, w)
	}
}

// notifying is an output that calls seen at every write.
type notifying struct {
	mu   sync.Mutex
	b    bytes.Buffer
	seen func()
}

func (n *notifying) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen != nil {
		n.seen()
	}
	return n.b.Write(p)
}

func (n *notifying) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

// waitFor returns once part was written.
func (n *notifying) waitFor(t *testing.T, part string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(n.text(), part) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%q was not written within 20 s, but:\n%s", part, n.text())
		}
	}
}
