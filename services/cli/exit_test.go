package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// closedAddr is the URL of a port where nobody listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// The exit codes are pinned (design.md, section 9).
func TestExitCodes(t *testing.T) {
	resolved := func(r api.Resolution) reply { return reply{body: r} }
	for _, tc := range []struct {
		name   string
		args   string
		reply  reply // to GET /v1/resolve/orders
		code   int
		stderr string
	}{
		{"healthy", "resolve orders", resolved(resolution), ExitOK, "reason: same_zone"},
		{"no endpoint", "resolve orders", resolved(emptyResolution), ExitFalse, "nothing is left to offer"},
		{"panic only", "resolve orders", resolved(panicResolution), ExitFalse, "no healthy instance of orders"},
		{"fresh enough", "resolve orders --max-stale 42s", resolved(farResolution), ExitOK, ""},
		{"old data from far, near answer", "resolve orders --max-stale 1s", resolved(resolution), ExitOK, ""},
		{"old data serves", "resolve orders --max-stale 30s", resolved(farResolution), ExitStale, "what is known of us-east is 41s old"},
		{"unknown service", "resolve orders", problemReply(api.Errorf(api.CodeServiceNotFound, "service orders is not known")), ExitNotFound, "not known"},
		{
			"unknown service, said with 200", "resolve orders",
			resolved(api.Resolution{Service: "orders", Decision: api.Decision{Reason: api.ReasonServiceNotFound}}),
			ExitNotFound, "service orders is not known in any region",
		},
		{"no token", "resolve orders", problemReply(api.Errorf(api.CodeUnauthorized, "no token")), ExitNotAllowed, "no token"},
		{"not allowed", "resolve orders", problemReply(api.Errorf(api.CodeForbidden, "not yours")), ExitNotAllowed, "not yours"},
		{"conflict", "resolve orders", problemReply(api.Errorf(api.CodeConflict, "changed")), ExitConflict, "changed"},
		{"stale incarnation", "resolve orders", problemReply(api.Errorf(api.CodeStaleIncarnation, "newer")), ExitConflict, "newer"},
		{"bad value", "resolve orders", problemReply(api.FieldError("zone", "zone is odd", "correct it")), ExitUsage, "error: zone is odd\n  correct it\n  (code invalid_field, request req-1)\n"},
		{"bad parameter", "resolve orders", problemReply(api.Errorf(api.CodeUnknownParameter, "no x")), ExitUsage, "no x"},
		{"store away", "resolve orders", problemReply(api.Errorf(api.CodeUnavailable, "the store does not answer")), ExitUnreachable, "store"},
		{"server waited", "resolve orders", problemReply(api.Errorf(api.CodeTimeout, "too slow")), ExitTimeout, "too slow"},
		{"broken node", "resolve orders", problemReply(api.Errorf(api.CodeInternal, "a bug")), ExitError, "a bug"},
		{"code of a newer server", "resolve orders", problemReply(api.Errorf("brand_new", "new trouble")), ExitError, "new trouble"},
		{"proxy", "resolve orders", reply{status: 502, body: "bad gateway"}, ExitUnreachable, "answered 502 Bad Gateway"},
		{"redirect", "resolve orders", reply{status: 302, header: map[string]string{"Location": "http://127.0.0.1:1/"}}, ExitError, "answered 302 Found"},
		{"not the API", "resolve orders", reply{body: "<html>"}, ExitError, "not the API"},
		{"bad name", "resolve Orders!", reply{}, ExitUsage, `service "Orders!" is not a valid name`},
		{"bad zone", "resolve orders --zone A_B", reply{}, ExitUsage, "zone"},
		{"bad from", "resolve orders --from eu_west", reply{}, ExitUsage, "region"},
		{"bad namespace", "resolve orders --ns A", reply{}, ExitUsage, "namespace"},
		{"zone and from", "resolve orders --zone a --from eu-west/a", reply{}, ExitUsage, "--from"},
		{"no argument", "resolve", reply{}, ExitUsage, "the service is missing"},
		{"two arguments", "resolve a b", reply{}, ExitUsage, `unexpected argument "b"`},
		{"unknown flag", "resolve orders --colour", reply{}, ExitUsage, "unknown flag: --colour"},
		{"bad flag value", "resolve orders --limit many", reply{}, ExitUsage, "--limit"},
		{"bad format", "resolve orders -o xml", reply{}, ExitUsage, "table, wide, json"},
		{"no addresses here", "services -o address", reply{}, ExitUsage, "-o address"},
		{"bad timeout", "resolve orders --timeout 0s", reply{}, ExitUsage, "--timeout"},
		{"unknown command", "resolv orders", reply{}, ExitUsage, `did you mean "resolve"?`},
		{"unknown command with a flag", "resolv orders --zone a", reply{}, ExitUsage, `unknown command "resolv"`},
		{"half a command", "check", reply{}, ExitUsage, "say which: ready"},
		{"unknown half", "check redy", reply{}, ExitUsage, `did you mean "ready"?`},
		{"filter without a name", "services --region eu-west", reply{}, ExitUsage, "--region needs the NAME"},
		{"bad address", "services --addr ftp://x", reply{}, ExitUsage, "not http or https"},
		{"missing token file", "services --token-file /nowhere/at/all", reply{}, ExitUsage, "--token-file"},
		{"help", "resolve --help", reply{}, ExitOK, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			node := newNode(t, map[string]reply{
				"GET /v1/resolve/orders": tc.reply, "GET /v1/services": {body: serviceList},
				"GET /v1/explain/orders?from=eu-west%2Fa": {body: explained},
			})
			r := run(t, node.URL, strings.Fields(tc.args)...)
			wantCode(t, r, tc.code)
			wantContains(t, "stderr", r.stderr, tc.stderr)
			if tc.code == ExitUsage && strings.Count(r.stderr, "\n") > 4 {
				t.Errorf("a usage error is a few lines, not the help:\n%s", r.stderr)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	r := run(t, closedAddr(t), "services")
	wantCode(t, r, ExitUnreachable)
	wantContains(t, "stderr", r.stderr, "connection refused")
	wantContains(t, "stderr", r.stderr, "--addr")
}

// A node that took the request and keeps silent timed out; it is not unreachable.
func TestTimeout(t *testing.T) {
	release := make(chan struct{})
	node := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer node.Close()
	defer close(release)
	r := run(t, node.URL, "services", "--timeout", "50ms")
	wantCode(t, r, ExitTimeout)
	wantContains(t, "stderr", r.stderr, "did not answer within 50ms")
}

// Ctrl-C during a request exits 130 at once.
func TestInterrupt(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	node := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		interrupt()
		<-r.Context().Done()
	}))
	defer node.Close()
	r := program{env: map[string]string{"NEARSIDE_ADDR": node.URL}}.run(ctx, "services")
	wantCode(t, r, ExitInterrupted)
	wantText(t, "stderr", r.stderr, "interrupted\n")
}

// Another address is tried when the first gives no answer; an answer is final.
func TestAddressesInOrder(t *testing.T) {
	good := newNode(t, wholeNode())
	wantCode(t, run(t, closedAddr(t)+","+good.URL, "services"), ExitOK)

	no := newNode(t, map[string]reply{"GET /v1/services": problemReply(api.Errorf(api.CodeForbidden, "no"))})
	wantCode(t, run(t, no.URL+","+good.URL, "services"), ExitNotAllowed)
	if n := len(good.requests()); n != 1 {
		t.Errorf("the second node was asked %d times, want 1", n)
	}
}

type codedError struct{ code int }

func (e codedError) Error() string { return "safe calls failed" }
func (e codedError) ExitCode() int { return e.code }

// Commands of other packages keep their own exit codes, get usage errors for free, and
// refuse the flags of the API verbs.
func TestSiblings(t *testing.T) {
	newShop := func() []*cobra.Command {
		shop := &cobra.Command{Use: "shop", Short: "The sample"}
		load := &cobra.Command{Use: "load", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("load: %w", codedError{4})
		}}
		load.Flags().String("region", "", "")
		load.Flags().Duration("timeout", 0, "")
		plain := &cobra.Command{Use: "plain", RunE: func(*cobra.Command, []string) error { return errors.New("it broke") }}
		shop.AddCommand(load, plain)
		return []*cobra.Command{shop}
	}
	for _, tc := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"shop load", 4, "error: load: safe calls failed\n"},
		{"shop load --timeout 3s", 4, ""},
		{"shop plain", 1, "error: it broke\n"},
		{"shop load extra", 2, "usage: nearside shop load"},
		{"shop load --nope", 2, "unknown flag: --nope"},
		{"shop load --addr x", 2, "--addr means nothing to nearside shop load"},
		{"shop lod", 2, `did you mean "load"?`},
		{"shop", 2, "say which: load, plain"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			r := program{siblings: newShop()}.run(t.Context(), strings.Fields(tc.args)...)
			wantCode(t, r, tc.code)
			wantContains(t, "stderr", r.stderr, tc.stderr)
		})
	}
	help := program{siblings: newShop()}.run(t.Context(), "shop", "load", "--help")
	wantCode(t, help, ExitOK)
	if strings.Contains(help.stdout, "--addr") {
		t.Errorf("help of a sibling shows flags that mean nothing to it:\n%s", help.stdout)
	}
}

// Every command has a summary, an example and help that goes to stdout.
func TestHelpEverywhere(t *testing.T) {
	root := (&app{}).newRoot()
	each(root, func(c *cobra.Command) {
		if c.Name() == "help" || strings.HasPrefix(c.CommandPath(), "nearside completion") {
			return
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s has no summary or no example", c.CommandPath())
		}
	})
	r := run(t, "")
	wantCode(t, r, ExitOK)
	wantContains(t, "stdout", r.stdout, "Exit codes:")
}

// Who mixes http and https up is told which it is.
func TestTLSMismatch(t *testing.T) {
	plain := newNode(t, wholeNode())
	r := run(t, "https"+strings.TrimPrefix(plain.URL, "http"), "services")
	wantCode(t, r, ExitUnreachable)
	wantContains(t, "stderr", r.stderr, "it does not speak TLS\n  use http:// in --addr")
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	r = run(t, "http"+strings.TrimPrefix(secure.URL, "https"), "services")
	wantCode(t, r, ExitError)
	wantContains(t, "stderr", r.stderr, "speaks TLS\n  use https:// in --addr")
	r = run(t, secure.URL, "services")
	wantCode(t, r, ExitUnreachable)
	wantContains(t, "stderr", r.stderr, "--ca-cert")
}
