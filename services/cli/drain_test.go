package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// one answers for one instance, orders/o-1 of the namespace shop, and notes what is asked of it.
type one struct {
	*httptest.Server
	asked []string
}

func newOne(t *testing.T, was, now api.Instance) *one {
	t.Helper()
	n := &one{}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		line := r.Method + " " + r.URL.RequestURI()
		if len(body) > 0 {
			line += " " + r.Header.Get("Content-Type") + " " + string(body)
		}
		n.asked = append(n.asked, line)
		in := now
		if r.Method == http.MethodGet {
			in = was
		}
		_ = json.NewEncoder(w).Encode(in)
	}))
	t.Cleanup(n.Close)
	return n
}

func standing(status api.Status, note string) api.Instance {
	return api.Instance{Namespace: "shop", Service: "orders", ID: "o-1", Region: "eu-west", Address: "10.0.0.1", Port: 80, Weight: 100, Status: status, StatusNote: note}
}

// Maintenance says what changed and how to take it back, and asks for what it was told.
func TestMaintenance(t *testing.T) {
	const path = "/v1/services/orders/instances/o-1"
	for _, tc := range []struct {
		args   []string
		was    api.Instance
		now    api.Instance
		asked  string
		stderr string
	}{
		{
			[]string{"drain", "orders", "o-1", "--note", "kernel update", "--incarnation", "3"},
			standing("passing", ""), standing("draining", "kernel update"),
			"PUT " + path + `/drain?ns=shop application/json {"note":"kernel update","incarnation":3}`,
			"shop/orders/o-1 is draining (kernel update), was passing; undo: nearside drain -n shop orders o-1 --undo\n",
		},
		{
			[]string{"drain", "orders", "o-1"},
			standing("draining", "x"), standing("draining", ""),
			"PUT " + path + `/drain?ns=shop application/json {}`,
			"shop/orders/o-1 is draining; undo: nearside drain -n shop orders o-1 --undo\n",
		},
		{
			[]string{"drain", "orders", "o-1", "--undo", "--incarnation", "3"},
			standing("draining", "x"), standing("critical", "disk"),
			"DELETE " + path + "/drain?incarnation=3&ns=shop",
			"shop/orders/o-1 is critical (disk), was draining\n",
		},
		{
			[]string{"drain", "orders", "o-1", "--undo"},
			standing("passing", ""), standing("passing", ""),
			"DELETE " + path + "/drain?ns=shop",
			"shop/orders/o-1 is passing; it did not drain\n",
		},
		{
			[]string{"status", "orders", "o-1", "critical", "--note", "disk"},
			standing("passing", ""), standing("critical", "disk"),
			"PUT " + path + `/status?ns=shop application/json {"status":"critical","note":"disk"}`,
			"shop/orders/o-1 is critical (disk), was passing; undo: nearside status -n shop orders o-1 --undo\n",
		},
		{
			[]string{"status", "orders", "o-1", "--undo", "--incarnation", "9"},
			standing("critical", "disk"), standing("passing", ""),
			"PUT " + path + `/status?ns=shop application/json {"status":"passing","incarnation":9}`,
			"shop/orders/o-1 is passing, was critical\n",
		},
		{
			[]string{"status", "orders", "o-1", "--undo"},
			standing("critical", "disk"), standing("critical", "readiness http: 3 × 503"),
			"PUT " + path + `/status?ns=shop application/json {"status":"passing"}`,
			"shop/orders/o-1 is critical (readiness http: 3 × 503); that is what its checks say\n",
		},
	} {
		t.Run(fmt.Sprint(tc.args), func(t *testing.T) {
			node := newOne(t, tc.was, tc.now)
			r := program{env: map[string]string{"NEARSIDE_ADDR": node.URL, "NEARSIDE_NS": "shop", "NEARSIDE_NOTE": "not from here"}}.run(t.Context(), tc.args...)
			wantCode(t, r, ExitOK)
			wantText(t, "stdout", r.stdout, "")
			wantText(t, "stderr", r.stderr, tc.stderr)
			if len(node.asked) != 2 || node.asked[1] != tc.asked {
				t.Errorf("asked %q, want %q", node.asked, tc.asked)
			}
			r = program{env: map[string]string{"NEARSIDE_ADDR": node.URL, "NEARSIDE_NS": "shop"}}.run(t.Context(), append(tc.args, "-o", "json")...)
			wantCode(t, r, ExitOK)
			wantContains(t, "stdout", r.stdout, `"id": "o-1"`)
			wantText(t, "stderr", r.stderr, "")
		})
	}
}

func TestMaintenanceUsage(t *testing.T) {
	node := newNode(t, map[string]reply{
		"GET /v1/services/orders/instances/o-7":               problemReply(&api.Error{Code: api.CodeInstanceNotFound, Detail: "instance orders/o-7 is not registered", Remedy: "register it again"}),
		"GET /v1/services/ordres/instances/o-1":               problemReply(&api.Error{Code: api.CodeInstanceNotFound, Detail: "instance ordres/o-1 is not registered", Remedy: "register it again"}),
		"GET /v1/services/orders/instances?limit=1000":        {body: instanceList},
		"GET /v1/services":                                    {body: serviceList},
		"GET /v1/services/orders/instances/orders-1":          {body: instanceList.Instances[0]},
		"PUT /v1/services/orders/instances/orders-1/drain":    problemReply(&api.Error{Code: api.CodeStaleIncarnation, Detail: "a newer incarnation, 7, is registered"}),
		"DELETE /v1/services/orders/instances/orders-1/drain": problemReply(api.Errorf(api.CodeForbidden, "not yours")),
		"PUT /v1/services/orders/instances/orders-1/status":   problemReply(api.Errorf(api.CodeUnavailable, "the store does not answer")),
	})
	for _, tc := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"drain", "orders"}, ExitUsage, "ID is missing"},
		{[]string{"drain", "orders", "a", "b"}, ExitUsage, `unexpected argument "b"`},
		{[]string{"drain", "Orders", "a"}, ExitUsage, `"Orders"`},
		{[]string{"drain", "orders", "a/b"}, ExitUsage, `"a/b"`},
		{[]string{"drain", "orders", "a", "--undo", "--note", "x"}, ExitUsage, "--note means nothing to --undo"},
		{[]string{"drain", "orders", "a", "--incarnation", "-1"}, ExitUsage, "incarnation"},
		{[]string{"status", "orders", "a"}, ExitUsage, "STATUS is missing"},
		{[]string{"status", "orders", "a", "sick"}, ExitUsage, `status "sick"`},
		{[]string{"status", "orders", "a", "passing", "--undo"}, ExitUsage, "--undo goes back to passing"},
		{[]string{"status", "orders", "a", "--undo", "--note", "x"}, ExitUsage, "--undo goes back to passing"},
		{[]string{"drain", "orders", "o-7"}, ExitNotFound, "known: orders-1, orders-2\n  \"nearside instances orders\" lists"},
		{[]string{"drain", "ordres", "o-1"}, ExitNotFound, `did you mean "orders"? known: orders, payments`},
		{[]string{"drain", "orders", "orders-1"}, ExitConflict, "newer incarnation"},
		{[]string{"drain", "orders", "orders-1", "--undo"}, ExitNotAllowed, "not yours"},
		{[]string{"status", "orders", "orders-1", "critical"}, ExitUnreachable, "the store"},
	} {
		r := run(t, node.URL, tc.args...)
		wantCode(t, r, tc.code)
		wantText(t, "stdout", r.stdout, "")
		wantContains(t, "stderr", r.stderr, tc.stderr)
	}
	r := run(t, node.URL, "__complete", "drain", "orders", "")
	wantContains(t, "stdout", r.stdout, "orders-1\norders-2\n")
}
