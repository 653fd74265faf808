package cli

import (
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

var (
	memberLeads  = api.Member{Node: "n1", ID: "00000000000000a1", Address: "10.0.0.1:7403", Role: api.RoleVoter, Started: true, Answers: true, Leader: true, Version: "3.7.3"}
	memberSilent = api.Member{Node: "n2", ID: "00000000000000a2", Address: "10.0.0.2:7403", Role: api.RoleVoter, Started: true}
	memberAdded  = api.Member{Node: "n3", ID: "00000000000000a3", Address: "10.0.0.3:7403", Role: api.RoleLearner}
)

func TestRegionMember(t *testing.T) {
	replies := func(members ...api.Member) map[string]reply {
		const base = "/v1/regions/eu-west/members"
		return map[string]reply{
			"GET /v1/limits":                    {body: api.Limits{}, header: map[string]string{api.HeaderRegion: "eu-west"}},
			"GET " + base:                       {body: api.MemberList{Region: "eu-west", Members: members}},
			"POST " + base:                      {status: 201, body: memberAdded},
			"DELETE " + base + "/n1":            problemReply(&api.Error{Code: api.CodeConflict, Detail: "n2 at 10.0.0.2:7403 would be missing", Remedy: "bring it back"}),
			"DELETE " + base + "/n1?force=true": {status: 204},
			"DELETE " + base + "/n9":            problemReply(&api.Error{Code: api.CodeNotFound, Detail: "there is no member n9"}),
		}
	}
	all := newNode(t, replies(memberLeads, memberAdded))
	some := newNode(t, replies(memberLeads, memberSilent))
	alone := newNode(t, map[string]reply{
		"GET /v1/limits": {body: api.Limits{}, header: map[string]string{api.HeaderRegion: "eu-west"}},
		"GET /v1/regions/eu-west/members": problemReply(&api.Error{
			Code: api.CodeUnsupported, Detail: "this region's store is not a cluster of its nodes", Remedy: "start its node with --cluster",
		}),
	})
	for _, tc := range []struct {
		addr, args, stdout, stderr string
		code                       int
	}{
		{all.URL, "region member list", "n1    leader  10.0.0.1:7403\nn3    added   10.0.0.3:7403\n", "", ExitOK},
		{all.URL, "region member list -o name", "n1\nn3\n", "", ExitOK},
		{all.URL, "region member list -o jsonl", `"node":"n3"`, "", ExitOK},
		{some.URL, "region member list", "n2    silent", "1 of 2 members do not answer: n2", ExitPartial},
		{all.URL, "region member add n3=10.0.0.3:7403", "member   n3", "now start it", ExitOK},
		{all.URL, "region member add n3=10.0.0.3:7403 --wait 10ms", "", "does not vote after 10ms", ExitTimeout},
		{all.URL, "region member add n3", "", "is not NODE=HOST:PORT", ExitUsage},
		{all.URL, "region member add n3=x --wait -1s", "", "negative", ExitUsage},
		{all.URL, "region member remove n1", "", "would be missing", ExitConflict},
		{all.URL, "region member remove n1 --force", "", "removed n1", ExitOK},
		{all.URL, "region member remove n9", "", "no member n9", ExitNotFound},
		{alone.URL, "region member list", "", "start its node with --cluster", ExitUsage},
		{all.URL, "region", "", "say which: drain, member, recover, undrain", ExitUsage},
		{all.URL, "region recover --region eu", "", "--node is missing", ExitUsage},
		{all.URL, "region recover --region eu --node n1 --data-dir /nowhere/at/all", "", "no data of a member", ExitNotFound},
	} {
		t.Run(tc.args, func(t *testing.T) {
			r := run(t, tc.addr, strings.Fields(tc.args)...)
			if r.code != tc.code || !strings.Contains(r.stdout, tc.stdout) || !strings.Contains(r.stderr, tc.stderr) {
				t.Errorf("exit %d, want %d\nstdout %q, want %q\nstderr %q, want %q", r.code, tc.code, r.stdout, tc.stdout, r.stderr, tc.stderr)
			}
		})
	}
}
