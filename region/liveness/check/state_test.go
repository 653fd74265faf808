package check

import (
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

var t0 = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func rule(role api.CheckRole, change ...func(*api.Check)) api.Check {
	c := api.Check{Kind: api.CheckHTTP, Role: role}
	for _, f := range change {
		f(&c)
	}
	r, err := api.Registration{Address: "10.0.0.1", Port: 80, Checks: []api.Check{c}}.Normalize()
	if err != nil {
		panic(err)
	}
	return r.Checks[0]
}

func thresholds(success, warning, critical int) func(*api.Check) {
	return func(c *api.Check) {
		c.SuccessBeforePassing, c.FailuresBeforeWarning, c.FailuresBeforeCritical = success, warning, critical
	}
}

// play steps through results, one letter each every interval: + success, - failure with
// 503, t failure by timeout, ? could not be carried out. It returns the statuses by their
// first letters.
func play(s *State, c *api.Check, d Damping, now *time.Time, results string) string {
	var out strings.Builder
	for _, r := range results {
		*now = now.Add(c.Interval.D())
		switch r {
		case '+':
			s.Step(c, d, Result{Success, "200"}, *now)
		case '-':
			s.Step(c, d, Result{Failure, "503"}, *now)
		case 't':
			s.Step(c, d, Result{Failure, "timeout"}, *now)
		case '?':
			s.Step(c, d, Result{Unknown, "not-asked"}, *now)
		}
		out.WriteString(string(s.Status)[:1])
	}
	return out.String()
}

// The rules of Kubernetes' probes, one by one (s starting, p passing, w warning, c critical).
func TestStatusesFollowTheRulesOfKubernetes(t *testing.T) {
	const startup, readiness, liveness = api.RoleStartup, api.RoleReadiness, api.RoleLiveness
	for _, tc := range []struct {
		name          string
		c             api.Check
		results, want string
	}{
		{"readiness starts as not passing", rule(readiness), "--?+", "sssp"},
		{"liveness starts as passing", rule(liveness), "--?+", "pppp"},
		{"startup starts as starting", rule(startup), "--+", "ssp"},
		{"three failures are the default", rule(readiness), "+--+---", "ppppppc"},
		{"only failures in a row count", rule(liveness), "--+--+---", "ppppppppc"},
		{"only successes in a row count", rule(readiness, thresholds(3, 0, 1)), "++-++-+++", "sscccccc" + "p"},
		{"below the threshold the status stays", rule(readiness, thresholds(2, 0, 2)), "++-+-+--+-++", "sppppppc" + "cccp"},
		{"a check that could not be run neither counts nor breaks a row", rule(readiness), "+--?-", "ppppc"},
		{"nor does it heal", rule(readiness, thresholds(2, 0, 1)), "-+?+", "cccp"},
		{"one success heals by default", rule(readiness), "+---+", "pppcp"},
		{"a failed startup is critical", rule(startup), "---", "ssc"},
		{"and may still start", rule(startup), "---+", "sscp"},
		{"a failed liveness is critical", rule(liveness), "---", "ppc"},
		{"one failure may be enough", rule(liveness, thresholds(0, 0, 1)), "-+-", "cpc"},
		{"warning comes before critical", rule(readiness, thresholds(1, 2, 4)), "+----+", "ppwwcp"},
		{"warning heals", rule(readiness, thresholds(1, 1, 3)), "+-+-", "pwpw"},
		{"what never passed is not warning", rule(readiness, thresholds(1, 1, 3)), "---", "ssc"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := t0
			s := Resume(First(&tc.c, now), now)
			if got := play(&s, &tc.c, Damping{}, &now, tc.results); got != tc.want {
				t.Errorf("%s gave %s, want %s", tc.results, got, tc.want)
			}
		})
	}
}

func TestNotesSayWhatFailed(t *testing.T) {
	c := rule(api.RoleReadiness)
	for results, want := range map[string]string{
		"---": "3 × 503", "ttt": "3 × timeout", "-tt": "3 failures, the last timeout", "t--": "3 failures, the last 503",
		"--+ttt": "3 × timeout", "-?--": "3 × 503", "+": "", "-": "has not passed yet",
	} {
		now := t0
		s := Resume(First(&c, now), now)
		play(&s, &c, Damping{}, &now, results)
		if s.Note != want {
			t.Errorf("%s: note %q, want %q", results, s.Note, want)
		}
	}
}

// A restart forgets no critical status, and needs a threshold of new failures for a new one.
func TestResumeGoesOnFromTheRecord(t *testing.T) {
	c := rule(api.RoleReadiness, thresholds(2, 0, 2))
	for status, want := range map[api.Status]string{api.StatusCritical: "ccp", api.StatusPassing: "ppp", api.StatusStarting: "ssp"} {
		now := t0
		s := Resume(api.CheckResult{Name: c.Name, Role: c.Role, Status: status, Since: t0}, now)
		if got := play(&s, &c, Damping{}, &now, "-++"); got != want {
			t.Errorf("from %s: %s, want %s", status, got, want)
		}
	}
}

// One who flaps keeps the worse status until it was well for a while, and longer each time.
func TestFlappingHoldsTheWorseStatus(t *testing.T) {
	c := rule(api.RoleReadiness, thresholds(1, 0, 1))
	d := DefaultDamping()
	now := t0
	s := Resume(First(&c, now), now)
	// Three outages of one failure in ten minutes: the third is one too many.
	if got := play(&s, &c, d, &now, "+-+-+"); got != "pcpcp" {
		t.Fatalf("calm: %s", got)
	}
	if got := play(&s, &c, d, &now, "-+++"); got != "cccp" {
		t.Errorf("flapping, 30 s without a failure: %s", got)
	}
	if got := play(&s, &c, d, &now, "-++++++"); got != "ccccccp" || s.level != 2 {
		t.Errorf("relapse, 60 s: %s (level %d)", got, s.level)
	}
	if got := play(&s, &c, d, &now, "-+++++-"+strings.Repeat("+", 12)); got != strings.Repeat("c", 18)+"p" {
		t.Errorf("a failure within the hold starts it anew: %s", got)
	}
	play(&s, &c, d, &now, "-")
	if !strings.Contains(s.Note, "1 × 503; flapping: passes after 4m0s") {
		t.Errorf("note %q", s.Note)
	}
	for range 6 {
		play(&s, &c, d, &now, strings.Repeat("+", 70)+"-")
		if s.hold > d.MaxHold {
			t.Fatalf("hold %s", s.hold)
		}
	}
	// A calm window and the hold later all is forgotten.
	play(&s, &c, d, &now, strings.Repeat("+", 130)+"-")
	if got := play(&s, &c, d, &now, "+-+"); got != "pcp" || s.level != 0 {
		t.Errorf("after a calm time: %s (level %d)", got, s.level)
	}
	if len(s.changes) > d.Changes+2 {
		t.Errorf("%d changes are remembered", len(s.changes))
	}
}

// What was found in doubt is taken back: a whole threshold of failures is needed again.
func TestWithdraw(t *testing.T) {
	c := rule(api.RoleLiveness, func(c *api.Check) { c.DeregisterAfter = api.Duration(time.Minute) })
	now := t0
	s := Resume(First(&c, now), now)
	record := s.CheckResult
	play(&s, &c, DefaultDamping(), &now, "---")
	s.Withdraw(record)
	if s.Status != api.StatusPassing || s.Note != "" || s.LastCode != "503" || s.Expired(&c, now.Add(time.Hour)) || len(s.changes) != 0 {
		t.Errorf("%+v", s)
	}
	if got := play(&s, &c, DefaultDamping(), &now, "--+---"); got != "pppppc" {
		t.Errorf("afterwards: %s", got)
	}
}

func TestDeregisterAfterCountsWhatThisProcessSaw(t *testing.T) {
	c := rule(api.RoleLiveness, func(c *api.Check) { c.DeregisterAfter = api.Duration(time.Minute) })
	now := t0
	s := Resume(First(&c, now), now)
	play(&s, &c, Damping{}, &now, "---")
	if s.Expired(&c, now.Add(59*time.Second)) || !s.Expired(&c, now.Add(time.Minute)) {
		t.Error("a minute after it became critical")
	}
	s.Amnesty(now.Add(50 * time.Second))
	if s.Expired(&c, now.Add(109*time.Second)) || !s.Expired(&c, now.Add(110*time.Second)) {
		t.Error("a minute after the amnesty")
	}
	play(&s, &c, Damping{}, &now, "+")
	s.Amnesty(now)
	if s.Expired(&c, now.Add(time.Hour)) {
		t.Error("it passes")
	}
	restarted := Resume(api.CheckResult{Role: c.Role, Status: api.StatusCritical, Since: t0.Add(-time.Hour)}, t0)
	if restarted.Expired(&c, t0.Add(59*time.Second)) || !restarted.Expired(&c, t0.Add(time.Minute)) {
		t.Error("a restart begins to count anew")
	}
}
