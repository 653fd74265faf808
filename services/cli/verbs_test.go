package cli

import (
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// Tables are for people: aligned, one line a row, no control characters, nothing but data.
func TestTables(t *testing.T) {
	node := newNode(t, wholeNode())
	for _, tc := range []struct{ args, want string }{
		{"services", `
NAME      INSTANCES  PASSING  WARNING  STARTING  DRAINING  CRITICAL  REGIONS
orders    3          2        0        0         1         0         eu-west,us-east
payments  0          0        0        0         0         0         us-east
`},
		{"services --no-headers", `
orders    3  2  0  0  1  0  eu-west,us-east
payments  0  0  0  0  0  0  us-east
`},
		{"services -o name", "orders\npayments\n"},
		{"services orders", `
INSTANCE  ADDRESS             ZONE  WEIGHT  VERSION  SINCE  STATUS
orders-1  10.0.0.1:8080       a     100     1.4.0    1m30s  passing
orders-2  [2001:db8::1]:8080  -     50      -        1d2h   warning/overdue
`},
		{"instances orders -o wide", `
INSTANCE  ADDRESS             ZONE  WEIGHT  VERSION  SINCE  TAGS     TTL  INCARNATION  REVISION  STATUS           NOTE
orders-1  10.0.0.1:8080       a     100     1.4.0    1m30s  blue,v1  15s  7            41        passing          -
orders-2  [2001:db8::1]:8080  -     50      -        1d2h   -        15s  0            42        warning/overdue  disk�[31m
`},
		{"instances orders -o address", "10.0.0.1:8080\n[2001:db8::1]:8080\n"},
		{"resolve orders", `
INSTANCE  ADDRESS        REGION   ZONE  TIER  WEIGHT  STATUS   AGE
orders-1  10.0.0.1:8080  eu-west  a     0     100     passing  0s
orders-9  10.1.0.9:8080  us-east  b     1     100     passing  41s
`},
		{"resolve orders -o wide", `
INSTANCE  ADDRESS        REGION   ZONE  TIER  KIND       SHARE  WEIGHT  STATUS   AGE  STATE    RTT   VERSION  TAGS
orders-1  10.0.0.1:8080  eu-west  a     0     same_zone  100%   100     passing  0s   fresh    -     1.4.0    -
orders-9  10.1.0.9:8080  us-east  b     1     region     0%     100     passing  41s  suspect  76ms  -        -
`},
		{"resolve orders --from eu-west/a --limit 1 -o address", "10.0.0.1:8080\n"},
		{"explain orders", `
orders from eu-west/a
same_zone: 1 usable instance in zone a

STEP    IN  OUT  LEFT OUT
known   4   4    -
status  4   2    2 draining

TIER  KIND       REGION   ZONE  SHARE  USABLE  TOTAL
0     same_zone  eu-west  a     100%   1       1
1     region     us-east  -     0%     1       1

VIEW     AGE  STATE    RTT   EPOCH               REVISION  SOURCE
eu-west  0s   fresh    -     1-00000000000000a1  42        memory
us-east  41s  suspect  76ms  3-00000000000000b2  9         replica

would change if:
  - 1 more of zone a fails: us-east
`},
		{"regions", `
REGION   STATE    LINK         AGE  SERVICES  INSTANCES  PASSING  RTT   EPOCH               DRAINED
eu-west  fresh    self         0s   2         3          3        -     1-00000000000000a1  -
us-east  suspect  unreachable  41s  5         12         9        76ms  3-00000000000000b2  -
`},
		{"regions eu-west", `
region      eu-west
knowledge   fresh, confirmed 0s ago
link        self
services    2
instances   3, 3 of them passing
version     epoch 1-00000000000000a1, revision 42
source      memory
protection  off: all heartbeats arrive
heartbeats  0 of 3 overdue; 0 timed out in the last 1m0s, at most 1 (15%) may
`},
		{"federation status", `
PEER     LINK         SINCE  STATE    AGE  BEHIND  HEARS-US       RTT   SERVICES  LAST-ERROR
us-east  unreachable  40s    suspect  41s  2/1.5s  suspect/1m10s  76ms  5         connection refused
`},
		{"federation lag", `
ORIGIN   STATE    LINK         AGE  REV-GAP  WAITS  CANARY      P50   P99    BACK   RTT   VIA
us-east  suspect  unreachable  41s  2        1.5s   silent/40s  80ms  120ms  130ms  76ms  -
`},
		{"check ready", "OK: eu-west/n1 is ready (catalog, store)\n"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			r := run(t, node.URL, strings.Fields(tc.args)...)
			wantCode(t, r, ExitOK)
			wantText(t, "stdout", r.stdout, tc.want)
		})
	}
}

// -o wide names everyone who left the funnel.
func TestExplainWideNamesEveryone(t *testing.T) {
	r := run(t, newNode(t, wholeNode()).URL, "explain", "orders", "-o", "wide", "--from", "eu-west/a")
	wantCode(t, r, ExitOK)
	wantContains(t, "stdout", r.stdout, "orders-2@eu-west (draining), orders-4@us-east (draining)")
}

// -o json prints the API's own shape, whatever the verb.
func TestJSONIsTheAPIsShape(t *testing.T) {
	node := newNode(t, wholeNode())
	for args, want := range map[string]any{
		"services":                        serviceList,
		"services orders":                 instanceList,
		"resolve orders":                  resolution,
		"resolve orders --from eu-west/a": resolution,
		"explain orders":                  explained,
		"regions":                         regionList,
		"regions eu-west":                 regionList.Regions[0],
		"federation status":               federationInfo,
		"federation lag":                  federationInfo.Links,
		"federation verify us-east":       verified,
		"federation verify":               []api.Verification{verified},
		"check ready":                     ready,
	} {
		t.Run(args, func(t *testing.T) {
			r := run(t, node.URL, append(strings.Fields(args), "-o", "json")...)
			wantCode(t, r, ExitOK)
			wantJSON(t, r.stdout, want)
			if r.stderr != "" {
				t.Errorf("stderr: %s", r.stderr)
			}
		})
	}
}

func TestJSONLinesAreItems(t *testing.T) {
	r := run(t, newNode(t, wholeNode()).URL, "resolve", "orders", "-o", "jsonl")
	wantCode(t, r, ExitOK)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines, want 2:\n%s", len(lines), r.stdout)
	}
	wantJSON(t, lines[1], resolution.Endpoints[1])
}

func TestYAMLKeepsNamesAndTypes(t *testing.T) {
	list := api.ServiceList{Services: []api.ServiceCount{{Namespace: "default", Service: "1e3", Statuses: map[api.Status]int{}, Regions: []api.Region{"no"}}}}
	r := run(t, newNode(t, map[string]reply{"GET /v1/services": {body: list}}).URL, "services", "-o", "yaml")
	wantCode(t, r, ExitOK)
	wantText(t, "stdout", r.stdout, `
services:
  - ns: default
    service: "1e3"
    instances: 0
    statuses: {}
    passing: 0
    regions:
      - "no"
`)
}

// The reason of an answer is a message: it goes to stderr, and only to people.
func TestResolveTellsTheReason(t *testing.T) {
	r := run(t, newNode(t, wholeNode()).URL, "resolve", "orders")
	wantText(t, "stderr", r.stderr, "reason: same_zone: 1 usable instance in zone a\n")
}

// All pages of a list are one answer.
func TestInstancesFollowsCursors(t *testing.T) {
	first, second := instanceList, instanceList
	first.Instances, first.Cursor = instanceList.Instances[:1], "c1"
	second.Instances = instanceList.Instances[1:]
	node := newNode(t, map[string]reply{
		"GET /v1/services/orders/instances":           {body: first},
		"GET /v1/services/orders/instances?cursor=c1": {body: second},
	})
	r := run(t, node.URL, "instances", "orders", "-o", "json")
	wantCode(t, r, ExitOK)
	wantJSON(t, r.stdout, instanceList)
}

func TestInstancesPassesFiltersOn(t *testing.T) {
	node := newNode(t, map[string]reply{
		"GET /v1/services/orders/instances?limit=1&ns=shop&region=us-east&status=passing&tag=blue&zone=b": {body: instanceList},
	})
	r := run(t, node.URL, "services", "orders", "-n", "shop", "--region", "us-east", "--zone", "b", "--status", "passing", "--tag", "blue", "--limit", "1")
	wantCode(t, r, ExitOK)
}

func TestDeregister(t *testing.T) {
	node := newNode(t, wholeNode())
	r := run(t, node.URL, "deregister", "orders", "o-1")
	wantCode(t, r, ExitOK)
	wantText(t, "stdout", r.stdout, "")
	wantText(t, "stderr", r.stderr, "deregistered orders/o-1\n")
}

// A whole service is removed on purpose only: by its name, and the word --all.
func TestDeregisterAll(t *testing.T) {
	node := newNode(t, map[string]reply{
		"DELETE /v1/services/orders?ns=shop": {body: api.ServiceRemoved{Namespace: "shop", Service: "orders", Removed: 3, Revision: 9}},
	})
	r := run(t, node.URL, "deregister", "--all", "orders", "-n", "shop")
	wantCode(t, r, ExitOK)
	wantText(t, "stderr", r.stderr, "removed 3 instances of shop/orders\n")
	wantCode(t, run(t, node.URL, "deregister", "orders"), ExitUsage)
	wantCode(t, run(t, node.URL, "deregister", "--all", "orders", "orders-1"), ExitUsage)
	wantCode(t, run(t, node.URL, "deregister", "--all", "orders", "--incarnation", "3"), ExitUsage)
}

func TestVersion(t *testing.T) {
	r := run(t, "", "version", "-o", "json")
	wantCode(t, r, ExitOK)
	wantContains(t, "stdout", r.stdout, `"version": "`+Version+`"`)
	wantContains(t, "stdout", run(t, "", "version").stdout, "nearside "+Version+"\n")
}

// Colour is for terminals only; it never shifts a column.
func TestColour(t *testing.T) {
	node := newNode(t, wholeNode())
	if r := run(t, node.URL, "resolve", "orders"); strings.Contains(r.stdout, "\x1b") {
		t.Errorf("colour without a terminal: %q", r.stdout)
	}
	r := run(t, node.URL, "resolve", "orders", "--color", "always")
	wantContains(t, "stdout", r.stdout, "100     \x1b[32mpassing\x1b[0m  0s\n")
}

func TestCheckReady(t *testing.T) {
	for _, tc := range []struct {
		name   string
		reply  reply
		code   int
		stdout string
	}{
		{"not ready", reply{status: 503, body: notReady}, ExitFalse, "CRITICAL: eu-west/n1 is not ready: store: etcd does not answer\n"},
		{"says ready with 503", reply{status: 503, body: ready}, ExitFalse, "CRITICAL: eu-west/n1 is not ready\n"},
		{"says no with 200", reply{body: notReady}, ExitFalse, "CRITICAL: eu-west/n1 is not ready: store: etcd does not answer\n"},
		{"shutting down", problemReply(api.Errorf(api.CodeShuttingDown, "the node is shutting down")), ExitFalse, ""},
		{"something else", reply{body: "<html>"}, ExitError, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := run(t, newNode(t, map[string]reply{"GET /readyz": tc.reply}).URL, "check", "ready")
			wantCode(t, r, tc.code)
			wantText(t, "stdout", r.stdout, tc.stdout)
		})
	}
}

// A health check of a container prints one line even when nothing answers.
func TestCheckReadyUnreachable(t *testing.T) {
	r := run(t, closedAddr(t), "check", "ready")
	wantCode(t, r, ExitUnreachable)
	if strings.Count(r.stdout, "\n") != 1 || !strings.HasPrefix(r.stdout, "CRITICAL: ") || r.stderr != "" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
}

func TestShare(t *testing.T) {
	for w, want := range map[float64]string{0: "0%", 1: "100%", 1.0 / 3: "33.3%", 0.15: "15%", 0.29: "29%"} {
		if got := share(w); got != want {
			t.Errorf("share(%v) = %s, want %s", w, got, want)
		}
	}
}

// Shells complete the names that the registry knows, and nothing when it is away.
func TestCompletion(t *testing.T) {
	node := newNode(t, wholeNode())
	for args, want := range map[string]string{
		"__complete resolve ":  "orders\npayments\n:4\n",
		"__complete regions ":  "eu-west\nus-east\n:4\n",
		"__complete services ": "orders\npayments\n:4\n",
	} {
		r := run(t, node.URL, strings.Split(args, " ")...)
		wantCode(t, r, ExitOK)
		wantText(t, args, r.stdout, want)
	}
	r := run(t, closedAddr(t), "__complete", "resolve", "")
	wantCode(t, r, ExitOK)
	wantText(t, "stdout", r.stdout, ":4\n")
}

// The services of every page are listed, of a node that has pages and of one that has none.
func TestServicesOfAllPages(t *testing.T) {
	node := newNode(t, map[string]reply{
		"GET /v1/services?ns=shop":               {body: api.ServiceList{Services: serviceList.Services[:1], Cursor: "orders"}},
		"GET /v1/services?cursor=orders&ns=shop": {body: api.ServiceList{Services: serviceList.Services[1:]}},
	})
	r := run(t, node.URL, "services", "-n", "shop", "-o", "name")
	wantCode(t, r, ExitOK)
	wantText(t, "stdout", r.stdout, "orders\npayments\n")
}

// Who changes something is told how to take it back.
func TestUndoIsTold(t *testing.T) {
	was := instanceList.Instances[1] // warning, and without checks
	now := was
	now.Status = api.StatusCritical
	const path = "/v1/services/orders/instances/orders-2"
	node := newNode(t, map[string]reply{
		"GET " + path:             {body: was},
		"PUT " + path + "/status": {body: now},
		"PUT /v1/kv/new":          {body: api.KVWritten{Key: "new", Revision: 7, Created: 7}},
		"PUT /v1/kv/old":          {body: api.KVWritten{Key: "old", Revision: 8, Created: 7}},
	})
	wantContains(t, "stderr", run(t, node.URL, "status", "orders", "orders-2", "critical").stderr, "undo: nearside status orders orders-2 warning")
	wantText(t, "stderr", run(t, node.URL, "kv", "put", "new", "1").stderr, "new; undo: nearside kv delete new --cas 7\n")
	wantText(t, "stderr", run(t, node.URL, "kv", "put", "old", "1").stderr, "")
}
