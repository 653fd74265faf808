package cli

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/region/httpapi"
	regional "github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/steering"
	"github.com/nearside/nearside/region/store/memstore"
	"github.com/nearside/nearside/sdk/api"
)

// others are regions without services, known by their addresses.
type others []api.Origin

func (o others) Origins() []api.Origin { return append([]api.Origin(nil), o...) }

func (others) Lookup(api.ServiceKey) []api.Replica { return nil }
func (others) Services(api.Region) []*api.Summary  { return nil }
func (others) Serving(api.ServiceKey, api.Region)  {}
func (others) Changed() <-chan struct{}            { return nil }
func (others) Info() api.FederationInfo            { return api.FederationInfo{} }
func other(name api.Region, addresses ...string) api.Origin {
	return api.Origin{Region: name, Epoch: epochUS, Revision: 1, State: api.AgeFresh, Complete: true, Source: api.SourceReplica, Addresses: addresses}
}

// newRegion serves a real region over a store in memory, and returns its address.
func newRegion(t *testing.T, name api.Region, auth regional.Authorizer, peers ...api.Origin) string {
	t.Helper()
	m, err := memstore.New(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := regional.New(regional.Config{Region: name, Store: m, Replicas: others(peers), Authorizer: auth})
	if err != nil {
		t.Fatal(err)
	}
	table, err := steering.New(steering.Config{Registry: r})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- r.Run(ctx) }()
	go func() { ended <- table.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended; <-ended })
	<-r.Loaded()
	h, err := httpapi.New(httpapi.Config{Registry: r, Steering: table, Region: name, Closing: ctx})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// want runs a command line against a real registry and compares what it says with words.
func want(t *testing.T, addr, args string, code int, words ...string) {
	t.Helper()
	r := program{env: map[string]string{"NEARSIDE_ADDR": addr}, now: time.Now}.run(t.Context(), strings.Fields(args)...)
	if r.code != code {
		t.Errorf("nearside %s: exit %d, want %d\n%s%s", args, r.code, code, r.stdout, r.stderr)
	}
	squeeze := func(s string) string {
		return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }), " ")
	}
	for _, w := range words {
		if !strings.Contains(squeeze(r.stdout+r.stderr), squeeze(w)) {
			t.Errorf("nearside %s does not say %q:\n%s%s", args, w, r.stdout, r.stderr)
		}
	}
}

func TestPolicyVerbs(t *testing.T) {
	eu := newRegion(t, "eu-west", nil, other("us-east"))
	file := filepath.Join(t.TempDir(), "orders.yaml")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want(t, eu, "policy get orders", ExitNotFound, "no policy of its own")
	want(t, eu, "policy get orders --effective", ExitOK, "none of its own")
	want(t, eu, "policy set orders --allowed eu-west,us-east --keep-warm 2 --note residency", ExitOK, "allowed     eu-west us-east", "keep_warm   2", "note        residency", "1, at revision")
	// Flags change the fields that they name, and leave residency alone.
	want(t, eu, "policy set orders --keep-warm 3 --failback-ramp 0s", ExitOK, "allowed        eu-west us-east", "keep_warm      3", "failback_ramp  0s", "2, at revision")
	want(t, eu, "policy set orders --unset keep_warm,failback-ramp", ExitOK, "3, at revision")
	want(t, eu, "policy get orders -o json", ExitOK, `"version": 3`, `"allowed"`)
	want(t, eu, "policy set orders --if-revision 1 --keep-warm 1", ExitConflict, "at revision")
	want(t, eu, "policy set * --order us-east --min-healthy 20", ExitOK, "service      *")
	want(t, eu, "policy get orders --effective", ExitOK, "min_healthy  20", "order")
	want(t, eu, "policy list", ExitOK, "*        order=us-east min_healthy=20  1", "orders   allowed=eu-west,us-east")
	want(t, eu, "policy list -o name", ExitOK, "*\norders\n")

	// A file is the whole policy; what get prints is one.
	write(run(t, eu, "policy", "get", "orders", "-o", "yaml").stdout)
	want(t, eu, "policy diff orders -f "+file, ExitOK, "equal")
	write("local_only: true\nnote: alone\n")
	want(t, eu, "policy diff orders -f "+file, ExitFalse, "allowed: eu-west us-east -> -", "local_only: - -> true")
	want(t, eu, "policy test orders -f "+file, ExitOK, "valid", "local_only: - -> true")
	want(t, eu, "policy set orders -f "+file, ExitOK, "local_only   true", "note         alone")
	want(t, eu, "policy test * --allowed us-east", ExitUsage, "contradict")
	want(t, eu, "policy delete orders", ExitOK, "deleted")
	want(t, eu, "policy delete orders", ExitNotFound)
	want(t, eu, "policy set orders --allowed eu-wset,us-east", ExitOK, "warning: allowed names region eu-wset")

	for _, tc := range []struct{ args, words string }{
		{"policy set orders", "nothing to set"},
		{"policy set orders -f " + file + " --keep-warm 1", "whole policy"},
		{"policy set orders --unset keepwarm", "no such field"},
		{"policy set orders --keep-warm 11", "keep_warm 11 is out of range"},
		{"policy set orders --keep-warm x", "is not a number"},
		{"policy set Orders --keep-warm 1", "not a valid name"},
		{"policy set orders -f /nowhere", "--file"},
		{"policy set orders --regions eu-west --if-revision 3 --keep-warm 1", "of one region"},
		{"policy set orders --regions eu-west --all-regions --keep-warm 1", "give one"},
		{"policy set orders --regions eu-west --at x --keep-warm 1", "REGION="},
		{"policy diff", "what to compare"},
		{"policy diff -f " + file, "SERVICE is missing"},
	} {
		want(t, eu, tc.args, ExitUsage, tc.words)
	}
	for content, words := range map[string]string{
		"": "is empty", "localonly: true": "localonly", "a: 1\n---\nb: 2": "more than one document", "[": "file", "local_only: maybe": "local_only",
		"policy: {allowed: [a], nope: 1}": "nope",
	} {
		write(content)
		want(t, eu, "policy set orders -f "+file, ExitUsage, words)
	}
}

// A policy is set in several regions at once; what goes wrong in some is told per region.
func TestPolicyInSeveralRegions(t *testing.T) {
	us := newRegion(t, "us-east", nil)
	eu := newRegion(t, "eu-west", nil, other("us-east", us), other("ap-south"), other("sa-east", "http://127.0.0.1:1"))
	want(t, eu, "policy set orders --keep-warm 2 --regions eu-west,us-east", ExitOK, "eu-west  ok", "us-east  ok")
	want(t, us, "policy get orders", ExitOK, "keep_warm  2")
	want(t, eu, "policy diff --regions us-east", ExitOK, "equal")
	want(t, us, "policy set orders --keep-warm 4 --note here", ExitOK)
	want(t, eu, "policy diff orders --regions us-east", ExitFalse, "keep_warm: 2 -> 4")
	want(t, eu, "policy diff --regions us-east,eu-west -o json", ExitFalse, `"from": "us-east"`, "keep_warm: 4 -> 2")
	// In us-east the order is what is allowed there; each region validates for itself.
	want(t, eu, "policy set orders --local-only --allowed eu-west --regions eu-west,us-east", ExitPartial, "eu-west  ok", "us-east  failed", "nobody could serve", "failed in 1 of 2 regions: us-east")
	want(t, eu, "policy set orders --unset local_only,allowed --keep-warm 1 --all-regions", ExitPartial, "us-east   ok", "ap-south  failed", "no address of region ap-south", "sa-east   failed", "2 of 4 regions")
	want(t, eu, "policy set orders --keep-warm 1 --regions mars", ExitPartial, "not known", "--at mars=URL")
	want(t, eu, "policy set orders --keep-warm 3 --regions ap-south --at ap-south="+us, ExitOK, "ap-south  ok")
	want(t, eu, "policy delete orders --regions eu-west,us-east", ExitOK, "deleted")
	want(t, eu, "policy delete orders --regions eu-west,us-east", ExitOK, "had none")
}

// With the addresses of all regions given, the node asked is not needed; without, it is.
func TestPolicyWithoutTheNodeAsked(t *testing.T) {
	us, ap := newRegion(t, "us-east", nil), newRegion(t, "ap-south", nil)
	away := closedAddr(t)
	want(t, away, "policy set orders --keep-warm 3 --regions us-east,ap-south --at us-east="+us+" --at ap-south="+ap, ExitOK, "us-east   ok", "ap-south  ok")
	want(t, us, "policy get orders", ExitOK, "keep_warm  3")
	want(t, away, "policy set orders --keep-warm 3 --regions us-east,ap-south --at us-east="+us, ExitUnreachable)
	want(t, away, "policy set orders --keep-warm 3 --all-regions --at us-east="+us, ExitUnreachable)
}

// tokens notes which bearer tokens it is shown.
type tokens struct{ seen chan string }

func (a tokens) Authorize(ctx context.Context, _ regional.Access) error {
	err := regional.TokenAccess([32]byte{}).Authorize(ctx, regional.Access{})
	a.seen <- api.Quote(string(api.CodeOf(err)) + err.Error())
	return err
}

// P12: a region's token goes to no other region, unless that is said.
func TestTokenStaysInItsRegion(t *testing.T) {
	seen := make(chan string, 100)
	us := newRegion(t, "us-east", tokens{seen})
	eu := newRegion(t, "eu-west", nil, other("us-east", us))
	env := map[string]string{"NEARSIDE_ADDR": eu, "NEARSIDE_TOKEN": "secret-of-eu"}
	r := program{env: env}.run(t.Context(), "policy", "set", "orders", "--keep-warm", "1", "--regions", "us-east")
	wantCode(t, r, ExitPartial)
	wantContains(t, "stdout", r.stdout, "--region-token-file us-east=FILE")
	if got := <-seen; !strings.Contains(got, "a token is needed") {
		t.Errorf("us-east was shown a token: %s", got)
	}
	file := filepath.Join(t.TempDir(), "us")
	if err := os.WriteFile(file, []byte("of-us\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, more := range [][]string{{"--region-token-file", "us-east=" + file}, {"--share-token"}} {
		program{env: env}.run(t.Context(), append([]string{"policy", "set", "orders", "--keep-warm", "1", "--regions", "us-east"}, more...)...)
		if got := <-seen; !strings.Contains(got, "not valid here") {
			t.Errorf("%v: %s", more, got)
		}
	}
}

func TestRegionDrainVerbs(t *testing.T) {
	eu := newRegion(t, "eu-west", nil, other("us-east"))
	want(t, eu, "region drain us-east --status", ExitOK, "not drained")
	want(t, eu, "region drain us-east --percent 40 --note works", ExitOK, "drain       40% drained, holding", "decided by  eu-west", "note        works")
	want(t, eu, "regions", ExitOK, "DRAINED", "40%")
	want(t, eu, "regions us-east", ExitOK, "drained")
	want(t, eu, "region drain us-east --percent 100 --over 20ms --steps 2 --abort-below-passing 80 --abort-regions-below 1 --wait 10s", ExitOK, "100% drained, holding", "abort when  fewer than 80%")
	want(t, eu, "region drain us-east --percent 50 --over 1h --wait 10ms", ExitTimeout, "100% drained, on the way to 50%", "still moving")
	want(t, eu, "region drain eu-west --percent 100 --at 30m --until 2h -o json", ExitOK, `"state": "scheduled"`)
	want(t, eu, "region undrain eu-west", ExitOK, "not drained")
	want(t, eu, "region undrain us-east --over 20ms --wait 10s", ExitOK, "not drained")
	want(t, eu, "region drain us-east --percent 100", ExitOK)
	want(t, eu, "region drain eu-west --percent 100", ExitOK, "warning: every region")
	want(t, eu, "region undrain us-eats", ExitNotFound, "did you mean")
	for _, tc := range []struct{ args, words string }{
		{"region drain us-east", "--percent is missing"},
		{"region drain us-east --percent NaN", "out of range"},
		{"region drain us-east --percent 101", "out of range"},
		{"region drain us-east --percent 1 --over 25h", "out of range"},
		{"region drain us-east --percent 1 --steps 0", "out of range"},
		{"region drain us-east --percent 1 --at yesterday", "is no time"},
		{"region drain us-east --percent 1 --until 2020-01-01T00:00:00Z", "not after its begin"},
		{"region drain us-east --status --percent 1", "changes nothing"},
		{"region drain UP --percent 1", "not a valid name"},
		{"region undrain us-east --over -1s", "over -1s"},
		{"region drain", "region is missing"},
	} {
		want(t, eu, tc.args, ExitUsage, tc.words)
	}
}
