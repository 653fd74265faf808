package cli

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/spf13/cobra"
)

// Every verb that names services, instances, keys or events asks in the namespace that --ns or
// NEARSIDE_NS says, and in no other; a wrong one is refused before anything is asked.
func TestEveryVerbAsksInItsNamespace(t *testing.T) {
	verbs := map[string][]string{
		"nearside services":      {"services"},
		"nearside instances":     {"instances", "orders"},
		"nearside resolve":       {"resolve", "orders"},
		"nearside explain":       {"explain", "orders"},
		"nearside whatif":        {"whatif", "--lose", "us-east"},
		"nearside watch":         {"watch", "orders"},
		"nearside regions":       {"regions"},
		"nearside events":        {"events"},
		"nearside deregister":    {"deregister", "orders", "a"},
		"nearside drain":         {"drain", "orders", "a"},
		"nearside status":        {"status", "orders", "a", "critical"},
		"nearside kv get":        {"kv", "get", "a"},
		"nearside kv put":        {"kv", "put", "a", "x"},
		"nearside kv delete":     {"kv", "delete", "a"},
		"nearside kv list":       {"kv", "list"},
		"nearside kv watch":      {"kv", "watch"},
		"nearside policy get":    {"policy", "get", "orders"},
		"nearside policy set":    {"policy", "set", "orders", "--keep-warm", "1"},
		"nearside policy delete": {"policy", "delete", "orders"},
		"nearside policy list":   {"policy", "list"},
		"nearside policy test":   {"policy", "test", "orders", "--keep-warm", "1"},
	}
	// These do not ask about anything in a namespace, or (register) have a test of their own.
	without := map[string]bool{
		"nearside federation status": true, "nearside federation lag": true, "nearside federation verify": true, "nearside federation resync": true,
		"nearside check ready": true, "nearside version": true, "nearside register": true,
		"nearside region member add": true, "nearside region member list": true, "nearside region member remove": true,
		"nearside snapshot save": true, "nearside snapshot restore": true, "nearside snapshot inspect": true, "nearside region recover": true,
		"nearside region drain": true, "nearside region undrain": true, "nearside policy diff": true,
	}
	var mu sync.Mutex
	var asked []string
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Query().Get("ns"))
		http.Error(w, "{}", http.StatusTeapot)
	}))
	defer node.Close()
	root := (&app{}).newRoot()
	each(root, func(c *cobra.Command) {
		path := c.CommandPath()
		if c.HasSubCommands() || c.Name() == "help" || c.Parent() != nil && c.Parent().Name() == "completion" {
			return
		}
		args := verbs[path]
		if args == nil {
			if !without[path] {
				t.Errorf("%s is in neither list of this test", path)
			}
			return
		}
		for _, how := range []struct {
			env  string
			flag []string
			want string
		}{{"", nil, ""}, {"shop", nil, "shop"}, {"", []string{"-n", "shop"}, "shop"}, {"other", []string{"--ns", "shop"}, "shop"}} {
			asked = nil
			program{env: map[string]string{"NEARSIDE_ADDR": node.URL, "NEARSIDE_NS": how.env}}.run(t.Context(), append(args, how.flag...)...)
			if len(asked) == 0 || asked[0] != how.want {
				t.Errorf("%s with %q and %q asked in %q", path, how.env, how.flag, asked)
			}
		}
		asked = nil
		for _, bad := range []string{"Shop", "a/b", "a_b", "..", " "} {
			r := run(t, node.URL, append(args, "-n", bad)...)
			wantCode(t, r, ExitUsage)
			wantContains(t, "stderr", r.stderr, "namespace")
		}
		if asked != nil {
			t.Errorf("%s asked for a namespace that cannot be", path)
		}
	})
}

func TestFlagsAreRefusedInPlainWords(t *testing.T) {
	for want, args := range map[string][]string{
		`--limit "x" is not a whole number`:             {"kv", "list", "--limit", "x"},
		`--cas "-1" is not a whole number of 0 or more`: {"kv", "put", "a", "b", "--cas", "-1"},
		`--timeout "soon" is not a time such as`:        {"services", "--timeout", "soon"},
		"did you mean --limit?":                         {"instances", "orders", "--limt", "3"},
		"comes after --":                                {"kv", "put", "a", "-v"},
		`--since "x" is not a version`:                  {"watch", "orders", "--since", "x"},
		"SERVICE is missing":                            {"deregister"},
	} {
		r := run(t, "http://127.0.0.1:1", args...)
		wantCode(t, r, ExitUsage)
		wantContains(t, "stderr", r.stderr, want)
	}
}
