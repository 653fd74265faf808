package api

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// normalizeChecks checks the rules and returns them with their defaults. r.TTL is that of
// the heartbeat: 0 when none is asked for.
func normalizeChecks(r *Registration) ([]Check, error) {
	if len(r.Checks) == 0 {
		return nil, nil
	}
	if len(r.Checks) > MaxChecks {
		return nil, FieldError("checks", fmt.Sprintf("%d checks", len(r.Checks)), fmt.Sprintf("use at most %d", MaxChecks))
	}
	out := make([]Check, len(r.Checks))
	names := map[string]bool{}
	ttl := false
	for i, c := range r.Checks {
		at := func(field string) string { return fmt.Sprintf("checks[%d].%s", i, field) }
		if err := normalizeCheck(&c, r, at); err != nil {
			return nil, err
		}
		if c.Kind == CheckTTL && ttl {
			return nil, FieldError(at("kind"), "there are two checks of kind ttl", "an instance has one heartbeat: leave one out")
		}
		ttl = ttl || c.Kind == CheckTTL
		if c.Name == "" {
			c.Name = string(c.Kind)
			for n := 2; names[c.Name]; n++ {
				c.Name = string(c.Kind) + "-" + strconv.Itoa(n)
			}
		}
		if !ValidLabel(c.Name) {
			return nil, FieldError(at("name"), fmt.Sprintf("check name %s is not a valid name", Quote(c.Name)), labelRule)
		}
		if names[c.Name] {
			return nil, FieldError(at("name"), fmt.Sprintf("two checks are named %s", Quote(c.Name)), "give each a name of its own")
		}
		names[c.Name] = true
		out[i] = c
	}
	return out, nil
}

func normalizeCheck(c *Check, r *Registration, at func(string) string) error {
	switch c.Kind {
	case CheckHTTP, CheckHTTPS, CheckTCP, CheckGRPC:
	case CheckTTL:
		return normalizeTTLCheck(c, r, at)
	default:
		return FieldError(at("kind"), fmt.Sprintf("check kind %s is not known", Quote(string(c.Kind))), "use http, https, tcp, grpc or ttl")
	}
	if c.Role == "" {
		c.Role = RoleReadiness
	}
	switch c.Role {
	case RoleStartup, RoleReadiness, RoleLiveness:
	default:
		return FieldError(at("role"), fmt.Sprintf("check role %s is not known", Quote(string(c.Role))), "use startup, readiness or liveness")
	}
	if portOf(c.Port, r.Port, r.Ports) == 0 {
		return FieldError(at("port"), fmt.Sprintf("port %s is neither a number from 1 to 65535 nor one of the instance's ports", Quote(string(c.Port))),
			"use a number, a name from ports, or leave it out for the instance's port")
	}
	if c.TTL != 0 {
		return FieldError(at("ttl"), fmt.Sprintf("a check of kind %s has no ttl", c.Kind), "use interval, or kind ttl")
	}
	if err := checkTarget(c, at); err != nil {
		return err
	}
	if err := checkTimes(c, at); err != nil {
		return err
	}
	return checkThresholds(c, at)
}

// normalizeTTLCheck handles the kind that is not run but waited for: it is the heartbeat.
func normalizeTTLCheck(c *Check, r *Registration, at func(string) string) error {
	if c.Role != "" && c.Role != RoleLiveness {
		return FieldError(at("role"), fmt.Sprintf("a check of kind ttl cannot have the role %s", Quote(string(c.Role))), "leave it out: heartbeats are a sign of life")
	}
	if *c != (Check{Name: c.Name, Kind: c.Kind, Role: c.Role, TTL: c.TTL}) {
		return FieldError(at("kind"), "a check of kind ttl has a name and a ttl, nothing else", "leave the other fields out")
	}
	if c.TTL != 0 && r.TTL != 0 && c.TTL != r.TTL {
		return FieldError(at("ttl"), fmt.Sprintf("the check says ttl %s and the instance %s", c.TTL, r.TTL), "say it once")
	}
	if r.TTL == 0 {
		r.TTL = c.TTL
	}
	if r.TTL == 0 {
		r.TTL = Duration(DefaultTTL)
	}
	c.Role, c.TTL = RoleLiveness, r.TTL
	return nil
}

// checkTarget checks what is asked, beside the port.
func checkTarget(c *Check, at func(string) string) error {
	web := c.Kind == CheckHTTP || c.Kind == CheckHTTPS
	switch {
	case web && c.Path == "":
		c.Path = "/"
	case !web && c.Path != "":
		return FieldError(at("path"), fmt.Sprintf("a check of kind %s has no path", c.Kind), "leave it out")
	}
	if web {
		const rule = "use an absolute path such as /healthz"
		if err := checkText(at("path"), c.Path, MaxCheckPath); err != nil {
			return err
		}
		u, err := url.ParseRequestURI(c.Path)
		if err != nil || c.Path[0] != '/' || strings.HasPrefix(c.Path, "//") || strings.ContainsAny(c.Path, " #\\") || u.Host != "" {
			return FieldError(at("path"), fmt.Sprintf("path %s is not valid", Quote(c.Path)), rule)
		}
	}
	if c.Kind != CheckGRPC && c.Service != "" {
		return FieldError(at("service"), fmt.Sprintf("a check of kind %s has no service", c.Kind), "leave it out")
	}
	return checkText(at("service"), c.Service, MaxCheckService)
}

func checkTimes(c *Check, at func(string) string) error {
	if c.Interval == 0 {
		c.Interval = Duration(DefaultCheckInterval)
	}
	if d := c.Interval.D(); d < MinCheckInterval || d > MaxCheckInterval {
		return FieldError(at("interval"), fmt.Sprintf("interval %s is out of range", d), fmt.Sprintf("use %s to %s", MinCheckInterval, MaxCheckInterval))
	}
	if c.Timeout == 0 {
		c.Timeout = Duration(DefaultCheckTimeout)
	}
	most := min(MaxCheckTimeout, c.Interval.D())
	if d := c.Timeout.D(); d < MinCheckTimeout || d > most {
		return FieldError(at("timeout"), fmt.Sprintf("timeout %s is out of range", d),
			fmt.Sprintf("use %s to %s: no more than the interval, nor than %s", MinCheckTimeout, most, MaxCheckTimeout))
	}
	if d := c.InitialDelay.D(); d < 0 || d > MaxCheckInterval {
		return FieldError(at("initial_delay"), fmt.Sprintf("initial_delay %s is out of range", d), fmt.Sprintf("use 0s to %s", MaxCheckInterval))
	}
	if c.DeregisterAfter == 0 {
		return nil
	}
	if c.Role != RoleLiveness && c.Role != RoleStartup {
		return FieldError(at("deregister_after"), fmt.Sprintf("a %s check cannot deregister the instance", c.Role), `use it with the role "liveness" or "startup"`)
	}
	if d := c.DeregisterAfter.D(); d < time.Second || d > MaxDeregisterAfter {
		return FieldError(at("deregister_after"), fmt.Sprintf("deregister_after %s is out of range", d), fmt.Sprintf("use 1s to %s", MaxDeregisterAfter))
	}
	return nil
}

func checkThresholds(c *Check, at func(string) string) error {
	if c.SuccessBeforePassing == 0 {
		c.SuccessBeforePassing = 1
	}
	if c.FailuresBeforeCritical == 0 {
		c.FailuresBeforeCritical = DefaultFailuresBeforeCritical
	}
	if n := c.SuccessBeforePassing; n < 1 || n > MaxCheckThreshold || n > 1 && c.Role != RoleReadiness {
		return FieldError(at("success_before_passing"), fmt.Sprintf("success_before_passing %d is out of range", n),
			fmt.Sprintf("use 1 to %d; startup and liveness need 1", MaxCheckThreshold))
	}
	if n := c.FailuresBeforeCritical; n < 1 || n > MaxCheckThreshold {
		return FieldError(at("failures_before_critical"), fmt.Sprintf("failures_before_critical %d is out of range", n), fmt.Sprintf("use 1 to %d", MaxCheckThreshold))
	}
	if n := c.FailuresBeforeWarning; n < 0 || n != 0 && (n >= c.FailuresBeforeCritical || c.Role == RoleStartup) {
		return FieldError(at("failures_before_warning"), fmt.Sprintf("failures_before_warning %d is out of range", n),
			"use less than failures_before_critical, or 0 for no warning; startup checks have none")
	}
	return nil
}
