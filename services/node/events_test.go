package node

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// The event log outlives the node: what happened before a stop is told after the next start,
// with the links and the nodes themselves. No token is ever in it (P12).
func TestEventsOutliveTheNode(t *testing.T) {
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	us := start(t, Config{Region: "us-east", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0"})
	cfg := Config{
		Region: "eu-west", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0", DataDir: t.TempDir(),
		Peers: map[api.Region][]string{"us-east": {us.ready.Federation}},
	}
	told := func(r *running) []string {
		var list api.EventList
		if status, err := call(client, "GET", r.ready.HTTP+api.PathEvents+"?since=0", "", "", &list); status != 200 || err != nil || !list.Durable {
			t.Fatalf("%d, durable %v, %v", status, list.Durable, err)
		}
		var out []string
		for _, e := range list.Events {
			if e.Cause.Kind == api.BecauseGoodbye {
				e.Cause.Kind = api.BecauseLinkError // whichever comes first
			}
			s := fmt.Sprintf("%s %s %s", e.Kind, e.Subject, e.Cause.Kind)
			if e.Cause.Ref != 0 {
				s += fmt.Sprintf("<-%d", e.Cause.Ref)
			}
			out = append(out, s)
		}
		return out
	}
	wait := func(r *running, kind string, n int) []string {
		t.Helper()
		var got []string
		within(t, 20*time.Second, fmt.Sprintf("%d times %s", n, kind), func() error {
			got = told(r)
			have := 0
			for _, s := range got {
				if strings.HasPrefix(s, kind+" ") {
					have++
				}
			}
			if have < n {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
		return got
	}
	eu := start(t, cfg)
	wait(eu, "link_up", 1)
	put := eu.ready.HTTP + api.PathInstance("orders", "o-1")
	if status, err := call(client, "PUT", put, "a-secret", `{"address":"127.0.0.1","port":80,"ttl":"1h"}`, nil); status != 201 || err != nil {
		t.Fatalf("register: %d, %v", status, err)
	}
	wait(eu, "register", 1)
	if err := us.stop(); err != nil {
		t.Fatal(err)
	}
	wait(eu, "link_down", 1)
	if err := eu.stop(); err != nil {
		t.Fatal(err)
	}
	eu = start(t, cfg)
	got := wait(eu, "link_down", 2) // nobody there at the start
	want := []string{
		"node_start eu-west-1 first_start", "link_up us-east link_answers", "register orders/o-1 request",
		"link_down us-east link_error", "node_stop eu-west-1 signal", "node_start eu-west-1 clean_start<-5", "link_down us-east link_error",
	}
	if !slices.Equal(got, want) {
		t.Errorf("told:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	if err := eu.stop(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(cfg.DataDir, "events", "*"))
	if err != nil || len(files) != 1 {
		t.Errorf("files of a closed log: %v, %v", files, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || strings.Contains(string(b), "a-secret") {
			t.Errorf("%s holds a token: %v", f, err)
		}
	}
}
