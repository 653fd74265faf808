package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// Flag before environment before default.
func TestEnvPrecedence(t *testing.T) {
	node := newNode(t, map[string]reply{
		"GET /v1/services":        {body: api.ServiceList{Services: []api.ServiceCount{{Service: "in-default"}}}},
		"GET /v1/services?ns=env": {body: api.ServiceList{Services: []api.ServiceCount{{Service: "in-env"}}}},
		"GET /v1/services?ns=arg": {body: api.ServiceList{Services: []api.ServiceCount{{Service: "in-arg"}}}},
	})
	for _, tc := range []struct {
		env  map[string]string
		args string
		want string
	}{
		{nil, "services -o name", "in-default\n"},
		{map[string]string{"NEARSIDE_NS": "env", "NEARSIDE_OUTPUT": "name"}, "services", "in-env\n"},
		{map[string]string{"NEARSIDE_NS": "env", "NEARSIDE_OUTPUT": "json"}, "services --ns arg -o name", "in-arg\n"},
		{map[string]string{"NEARSIDE_NS": ""}, "services -o name", "in-default\n"},
		{map[string]string{"NEARSIDE_ADDR": "http://127.0.0.1:1", "NEARSIDE_NO_HEADERS": "true"}, "services -o name --addr " + node.URL, "in-default\n"},
	} {
		env := map[string]string{"NEARSIDE_ADDR": node.URL}
		for k, v := range tc.env {
			env[k] = v
		}
		r := program{env: env}.run(t.Context(), strings.Fields(tc.args)...)
		wantCode(t, r, ExitOK)
		wantText(t, tc.args, r.stdout, tc.want)
	}
}

func TestEnvOfAVerb(t *testing.T) {
	node := newNode(t, map[string]reply{
		"GET /v1/resolve/orders?zone=b":     {body: resolution},
		"GET /v1/services/orders/instances": {body: instanceList},
	})
	env := map[string]string{"NEARSIDE_ADDR": node.URL, "NEARSIDE_ZONE": "b", "NEARSIDE_REGION": "ap-south"}
	wantCode(t, program{env: env}.run(t.Context(), "resolve", "orders"), ExitOK)
	// The zone of the program that runs here must not hide the other zones' instances.
	wantCode(t, program{env: env}.run(t.Context(), "instances", "orders"), ExitOK)
}

func TestEnvBadValueNamesTheVariable(t *testing.T) {
	r := program{env: map[string]string{"NEARSIDE_TIMEOUT": "soon"}}.run(t.Context(), "services")
	wantCode(t, r, ExitUsage)
	wantContains(t, "stderr", r.stderr, `NEARSIDE_TIMEOUT="soon"`)
}

// P12: the token comes from a file or the environment, goes into the header, and is never shown.
func TestToken(t *testing.T) {
	node := newNode(t, wholeNode())
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"NEARSIDE_TOKEN": "from-env"}, "Bearer from-env"},
		{map[string]string{"NEARSIDE_TOKEN": "from-env", "NEARSIDE_TOKEN_FILE": file}, "Bearer from-file"},
		{nil, ""},
	} {
		env := map[string]string{"NEARSIDE_ADDR": node.URL}
		for k, v := range tc.env {
			env[k] = v
		}
		wantCode(t, program{env: env}.run(t.Context(), "services"), ExitOK)
		seen := node.requests()
		if got := seen[len(seen)-1].Header.Get("Authorization"); got != tc.want {
			t.Errorf("Authorization %q, want %q", got, tc.want)
		}
	}
	r := program{env: map[string]string{"NEARSIDE_TOKEN": "a secret\nline"}}.run(t.Context(), "services")
	wantCode(t, r, ExitUsage)
	if strings.Contains(r.stderr, "secret") {
		t.Errorf("the token is shown: %s", r.stderr)
	}
	r = run(t, "http://user:hunter2@127.0.0.1:1", "services")
	wantCode(t, r, ExitUsage)
	if strings.Contains(r.stderr, "hunter2") {
		t.Errorf("the password is shown: %s", r.stderr)
	}
}

func TestBaseURL(t *testing.T) {
	for in, want := range map[string]string{
		":7400": "http://127.0.0.1:7400", "eu1:7400": "http://eu1:7400", "https://eu1/": "https://eu1",
		"http://proxy/nearside/": "http://proxy/nearside", "[::1]:7400": "http://[::1]:7400", "localhost": "http://localhost",
		"": "", "http://": "", "ftp://x": "", "http://x?y=z": "", "http://a b": "",
	} {
		got, err := baseURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("baseURL(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}
