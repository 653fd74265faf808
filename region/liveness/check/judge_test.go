package check

import (
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Startup gates the others; a draining instance keeps its readiness check only.
func TestDue(t *testing.T) {
	checks := []api.Check{rule(api.RoleStartup), rule(api.RoleReadiness), rule(api.RoleLiveness)}
	for _, tc := range []struct {
		startup  api.Status
		draining bool
		want     string
	}{
		{api.StatusStarting, false, "[true false false]"},
		{api.StatusCritical, false, "[true false false]"},
		{api.StatusPassing, false, "[false true true]"},
		{api.StatusPassing, true, "[false true false]"},
		{api.StatusStarting, true, "[false true false]"},
	} {
		states := make([]State, len(checks))
		for i := range checks {
			states[i] = Resume(First(&checks[i], t0), t0)
		}
		states[0].Status = tc.startup
		if got := fmt.Sprint(Due(checks, states, tc.draining)); got != tc.want {
			t.Errorf("startup %s, draining %v: %s, want %s", tc.startup, tc.draining, got, tc.want)
		}
	}
	noGate := []api.Check{rule(api.RoleReadiness)}
	if got := Due(noGate, []State{Resume(First(&noGate[0], t0), t0)}, false); !got[0] {
		t.Error("without a startup check nothing waits")
	}
}

func TestDelayBelowTheIntervalIsIgnored(t *testing.T) {
	for delay, want := range map[time.Duration]time.Duration{0: 0, 9 * time.Second: 0, 10 * time.Second: 10 * time.Second, time.Minute: time.Minute} {
		c := rule(api.RoleReadiness, func(c *api.Check) { c.InitialDelay = api.Duration(delay) })
		if got := Delay(&c); got != want {
			t.Errorf("initial_delay %s: %s", delay, got)
		}
	}
}

func TestJudge(t *testing.T) {
	at := func(role api.CheckRole, s api.Status, note string) api.CheckResult {
		return api.CheckResult{Name: "http", Role: role, Status: s, Note: note}
	}
	const startup, readiness, liveness = api.RoleStartup, api.RoleReadiness, api.RoleLiveness
	for _, tc := range []struct {
		name    string
		results []api.CheckResult
		status  api.Status
		note    string
	}{
		{"all well", []api.CheckResult{at(startup, "passing", ""), at(readiness, "passing", ""), at(liveness, "passing", "")}, "passing", ""},
		{"not ready", []api.CheckResult{at(liveness, "passing", ""), at(readiness, "critical", "3 × 503")}, "critical", "readiness http: 3 × 503"},
		{"not alive", []api.CheckResult{at(liveness, "critical", "3 × refused"), at(readiness, "passing", "")}, "critical", "liveness http: 3 × refused"},
		{"a warning", []api.CheckResult{at(readiness, "warning", "1 × 503"), at(liveness, "passing", "")}, "warning", "readiness http: 1 × 503"},
		{"the worst counts", []api.CheckResult{at(readiness, "warning", "a"), at(liveness, "critical", "b")}, "critical", "liveness http: b"},
		{"not ready yet", []api.CheckResult{at(readiness, "starting", "has not passed yet")}, "starting", "readiness http: has not passed yet"},
		{"starting, whatever the others said", []api.CheckResult{at(startup, "starting", "has not passed yet"), at(readiness, "critical", "b")}, "starting", "startup http: has not passed yet"},
		{"failed to start", []api.CheckResult{at(liveness, "passing", ""), at(startup, "critical", "3 × 503")}, "critical", "startup http: 3 × 503"},
		{"one of two gates failed", []api.CheckResult{at(startup, "starting", "x"), at(startup, "critical", "3 × 503")}, "critical", "startup http: 3 × 503"},
		{"nothing is run", nil, "passing", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if s, note := Judge(tc.results); s != tc.status || note != tc.note {
				t.Errorf("%s %q, want %s %q", s, note, tc.status, tc.note)
			}
		})
	}
}

// By hand and by checks: the worse counts, and draining always.
func TestEffective(t *testing.T) {
	for _, tc := range []struct {
		hand, checks, want api.Status
	}{
		{"", "passing", "passing"},
		{"", "critical", "critical"},
		{"warning", "passing", "warning"},
		{"warning", "critical", "critical"},
		{"critical", "passing", "critical"},
		{"starting", "warning", "starting"},
		{"draining", "passing", "draining"},
		{"draining", "critical", "draining"},
	} {
		var set *api.SetStatus
		if tc.hand != "" {
			set = &api.SetStatus{Status: tc.hand, Note: "by hand"}
		}
		s, note := Effective(set, []api.CheckResult{{Name: "http", Role: api.RoleReadiness, Status: tc.checks, Note: "x"}})
		if s != tc.want || (note == "by hand") != (set != nil && tc.want == tc.hand) {
			t.Errorf("%q by hand, %q by checks: %s %q", tc.hand, tc.checks, s, note)
		}
	}
}

func TestCarry(t *testing.T) {
	checks := []api.Check{rule(api.RoleReadiness), {Kind: api.CheckTTL, Name: "ttl"}, rule(api.RoleLiveness, func(c *api.Check) { c.Name = "alive" })}
	got := func(cur *api.Instance) string {
		s := ""
		for _, r := range Carry(cur, checks, t0) {
			s += r.Name + " " + string(r.Status) + " "
		}
		return s
	}
	for name, tc := range map[string]struct {
		cur  *api.Instance
		want string
	}{
		"new":                    {nil, "http starting alive passing "},
		"known, without checks":  {&api.Instance{Status: "passing"}, "http passing alive passing "},
		"known, not offered":     {&api.Instance{Status: "starting"}, "http starting alive passing "},
		"known, with this check": {&api.Instance{Status: "critical", CheckResults: []api.CheckResult{{Name: "http", Role: api.RoleReadiness, Status: "critical"}}}, "http critical alive passing "},
		"another role":           {&api.Instance{Status: "critical", CheckResults: []api.CheckResult{{Name: "http", Role: api.RoleLiveness, Status: "critical"}}}, "http starting alive passing "},
	} {
		if s := got(tc.cur); s != tc.want {
			t.Errorf("%s: %s, want %s", name, s, tc.want)
		}
	}
}
