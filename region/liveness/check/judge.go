package check

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Due reports for every check whether it is to be run now. started is whether the startup
// checks have passed; a draining instance counts as started.
func Due(checks []api.Check, states []State, draining bool) []bool {
	started := draining || Started(states)
	due := make([]bool, len(checks))
	for i := range checks {
		switch checks[i].Role {
		case api.RoleStartup:
			due[i] = !draining && states[i].Status != api.StatusPassing
		case api.RoleLiveness:
			due[i] = started && !draining
		default:
			due[i] = started
		}
	}
	return due
}

// Started reports whether every startup check passed.
func Started(states []State) bool {
	for i := range states {
		if states[i].Role == api.RoleStartup && states[i].Status != api.StatusPassing {
			return false
		}
	}
	return true
}

// Delay is how long after it is due a check waits for its first run. A delay below the
// interval is ignored, as in Kubernetes.
func Delay(c *api.Check) time.Duration {
	if c.InitialDelay < c.Interval {
		return 0
	}
	return c.InitialDelay.D()
}

// rank orders statuses for Judge: the highest counts.
func rank(s api.Status) int {
	switch s {
	case api.StatusDraining:
		return 4
	case api.StatusCritical:
		return 3
	case api.StatusStarting:
		return 2
	case api.StatusWarning:
		return 1
	}
	return 0
}

// Worse reports whether a is worse for an instance than b.
func Worse(a, b api.Status) bool { return rank(a) > rank(b) }

// Judge makes one status of what an instance's checks say, and its cause, such as
// "readiness http: 3 × 503". An instance is starting until its startup checks passed, or
// critical once one failed, whatever the others say.
func Judge(results []api.CheckResult) (status api.Status, note string) {
	status = api.StatusPassing
	startup := false
	for i := range results {
		r := &results[i]
		gate := r.Role == api.RoleStartup && r.Status != api.StatusPassing
		if gate && !startup {
			startup, status, note = true, r.Status, cause(r)
		}
		if (!startup || gate) && Worse(r.Status, status) {
			status, note = r.Status, cause(r)
		}
	}
	return status, note
}

func cause(r *api.CheckResult) string {
	s := string(r.Role) + " " + r.Name
	if r.Note != "" {
		s += ": " + r.Note
	}
	return s
}

// Effective is the status of an instance with checks: the worse of what was set by hand
// (nil = nothing) and what the checks say. By hand wins a tie: somebody wrote that note.
func Effective(set *api.SetStatus, results []api.CheckResult) (status api.Status, note string) {
	status, note = Judge(results)
	if set != nil && !Worse(status, set.Status) {
		return set.Status, set.Note
	}
	return status, note
}

// Carry returns the results that an instance with next's checks begins with. cur is the
// same incarnation of it before, nil when there is none: what its checks found goes on, by
// name and role. A check that is new to an instance that is being offered begins as
// passing: it runs already, and a new rule is no reason to send its callers away.
func Carry(cur *api.Instance, checks []api.Check, now time.Time) []api.CheckResult {
	var out []api.CheckResult
	for i := range checks {
		c := &checks[i]
		if !c.Active() {
			continue
		}
		r := First(c, now)
		if cur != nil && cur.Status.Usable() {
			r.Status, r.Note = api.StatusPassing, ""
		}
		if cur != nil {
			for _, old := range cur.CheckResults {
				if old.Name == c.Name && old.Role == c.Role {
					r = old
				}
			}
		}
		out = append(out, r)
	}
	return out
}

// Active returns the checks that are run.
func Active(checks []api.Check) []api.Check {
	var out []api.Check
	for _, c := range checks {
		if c.Active() {
			out = append(out, c)
		}
	}
	return out
}
