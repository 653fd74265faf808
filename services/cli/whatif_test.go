package cli

import (
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

func ms(x float64) *float64 { return &x }

// foretold is what us-east says about losing eu-west: one of each.
var foretold = api.WhatIf{
	Region: "us-east", Lost: []api.Loss{{Region: "eu-west"}}, Callers: []string{"us-east"}, Effect: api.EffectDown, Detail: "without eu-west, one of each",
	Counts: api.EffectCounts{Services: 12, Down: 1, Over: 1, Moved: 1, WasDown: 1, Unaffected: 8},
	Regions: []api.WhatIfRegion{
		{Region: "ap-south", More: 10.34, Services: 2, Over: 1}, {Region: "eu-west", Lost: true}, {Region: "us-east"},
	},
	Services: []api.WhatIfService{
		{
			Service: "payments", Namespace: "default", From: "us-east", Effect: api.EffectDown, Detail: "no instance of it would be left", Moved: 1,
			After: api.WhatIfAnswer{Reason: api.ReasonNoInstances}, Regions: []api.WhatIfShare{{Region: "eu-west", Before: 1, Unit: api.UnitInstances}},
		},
		{
			Service: "mail", Namespace: "shop", From: "us-east", Effect: api.EffectOver, Detail: "ap-south would be used at 110 %\x1b[31m", Moved: 1, AddedRTTMS: ms(120.04),
			After: api.WhatIfAnswer{Reason: api.ReasonLocalAbsent}, Regions: []api.WhatIfShare{
				{Region: "eu-west", Before: 1, Unit: api.UnitInstances},
				{Region: "ap-south", After: 1, Over: true, Gets: 10, Carries: 2, Unit: api.UnitInstances, LoadBefore: 40, LoadAfter: 110},
			},
		},
		{
			Service: "search", Namespace: "default", From: "us-east", Effect: api.EffectMoved, Detail: "30 % of the calls move", Moved: 0.3, AddedRTTMS: ms(-4),
			After: api.WhatIfAnswer{Reason: api.ReasonSpill}, Regions: []api.WhatIfShare{
				{Region: "us-east", Before: 0.7, After: 0.7, Gets: 7, Carries: 7, Unit: api.UnitInstances},
				{Region: "eu-west", Before: 0.3, Unit: api.UnitInstances},
				{Region: "ap-south", After: 0.3, Gets: 3, Carries: 10, Unit: api.UnitInstances},
			},
		},
	},
	Notes: []string{"no load is known"}, Views: []api.Origin{originEU, originUS},
}

func whatIfNode(t *testing.T) *fakeNode {
	t.Helper()
	calm := api.WhatIf{Lost: []api.Loss{{Region: "us-east"}}, Effect: api.EffectWasDown, Detail: "all is as it was", Counts: api.EffectCounts{Services: 3, WasDown: 1, Unaffected: 2}, Callers: []string{"eu-west"}}
	moved := api.WhatIf{Effect: api.EffectMoved, Counts: api.EffectCounts{Services: 1, Moved: 1}}
	over := api.WhatIf{Effect: api.EffectOver, Counts: api.EffectCounts{Services: 1, Over: 1}}
	return newNode(t, map[string]reply{
		"GET /v1/whatif?lose=eu-west":  {body: foretold},
		"GET /v1/whatif?lose=calm":     {body: calm},
		"GET /v1/whatif?lose=some":     {body: moved},
		"GET /v1/whatif?lose=too-much": {body: over},
		"GET /v1/whatif?from=us-east%2Fb&limit=7&lose=a&lose=b&lose_link=a~b&lose_zone=a%2Fx&ns=shop&service=orders&service=mail": {body: calm},
	})
}

func TestWhatIf(t *testing.T) {
	node := whatIfNode(t)
	for args, want := range map[string]string{
		"whatif --lose eu-west": `
without eu-west, one of each
callers: us-east

SERVICE    FROM     EFFECT  MOVED  RTT     BEFORE                   AFTER
payments   us-east  down    100%   -       eu-west:100%             -
shop/mail  us-east  over    100%   +120ms  eu-west:100%             ap-south:100%!
search     us-east  moved   30%    -4ms    us-east:70%,eu-west:30%  us-east:70%,ap-south:30%

REGION    INSTANCES-WORTH  SERVICES  OVER
ap-south  +10.3            2         1
eu-west   lost             0         0
`,
		"whatif --lose eu-west -o wide --no-headers": `
without eu-west, one of each
callers: us-east

payments   us-east  down   100%  -       eu-west:100%             -                         -                          -                  no_instances  no instance of it would be left
shop/mail  us-east  over   100%  +120ms  eu-west:100%             ap-south:100%!            ap-south:10/2              ap-south:40%>110%  local_absent  ap-south would be used at 110 %�[31m
search     us-east  moved  30%   -4ms    us-east:70%,eu-west:30%  us-east:70%,ap-south:30%  us-east:7/7,ap-south:3/10  -                  spill         30 % of the calls move

ap-south  +10.3  2  1
eu-west   lost   0  0
`,
		"whatif --lose eu-west -o name": "payments\nmail\nsearch\n",
		"whatif --lose calm":            "all is as it was\ncallers: eu-west\n",
		"whatif --lose a,b --zone a/x --link a~b --service orders --service mail --from us-east/b --limit 7 -n shop": "all is as it was\ncallers: eu-west\n",
	} {
		t.Run(args, func(t *testing.T) {
			r := run(t, node.URL, strings.Fields(args)...)
			wantCode(t, r, ExitOK)
			wantText(t, "stdout", r.stdout, want)
		})
	}
	r := run(t, node.URL, "whatif", "--lose", "eu-west")
	wantText(t, "stderr", r.stderr, "note: no load is known\n")
	r = run(t, node.URL, "whatif", "--lose", "eu-west", "-o", "json")
	wantJSON(t, r.stdout, foretold)
	wantText(t, "stderr", r.stderr, "")
	lines := strings.Split(strings.TrimSpace(run(t, node.URL, "whatif", "--lose", "eu-west", "-o", "jsonl").stdout), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines", len(lines))
	}
	wantJSON(t, lines[1], foretold.Services[1])
}

// Design, section 9: exit 4 when the condition is false, so that a script stops before it breaks something. What
// is down already is no reason.
func TestWhatIfFailOn(t *testing.T) {
	node := whatIfNode(t)
	for lose, codes := range map[string]map[string]int{
		"eu-west":  {"": ExitOK, "down": ExitFalse, "over": ExitFalse, "moved": ExitFalse},
		"too-much": {"": ExitOK, "down": ExitOK, "over": ExitFalse, "moved": ExitFalse},
		"some":     {"": ExitOK, "down": ExitOK, "over": ExitOK, "moved": ExitFalse},
		"calm":     {"": ExitOK, "down": ExitOK, "over": ExitOK, "moved": ExitOK},
	} {
		for failOn, code := range codes {
			args := []string{"whatif", "--lose", lose}
			if failOn != "" {
				args = append(args, "--fail-on", failOn)
			}
			r := run(t, node.URL, args...)
			wantCode(t, r, code)
			if r.stdout == "" {
				t.Errorf("%s %s: the answer is not printed", lose, failOn)
			}
			if code == ExitFalse {
				wantContains(t, "stderr", r.stderr, "error: --fail-on "+failOn+" holds: ")
			}
		}
	}
	wantCode(t, run(t, node.URL, "whatif", "--lose", "eu-west", "--max-stale", "30s"), ExitStale)
	wantCode(t, run(t, node.URL, "whatif", "--lose", "eu-west", "--max-stale", "30s", "--fail-on", "down"), ExitFalse)
}

func TestWhatIfUsage(t *testing.T) {
	node := whatIfNode(t)
	for args, say := range map[string]string{
		"whatif":                                  "nothing is named that is to be lost",
		"whatif eu-west":                          `unexpected argument "eu-west"`,
		"whatif --lose eu-west/a":                 "--zone REGION/ZONE",
		"whatif --lose EU":                        "EU",
		"whatif --zone a":                         "is not REGION/ZONE",
		"whatif --link a":                         "is not REGION~REGION",
		"whatif --link a~a":                       "is not REGION~REGION",
		"whatif --lose eu-west --fail-on broken":  "--fail-on is down, over or moved",
		"whatif --lose eu-west --limit 0":         "--limit is 1 to 1000",
		"whatif --lose eu-west --service A":       "A",
		"whatif --lose eu-west --from a/b/c":      "b/c",
		"whatif --lose eu-west --from us-east/B":  "B",
		"whatif --lose eu-west -o address":        "no -o address",
		"whatif --lose eu-west --consistency all": "unknown flag",
	} {
		r := run(t, node.URL, strings.Fields(args)...)
		wantCode(t, r, ExitUsage)
		wantContains(t, args, r.stderr, say)
	}
	node.mu.Lock()
	defer node.mu.Unlock()
	if len(node.seen) != 1 { // that of -o address
		t.Errorf("%d questions were sent", len(node.seen))
	}
}

// A container's NEARSIDE_ZONE says where its program runs, and takes nothing away.
func TestWhatIfTakesNothingFromTheEnvironment(t *testing.T) {
	node := whatIfNode(t)
	p := program{env: map[string]string{"NEARSIDE_ADDR": node.URL, "NEARSIDE_ZONE": "eu-west/a", "NEARSIDE_LOSE": "calm", "NEARSIDE_FROM": "ap-south"}}
	wantCode(t, p.run(t.Context(), "whatif", "--lose", "eu-west"), ExitOK)
	wantCode(t, p.run(t.Context(), "whatif"), ExitUsage)
}

// What a node had no time for is asked for, and the parts are one answer.
func TestWhatIfFollowsTheCursor(t *testing.T) {
	part := func(cursor string, e api.Effect, services ...api.ServiceName) api.WhatIf {
		w := api.WhatIf{Lost: []api.Loss{{Region: "eu-west"}}, Cursor: cursor, Effect: e, Omitted: 1, Regions: []api.WhatIfRegion{{Region: "ap-south", More: 1, Services: 1}}}
		for _, s := range services {
			w.Services = append(w.Services, api.WhatIfService{Service: s, Namespace: "default", Effect: e})
			w.Counts.Add(e, 1)
		}
		return w
	}
	node := newNode(t, map[string]reply{
		"GET /v1/whatif?limit=3&lose=eu-west":                    {body: part("default/b", api.EffectMoved, "a", "b")},
		"GET /v1/whatif?cursor=default%2Fb&limit=3&lose=eu-west": {body: part("default/d", api.EffectDown, "c", "d")},
		"GET /v1/whatif?cursor=default%2Fd&limit=3&lose=eu-west": {body: part("", api.EffectOver, "e")},
		"GET /v1/whatif?lose=round":                              {body: part("default/b", api.EffectMoved, "a")},
		"GET /v1/whatif?cursor=default%2Fb&lose=round":           {body: part("default/b", api.EffectMoved, "a")},
	})
	r := run(t, node.URL, "whatif", "--lose", "eu-west", "--limit", "3", "--fail-on", "down")
	wantCode(t, r, ExitFalse)
	wantText(t, "stdout", r.stdout, `
without eu-west, of 5 services 2 would be down, 1 would get more than a region carries, 2 would move, 0 would stay as they are
callers:

SERVICE  FROM  EFFECT  MOVED  RTT  BEFORE  AFTER
c        -     down    0%     -    -       -
d        -     down    0%     -    -       -
e        -     over    0%     -    -       -

REGION    INSTANCES-WORTH  SERVICES  OVER
ap-south  +3               3         0
`)
	wantContains(t, "stderr", r.stderr, "5 less bad ones are not shown")
	r = run(t, node.URL, "whatif", "--lose", "round")
	wantCode(t, r, ExitError)
	wantContains(t, "stderr", r.stderr, "no way forward")
}

func TestWhatIfDidYouMean(t *testing.T) {
	node := newNode(t, map[string]reply{
		"GET /v1/services": {body: serviceList}, "GET /v1/regions": {body: regionList},
		"GET /v1/whatif?lose=eu-wset":                  problemReply(&api.Error{Code: api.CodeRegionNotFound, Detail: "region is not known"}),
		"GET /v1/whatif?lose_zone=eu-wset%2Fa":         problemReply(&api.Error{Code: api.CodeRegionNotFound, Detail: "region is not known"}),
		"GET /v1/whatif?lose_link=us-east~eu-wset":     problemReply(&api.Error{Code: api.CodeRegionNotFound, Detail: "region is not known"}),
		"GET /v1/whatif?lose=eu-west&service=order":    problemReply(&api.Error{Code: api.CodeServiceNotFound, Detail: "service is not known"}),
		"GET /v1/whatif?from=eu-wset%2Fa&lose=us-east": problemReply(&api.Error{Code: api.CodeRegionNotFound, Detail: "region is not known"}),
	})
	for args, hint := range map[string]string{
		"whatif --lose eu-wset": `"eu-west"`, "whatif --zone eu-wset/a": `"eu-west"`, "whatif --link us-east~eu-wset": `"eu-west"`,
		"whatif --lose eu-west --service order": `"orders"`, "whatif --lose us-east --from eu-wset/a": `"eu-west"`,
	} {
		r := run(t, node.URL, strings.Fields(args)...)
		wantCode(t, r, ExitNotFound)
		wantContains(t, args, r.stderr, "did you mean "+hint+"?")
	}
}
