package cli

import (
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// What is not well is said in sentences, with the arithmetic of who says so.
func TestFederationStatusNamesWhatIsWrong(t *testing.T) {
	r := run(t, newNode(t, wholeNode()).URL, "federation", "status", "-o", "wide")
	wantCode(t, r, ExitOK)
	for _, part := range []string{
		"us-east is unreachable, not down: neither its federation nor its endpoints answer here",
		"(1 of 2 agree, 2 needed; eu-west: does not reach it, endpoints silent; ap-south: reaches it; probes from here: 4 of 4 failed)",
		"us-east does not reach our federation; what it knows of us is 1m10s old",
		"us-east lost many services at once: 3 are still shown, for 12s at most",
		"us-east: default/orders is not used in its newest form: counts do not add up",
		"us-east: and 1 rows more",
	} {
		wantContains(t, "stderr", r.stderr, part)
	}
	fallen := federationInfo
	fallen.Links = []api.LinkInfo{federationInfo.Links[0]}
	fallen.Links[0].Replica.Down = true
	since := noon.Add(-30e9)
	fallen.Links[0].Verdict = &api.RegionVerdict{Down: true, Since: &since, Agree: 2, Of: 2, Needed: 2, Why: "both say so"}
	r = run(t, newNode(t, map[string]reply{"GET /v1/federation": {body: fallen}}).URL, "federation", "status")
	wantContains(t, "stdout", r.stdout, "us-east  down")
	wantContains(t, "stderr", r.stderr, "us-east is down for 30s: both say so (2 of 2 agree")
}

// The exit codes of verify and resync, and what they say.
func TestFederationVerifyAndResync(t *testing.T) {
	differs, moving := verified, verified
	differs.Result, differs.OriginDigest = api.VerifyDiffers, "00000000000000bb"
	differs.Differences = []api.RowDifference{
		{Row: "default/orders", Kind: api.RowDifferent, Held: "01", Origin: "02"}, {Row: "default/users", Kind: api.RowMissing, Origin: "03"},
	}
	moving.Result, moving.Moving = api.VerifyMoving, 3
	done := api.ResyncInfo{Region: "us-east", State: api.ResyncDone, Asked: noon, Rows: 5, Received: 5, Expected: 5, Changed: 1}
	asked := api.ResyncInfo{Region: "us-east", State: api.ResyncWaiting, Asked: noon, Expected: 5}
	receiving := asked
	receiving.State, receiving.Received = api.ResyncReceiving, 2
	node := func(verify, resync reply, progress *api.ResyncInfo) string {
		f := federationInfo
		f.Links = []api.LinkInfo{federationInfo.Links[0]}
		f.Links[0].Resync = progress
		return newNode(t, map[string]reply{
			"POST /v1/federation/verify?region=us-east": verify, "POST /v1/federation/resync?region=us-east": resync,
			"GET /v1/federation": {body: f}, "GET /v1/regions": {body: regionList},
			"POST /v1/federation/verify?region=us-est": problemReply(&api.Error{Code: api.CodeRegionNotFound, Detail: "region \"us-est\" is not a peer of this node"}),
			"POST /v1/federation/resync?region=us-est": problemReply(&api.Error{Code: api.CodeRegionNotFound, Detail: "region \"us-est\" is not a peer of this node"}),
		}).URL
	}
	away := problemReply(&api.Error{Code: api.CodeUnavailable, Detail: "the federation of us-east cannot be asked: connection refused"})
	forbidden := problemReply(&api.Error{Code: api.CodeForbidden, Detail: "you may not operate"})
	for _, tc := range []struct {
		name, addr, args, stdout, stderr string
		code                             int
	}{
		{"equal", node(reply{body: verified}, reply{}, nil), "verify us-east", "us-east  equal   5     5            0", "", ExitOK},
		{"differs", node(reply{body: differs}, reply{}, nil), "verify us-east", "us-east  default/users   missing    -     03", "2 rows differ", ExitConflict},
		{"differs, of all", node(reply{body: differs}, reply{}, nil), "verify", "default/orders", "nearside federation resync us-east", ExitConflict},
		{"moving", node(reply{body: moving}, reply{}, nil), "verify us-east", "moving", "still moving: 3 rows", ExitTimeout},
		{"unreachable", node(away, reply{}, nil), "verify us-east", "", "connection refused", ExitUnreachable},
		{"unreachable, of all", node(away, reply{}, nil), "verify", "", "connection refused", ExitUnreachable},
		{"unknown region", node(away, reply{}, nil), "verify us-est", "", "us-east", ExitNotFound},
		{"no name", node(away, reply{}, nil), "verify US_EAST", "", "US_EAST", ExitUsage},
		{"resync done", node(reply{}, reply{status: 202, body: asked}, &done), "resync us-east", "done, 5 rows, 1 of them not as before", "waiting for its federation", ExitOK},
		{"resync not awaited", node(reply{}, reply{status: 202, body: asked}, nil), "resync us-east --wait 0", "waiting for its federation", "", ExitOK},
		{"resync too slow", node(reply{}, reply{status: 202, body: asked}, &receiving), "resync us-east --wait 300ms", "2 rows came, 5 were held", "after 300ms", ExitTimeout},
		{"resync forbidden", node(reply{}, forbidden, nil), "resync us-east", "", "may not operate", ExitNotAllowed},
		{"resync of nobody", node(reply{}, away, nil), "resync us-est", "", "us-east", ExitNotFound},
		{"resync without a region", node(reply{}, away, nil), "resync", "", "the region is missing", ExitUsage},
		{"resync, negative", node(reply{}, away, nil), "resync us-east --wait -1s", "", "negative", ExitUsage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := run(t, tc.addr, append([]string{"federation"}, strings.Fields(tc.args)...)...)
			if r.code != tc.code || !strings.Contains(r.stdout, tc.stdout) || !strings.Contains(r.stderr, tc.stderr) {
				t.Errorf("exit %d, want %d\nstdout %q, want %q\nstderr %q, want %q", r.code, tc.code, r.stdout, tc.stdout, r.stderr, tc.stderr)
			}
		})
	}
}
