package api

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds and defaults of policies.
const (
	MaxPolicies      = 10_000   // of a region
	MaxPolicyBytes   = 16 << 10 // of one as JSON
	MaxPolicyRegions = 128      // names in each of its lists

	DefaultSpillStart       = 80.0
	DefaultSpillStop        = 65.0
	DefaultOverProvisioning = 1.4
	DefaultFailbackRamp     = 30 * time.Second
	DefaultStaleLimit       = 15 * time.Minute

	MinStaleLimit       = 5 * time.Second
	MaxStaleLimit       = 30 * 24 * time.Hour
	MaxFailbackRamp     = time.Hour
	MaxOverProvisioning = 100.0
	MaxKeepWarm         = 10.0
)

// PolicyWrite is the body of PUT /v1/policies/{service}, and of POST …/test: a policy, as a
// whole. What it does not name is not set.
type PolicyWrite struct {
	Policy
	Note string `json:"note,omitempty"` // why; at most 256 bytes
}

// PolicyWritten answers a PUT of a policy.
type PolicyWritten struct {
	PolicyRecord
	// Warnings are what was accepted and may not be meant: a region that nobody knows.
	Warnings []string `json:"warnings,omitempty"`
}

// PolicyList is the body of GET /v1/policies: by service, the default ("*") first.
type PolicyList struct {
	Region    Region         `json:"region"` // whose callers the policies are for
	Namespace Namespace      `json:"ns"`
	Policies  []PolicyRecord `json:"policies"`
	Cursor    string         `json:"cursor,omitempty"` // give it back as ?cursor= for the next page
}

// PolicyTest answers POST /v1/policies/{service}/test: what the policy would change, and
// nothing was stored.
type PolicyTest struct {
	Region    Region      `json:"region"`
	Namespace Namespace   `json:"ns"`
	Service   ServiceName `json:"service"`
	// Before and After are what is in force and what would be, merged with the default.
	Before Policy `json:"before"`
	After  Policy `json:"after"`
	// Changes are the fields that differ, as "field: before -> after".
	Changes  []string `json:"changes,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Decisions are of the service, or, for the default, of every known service whose answer
	// would be another, at most 100. Looked is how many were looked at.
	Decisions []PolicyEffect `json:"decisions"`
	Looked    int            `json:"looked"`
}

// PolicyEffect is what a policy would do to the answer for one service.
type PolicyEffect struct {
	Service ServiceName `json:"service"`
	Changed bool        `json:"changed"` // the tiers or the reason differ
	Before  Decision    `json:"before"`
	After   Decision    `json:"after"`
}

// CheckPolicyService validates the service of a policy: a service name, or PolicyDefault.
func CheckPolicyService(s string) error {
	if s == string(PolicyDefault) {
		return nil
	}
	if !ValidLabel(s) {
		return FieldError("service", fmt.Sprintf("service %s is not a valid name", Quote(s)), labelRule+`, or "*" for the namespace's default`)
	}
	return nil
}

// Validate checks a policy of region own: each field by itself, and those that must fit each
// other. It returns an *Error with CodeInvalidField for the first that is wrong.
func (p *Policy) Validate(own Region) error {
	if err := p.checkFields(); err != nil {
		return err
	}
	if p.OrderBy == OrderRTT && len(p.Order) > 0 {
		return FieldError("order", "order lists regions, and order_by rtt passes over such a list", "leave out order, or use order_by listed")
	}
	if e := p.fits(own); e != nil {
		return e
	}
	if p.SpillStart != nil && p.SpillStop != nil {
		return nilable(settles(*p.SpillStart, *p.SpillStop))
	}
	return nil
}

// ValidateOver checks what comes of p over the default (nil = none is set): both may be right
// by themselves and contradict each other. p is valid.
func (p *Policy) ValidateOver(def *Policy, own Region) error {
	merged := p.Over(def)
	e := merged.fits(own)
	if e == nil {
		e = settles(or(merged.SpillStart, DefaultSpillStart), or(merged.SpillStop, DefaultSpillStop))
	}
	if e != nil && def != nil {
		e.Detail = "together with the namespace's default policy: " + e.Detail
		e.Remedy += "; or change the default (service *)"
	}
	return nilable(e)
}

func (p *Policy) checkFields() error {
	for _, list := range []struct {
		name    string
		regions []Region
	}{{"allowed", p.Allowed}, {"order", p.Order}} {
		if n := len(list.regions); n > MaxPolicyRegions {
			return FieldError(list.name, fmt.Sprintf("%s lists %d regions", list.name, n), fmt.Sprintf("use at most %d", MaxPolicyRegions))
		}
		for i, r := range list.regions {
			if !ValidLabel(string(r)) {
				return FieldError(list.name, fmt.Sprintf("%s: region %s is not a valid name", list.name, Quote(string(r))), labelRule)
			}
			if slices.Contains(list.regions[:i], r) {
				return FieldError(list.name, fmt.Sprintf("%s lists region %s twice", list.name, r), "list it once")
			}
		}
	}
	if p.OrderBy != "" && p.OrderBy != OrderListed && p.OrderBy != OrderRTT {
		return FieldError("order_by", fmt.Sprintf("order_by %s is not one that there is", Quote(string(p.OrderBy))), "use listed or rtt, or leave it out (listed)")
	}
	for _, n := range []struct {
		name       string
		value      *float64
		low, high  float64
		unit, rest string
	}{
		{"min_healthy", p.MinHealthy, 0, 100, " percent", ", or leave it out (never)"},
		{"over_provisioning", p.OverProvisioning, 1, MaxOverProvisioning, "", ", or leave it out (1.4)"},
		{"spill_start", p.SpillStart, 1, 100, " percent of utilisation", ", or leave it out (80)"},
		{"spill_stop", p.SpillStop, 0, 100, " percent of utilisation", ", or leave it out (65)"},
		{"keep_warm", p.KeepWarm, 0, MaxKeepWarm, " percent", ", or leave it out (none)"},
	} {
		// Written so that what is no number is refused too.
		if n.value != nil && !(*n.value >= n.low && *n.value <= n.high) {
			return FieldError(n.name, fmt.Sprintf("%s %s is out of range", n.name, number(*n.value)), fmt.Sprintf("use %s to %s%s%s", number(n.low), number(n.high), n.unit, n.rest))
		}
	}
	if d := p.StaleLimit.D(); d != 0 && (d < MinStaleLimit || d > MaxStaleLimit) {
		return FieldError("stale_limit", fmt.Sprintf("stale_limit %s is out of range", d), fmt.Sprintf("use %s to %s (30 days), or leave it out (15m)", MinStaleLimit, MaxStaleLimit))
	}
	if p.FailbackRamp != nil && (p.FailbackRamp.D() < 0 || p.FailbackRamp.D() > MaxFailbackRamp) {
		return FieldError("failback_ramp", fmt.Sprintf("failback_ramp %s is out of range", p.FailbackRamp.D()), "use 0s (at once) to 1h, or leave it out (30s)")
	}
	return nil
}

// fits checks the regions of the fields against each other.
func (p *Policy) fits(own Region) *Error {
	if p.LocalOnly != nil && *p.LocalOnly && len(p.Allowed) > 0 && !slices.Contains(p.Allowed, own) {
		return FieldError("local_only", fmt.Sprintf("local_only allows %s alone, and allowed (%s) does not have it: nobody could serve", own, regionList(p.Allowed)),
			fmt.Sprintf("add %s to allowed, or leave out one of the two", own))
	}
	if len(p.Allowed) == 0 {
		return nil
	}
	for _, r := range p.Order {
		if r != own && !slices.Contains(p.Allowed, r) {
			return FieldError("order", fmt.Sprintf("order prefers region %s, which allowed (%s) forbids", r, regionList(p.Allowed)), "add it to allowed, or take it out of order")
		}
	}
	return nil
}

// settles checks the two ends of spilling.
func settles(start, stop float64) *Error {
	if stop < start {
		return nil
	}
	return FieldError("spill_stop", fmt.Sprintf("spill_stop %s is not below spill_start %s: spilling would never settle", number(stop), number(start)),
		fmt.Sprintf("set both, stop some points below start (%s and %s are the defaults)", number(DefaultSpillStop), number(DefaultSpillStart)))
}

// Over returns p with what it does not set taken from def; nil = nothing.
func (p *Policy) Over(def *Policy) Policy {
	out := *p
	if def == nil {
		return out
	}
	if len(out.Allowed) == 0 {
		out.Allowed = def.Allowed
	}
	if out.LocalOnly == nil {
		out.LocalOnly = def.LocalOnly
	}
	// A list of p's own is not passed over because the default says rtt.
	if out.OrderBy == "" && len(out.Order) == 0 {
		out.OrderBy = def.OrderBy
	}
	if len(out.Order) == 0 && out.OrderBy != OrderRTT {
		out.Order = def.Order
	}
	inherit(&out.MinHealthy, def.MinHealthy)
	inherit(&out.OverProvisioning, def.OverProvisioning)
	inherit(&out.SpillStart, def.SpillStart)
	inherit(&out.SpillStop, def.SpillStop)
	inherit(&out.FailbackRamp, def.FailbackRamp)
	inherit(&out.KeepWarm, def.KeepWarm)
	if out.StaleLimit == 0 {
		out.StaleLimit = def.StaleLimit
	}
	return out
}

func inherit[T any](p **T, def *T) {
	if *p == nil {
		*p = def
	}
}

func or(p *float64, def float64) float64 {
	if p == nil {
		return def
	}
	return *p
}

// PolicyField is a field of a policy as people read it; Value is "" when it is not set.
type PolicyField struct{ Name, Value string }

// Fields returns every field of p by its name in JSON, in the order of the type.
func (p *Policy) Fields() []PolicyField {
	numberOf := func(v *float64) string {
		if v == nil {
			return ""
		}
		return number(*v)
	}
	local, stale, ramp := "", "", ""
	if p.LocalOnly != nil {
		local = strconv.FormatBool(*p.LocalOnly)
	}
	if p.StaleLimit != 0 {
		stale = p.StaleLimit.String()
	}
	if p.FailbackRamp != nil {
		ramp = p.FailbackRamp.String()
	}
	return []PolicyField{
		{"allowed", regionList(p.Allowed)},
		{"local_only", local},
		{"order_by", string(p.OrderBy)},
		{"order", regionList(p.Order)},
		{"min_healthy", numberOf(p.MinHealthy)},
		{"over_provisioning", numberOf(p.OverProvisioning)},
		{"spill_start", numberOf(p.SpillStart)},
		{"spill_stop", numberOf(p.SpillStop)},
		{"stale_limit", stale},
		{"failback_ramp", ramp},
		{"keep_warm", numberOf(p.KeepWarm)},
	}
}

// Differences returns the fields in which two policies differ, as "field: before -> after";
// "-" stands for one that is not set. nil is a policy that sets nothing.
func Differences(before, after *Policy) []string {
	if before == nil {
		before = &Policy{}
	}
	if after == nil {
		after = &Policy{}
	}
	var out []string
	a, b := before.Fields(), after.Fields()
	for i := range a {
		if a[i].Value != b[i].Value {
			out = append(out, fmt.Sprintf("%s: %s -> %s", a[i].Name, dash(a[i].Value), dash(b[i].Value)))
		}
	}
	return out
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func regionList(list []Region) string {
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = string(r)
	}
	return strings.Join(names, " ")
}

// number writes f as short as it reads back; NaN and the infinities by name.
func number(f float64) string {
	if math.IsNaN(f) {
		return "NaN"
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// Validate checks the body of a PUT for region own.
func (w *PolicyWrite) Validate(own Region) error {
	if err := checkText("note", w.Note, MaxNoteLength); err != nil {
		return err
	}
	return w.Policy.Validate(own)
}
