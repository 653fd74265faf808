package wan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

func TestControl(t *testing.T) {
	l, target := overTCP(t, Profile{})
	s := httptest.NewServer(Control(map[string]Named{"a-b": {l, target.Addr().String()}}))
	defer s.Close()
	call := func(method, path, body string, header ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if len(header) > 0 {
			r.Header.Set("Origin", header[0])
		}
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	status, body := call("PUT", "/links/a-b", `{"up":{"delay":"40ms","loss":0.05},"down":{"blackhole":true}}`)
	want := Profile{Up: Direction{Delay: dur(40 * ms), Loss: 0.05}, Down: Direction{Blackhole: true}}
	if got := l.Profile(); status != 200 || got != want {
		t.Errorf("%d %s: %+v", status, body, got)
	}
	var list InfoList
	if status, body = call("GET", "/links", ""); status != 200 || json.Unmarshal([]byte(body), &list) != nil || len(list.Links) != 1 || list.Links[0].Profile != want || list.Links[0].Listen != l.Addr() {
		t.Errorf("%d %s", status, body)
	}
	for _, tc := range []struct {
		method, path, body string
		status             int
		says               string
		origin             []string
	}{
		{"GET", "/links/b-a", "", 404, `no link \"b-a\"`, nil},
		{"PUT", "/links/a-b", `{"up":{"delay":"2m"}}`, 422, "up.delay 2m0s", nil},
		{"PUT", "/links/a-b", `{"up":{"dealy":"2s"}}`, 400, "dealy", nil},
		{"PUT", "/links/a-b", `{"up":{"delay":"soon"}}`, 400, "soon", nil},
		{"PUT", "/links/a-b", `{}{}`, 400, "one JSON document", nil},
		{"PUT", "/links/a-b", ``, 400, "not a profile", nil},
		{"PUT", "/links/a-b", strings.Repeat(" ", maxControlBody+1), 413, "too large", nil},
		{"POST", "/links/a-b/cut", "", 403, "not by pages", []string{"https://example.org"}},
		{"DELETE", "/links/a-b", "", 405, "", nil},
	} {
		status, body := call(tc.method, tc.path, tc.body, tc.origin...)
		if status != tc.status || !strings.Contains(body, tc.says) {
			t.Errorf("%s %s %.40s: %d %s", tc.method, tc.path, tc.body, status, body)
		}
	}
	if got := l.Profile(); got != want {
		t.Errorf("a refused request changed the link: %+v", got)
	}
	if status, _ := call("PUT", "/links/a-b", `{}`); status != 200 || l.Profile() != (Profile{}) {
		t.Errorf("%d, %+v", status, l.Profile())
	}
	a, b := tcpPair(t, l, target)
	if status, _ := call("POST", "/links/a-b/half-open", ""); status != 200 {
		t.Errorf("%d", status)
	}
	if _, err := io.ReadAll(b); err == nil {
		t.Error("half-open: the target's end lives")
	}
	if status, _ := call("POST", "/links/a-b/cut", ""); status != 200 {
		t.Errorf("%d", status)
	}
	if _, err := io.ReadAll(a); err == nil {
		t.Error("cut: the other end lives")
	}
}

// The command: wrong input is refused by name with exit code 2; right input relays.
func TestCommand(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	addr := target.Addr().String()
	start := func(ctx context.Context, args ...string) error {
		c := Command()
		c.SetArgs(args)
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		c.SilenceUsage, c.SilenceErrors = true, true
		return c.ExecuteContext(ctx)
	}
	for _, tc := range []struct{ args, says string }{
		{"", "no link is given"},
		{"--link a-b", "NAME=LISTEN,TARGET"},
		{"--link a_b!=127.0.0.1:0," + addr, "is not a link"},
		{"--link a=127.0.0.1:0,nowhere", "is no address"},
		{"--link a=0.0.0.0:0," + addr, "not on loopback"},
		{"--link a=127.0.0.1:0," + addr + " --link a=127.0.0.1:0," + addr, "given twice"},
		{"--link a=127.0.0.1:0," + addr + " --control :0", "not on loopback"},
		{"--link a=127.0.0.1:0," + addr + " --loss 2", "up.loss 2"},
	} {
		err := start(t.Context(), strings.Fields(tc.args)...)
		var u *usageError
		if !errors.As(err, &u) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%q: %v", tc.args, err)
		}
	}
	ready := filepath.Join(t.TempDir(), "ready")
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() {
		ran <- start(ctx, "--link", "a=127.0.0.1:0,"+addr, "--delay", "1ms", "--control", "127.0.0.1:0", "--ready-file", ready)
	}()
	var doc ReadyFile
	for deadline := time.Now().Add(20 * time.Second); doc.PID == 0; {
		if b, err := os.ReadFile(ready); err == nil && len(bytes.TrimSpace(b)) > 0 {
			if err := json.Unmarshal(b, &doc); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case err := <-ran:
			t.Fatal(err)
		case <-time.After(time.Until(deadline)):
			t.Fatal("not ready")
		case <-time.After(5 * ms):
		}
	}
	resp, err := http.Get(doc.Control + "/links/a")
	if err != nil {
		t.Fatal(err)
	}
	var info Info
	err = json.NewDecoder(resp.Body).Decode(&info)
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err != nil || info.Profile != Both(Direction{Delay: api.Duration(ms)}) {
		t.Errorf("%+v, %v", info, err)
	}
	a, err := net.Dial("tcp", doc.Links[0].Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	send(t, a, "hello")
	receive(t, b, "hello")
	stop()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(ready); err == nil {
		t.Error("the ready file stays")
	}
}
