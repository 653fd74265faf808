package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

var (
	keyURL   = api.KVEntry{Key: "app/db/url", Namespace: "default", Value: []byte("postgres://\tx\ny"), Size: 15, Revision: 44, Created: 40}
	keyBytes = api.KVEntry{Key: "app/seed", Namespace: "default", Value: []byte("\x00\xff\x1b[31m"), Size: 7, Revision: 45, Created: 45}
	keyList  = api.KVList{Namespace: "default", Prefix: "app/", Entries: []api.KVEntry{keyURL, keyBytes}}
)

// run with something on stdin.
func runWith(t *testing.T, addr, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{
		stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs,
		lookupEnv: func(k string) (string, bool) { return addr, k == "NEARSIDE_ADDR" },
	}
	return result{a.run(t.Context(), args), out.String(), errs.String()}
}

func TestKVGet(t *testing.T) {
	node := newNode(t, map[string]reply{
		"GET /v1/kv/app/db/url?meta=true":         {body: keyURL},
		"GET /v1/kv/app/db/url?meta=true&ns=shop": {body: keyURL, header: map[string]string{api.HeaderAgeMS: "60000"}},
		"GET /v1/kv/app/seed?meta=true":           {body: keyBytes},
		"GET /v1/kv/none?meta=true":               problemReply(api.Errorf(api.CodeKeyNotFound, "there is no key none")),
	})
	for _, tc := range []struct {
		args, stdout, stderr string
		code                 int
	}{
		{"kv get app/db/url", "postgres://        x\ny\n", "", ExitOK},
		{"kv get app/db/url --raw", "postgres://\tx\ny", "", ExitOK},
		{"kv get app/seed", "\ufffd\ufffd\ufffd[31m\n", "--raw", ExitOK},
		{"kv get app/seed --raw", "\x00\xff\x1b[31m", "", ExitOK},
		{"kv get app/db/url -o name", "app/db/url\n", "", ExitOK},
		{"kv get none", "", "there is no key", ExitNotFound},
		{"kv get a//b", "", "is not valid", ExitUsage},
		{"kv get", "", "the key is missing", ExitUsage},
		{"kv", "", "say which: delete, get, list, put, watch", ExitUsage},
		{"kv get app/seed --raw -o json", "", "give one", ExitUsage},
		{"kv get app/db/url -n shop --max-stale 30s", "postgres://        x\ny\n", "more than --max-stale", ExitStale},
	} {
		t.Run(tc.args, func(t *testing.T) {
			r := run(t, node.URL, strings.Fields(tc.args)...)
			wantCode(t, r, tc.code)
			wantText(t, "stdout", r.stdout, tc.stdout)
			if tc.stderr == "" && r.stderr != "" {
				t.Errorf("stderr: %s", r.stderr)
			}
			wantContains(t, "stderr", r.stderr, tc.stderr)
		})
	}
	r := run(t, node.URL, "kv", "get", "app/seed", "-o", "json")
	wantCode(t, r, ExitOK)
	wantJSON(t, r.stdout, keyBytes)
}

// What stands on the command line, on stdin or in a file is stored byte by byte.
func TestKVPut(t *testing.T) {
	type seen struct{ uri, body string }
	var got seen
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = seen{r.Method + " " + r.URL.RequestURI(), string(b)}
		fmt.Fprint(w, `{"key":"a/b","ns":"default","revision":45,"created_revision":40}`)
	}))
	defer node.Close()
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("of a file\n\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args  []string
		stdin string
		want  seen
	}{
		{[]string{"a/b", "on"}, "", seen{"PUT /v1/kv/a/b", "on"}},
		{[]string{"a/b", ""}, "", seen{"PUT /v1/kv/a/b", ""}},
		{[]string{"a/b", "-", "--cas", "0"}, "of stdin\n\xff", seen{"PUT /v1/kv/a/b?cas=0", "of stdin\n\xff"}},
		{[]string{"a/b", "on", "--cas", "0", "--epoch", "3-0000000000000abc"}, "", seen{"PUT /v1/kv/a/b?cas=0&epoch=3-0000000000000abc", "on"}},
		{[]string{"a/b", "@" + file, "--cas", "44", "-n", "shop"}, "", seen{"PUT /v1/kv/a/b?cas=44&ns=shop", "of a file\n\x00"}},
	} {
		r := runWith(t, node.URL, tc.stdin, append([]string{"kv", "put"}, tc.args...)...)
		wantCode(t, r, ExitOK)
		want := "KEY  REVISION  CREATED\na/b  45        40\n"
		if slices.Contains(tc.args, "shop") {
			want = "KEY  NS    REVISION  CREATED\na/b  shop  45        40\n"
		}
		wantText(t, "stdout", r.stdout, want)
		if got != tc.want {
			t.Errorf("%q sent %q", tc.args, got)
		}
	}
	got = seen{}
	for _, args := range [][]string{{"a/b"}, {"/a", "x"}, {"a", "@" + file + "none"}, {"a", "x", "--cas", "-1"}, {"a", "-"}, {"a", "x", "--epoch", "3-0000000000000abc"}, {"a", "x", "--cas", "3", "--epoch", "3"}} {
		r := runWith(t, node.URL, strings.Repeat("x", api.MaxKVValueBytes+1), append([]string{"kv", "put"}, args...)...)
		wantCode(t, r, ExitUsage)
	}
	if got != (seen{}) {
		t.Errorf("a wrong command was sent: %q", got)
	}
}

func TestKVConflictAndDelete(t *testing.T) {
	at := uint64(44)
	no := problemReply(&api.Error{Code: api.CodeConflict, Detail: "key a is at revision 44, not 3", Revision: &at})
	node := newNode(t, map[string]reply{
		"PUT /v1/kv/a?cas=3": no, "DELETE /v1/kv/a?cas=3": no, "DELETE /v1/kv/a": {status: 204},
		"DELETE /v1/kv/none": problemReply(api.Errorf(api.CodeKeyNotFound, "there is no key none")),
		"PUT /v1/kv/full":    problemReply(api.Errorf(api.CodeStorageFull, "the region keeps at most 3 keys")),
	})
	for args, code := range map[string]int{
		"kv put a x --cas 3": ExitConflict, "kv delete a --cas 3": ExitConflict, "kv delete a": ExitOK,
		"kv delete none": ExitNotFound, "kv put full x": ExitError,
	} {
		r := run(t, node.URL, strings.Fields(args)...)
		wantCode(t, r, code)
		if code == ExitConflict {
			wantContains(t, "stderr", r.stderr, "at revision 44")
		}
	}
}

// A compare-and-set that a node may have taken is not sent to another one, which would
// call its own result a conflict; what never arrived is.
func TestCompareAndSetIsSentOnce(t *testing.T) {
	var asked int
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		fmt.Fprint(w, `{"key":"a","ns":"default","revision":45,"created_revision":40}`)
	}))
	defer good.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer cut.Close()
	wantCode(t, run(t, cut.URL+","+good.URL, "kv", "put", "a", "x", "--cas", "3"), ExitUnreachable)
	if asked != 0 {
		t.Error("sent again")
	}
	wantCode(t, run(t, closedAddr(t)+","+good.URL, "kv", "put", "a", "x", "--cas", "3"), ExitOK)
	wantCode(t, run(t, cut.URL+","+good.URL, "kv", "put", "a", "x"), ExitOK)
}

func TestKVList(t *testing.T) {
	bare := keyList
	bare.Entries = nil
	for _, e := range keyList.Entries {
		e.Value = nil
		bare.Entries = append(bare.Entries, e)
	}
	first, second := bare, bare
	first.Entries, first.Cursor = bare.Entries[:1], "app/db/url"
	second.Entries = bare.Entries[1:]
	node := newNode(t, map[string]reply{
		"GET /v1/kv/?keys=true&prefix=app%2F":                       {body: first},
		"GET /v1/kv/?cursor=app%2Fdb%2Furl&keys=true&prefix=app%2F": {body: second},
		"GET /v1/kv/?keys=true&limit=1&prefix=app%2F":               {body: first},
		"GET /v1/kv/?prefix=app%2F":                                 {body: keyList},
		"GET /v1/kv/?keys=true":                                     {body: api.KVList{Namespace: "default"}},
	})
	for _, tc := range []struct{ args, want string }{
		{"kv list app/", `
KEY         BYTES  REVISION  CREATED
app/db/url  15     44        40
app/seed    7      45        45
`},
		{"kv list app/ --limit 1 --no-headers", "app/db/url  15  44  40\n"},
		{"kv list app/ -o name", "app/db/url\napp/seed\n"},
		{"kv list app/ --values", "KEY         BYTES  REVISION  CREATED  VALUE\n" +
			"app/db/url  15     44        40       postgres://\ufffdx …\n" +
			"app/seed    7      45        45       \ufffd\ufffd\ufffd[31m\n"},
		{"kv list", "KEY  BYTES  REVISION  CREATED\n"},
	} {
		r := run(t, node.URL, strings.Fields(tc.args)...)
		wantCode(t, r, ExitOK)
		wantText(t, tc.args, r.stdout, tc.want)
	}
	r := run(t, node.URL, "kv", "list", "app/", "-o", "json")
	wantCode(t, r, ExitOK)
	wantJSON(t, r.stdout, bare)
	wantCode(t, run(t, node.URL, "kv", "list", "a b"), ExitUsage)
	wantCode(t, run(t, node.URL, "kv", "list", "--limit", "-1"), ExitUsage)
}

func TestKVWatch(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	at := api.Version{Region: "eu-west", Epoch: epochEU, Revision: 46}
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.RequestURI(); got != "/v1/kv/?prefix=app%2F&watch=true" {
			t.Errorf("asked %s", got)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		item, gone := keyURL, keyBytes
		gone.Value = nil
		sse(w, api.Frame{Kind: api.FrameItem, Version: at, KV: &item}, "")
		sse(w, api.Frame{Kind: api.FrameSynced, Version: at}, at.String())
		sse(w, api.Frame{Kind: api.FrameChange, Version: at, Op: api.OpPut, KV: &item}, "")
		sse(w, api.Frame{Kind: api.FrameChange, Version: at, Op: api.OpDelete, KV: &gone}, at.String())
		sse(w, api.Frame{Kind: api.FrameReset, Version: at, Reason: "the end"}, "")
		<-r.Context().Done()
	}))
	defer node.Close()
	out := &notifying{}
	out.seen = func() {
		if strings.Contains(out.b.String(), "app/seed") {
			interrupt()
		}
	}
	a := &app{
		stdout: out, stderr: out, now: func() time.Time { return noon },
		lookupEnv: func(k string) (string, bool) { return node.URL, k == "NEARSIDE_ADDR" },
	}
	if code := a.run(ctx, []string{"kv", "watch", "app/"}); code != ExitInterrupted {
		t.Fatalf("exit %d: %s", code, out.text())
	}
	for _, want := range []string{"is                   app/db/url  @44  15 bytes  postgres://", "synced", "put                  app/db/url", "delete               app/seed\n"} {
		wantContains(t, "stdout", out.text(), want)
	}
}
