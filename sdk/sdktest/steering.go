package sdktest

import (
	"fmt"
	"slices"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// policyLocked returns what is in force for a service; nil = nothing is set.
func (r *Region) policyLocked(key api.ServiceKey) *api.Policy {
	def := r.policies[api.ServiceKey{Namespace: key.Namespace, Service: api.PolicyDefault}]
	own := r.policies[key]
	switch {
	case own == nil && def == nil:
		return nil
	case own == nil || own == def:
		return &def.Policy
	case def == nil:
		return &own.Policy
	}
	merged := own.Policy.Over(&def.Policy)
	return &merged
}

// putPolicyLocked sets a policy. want, when not nil, is the revision that it must be at.
func (r *Region) putPolicyLocked(key api.ServiceKey, w api.PolicyWrite, want *uint64) (out api.PolicyWritten, created bool, err error) {
	if err := w.Validate(r.name); err != nil {
		return out, false, err
	}
	cur := r.policies[key]
	if err := at(key, cur, want); err != nil {
		return out, false, err
	}
	if err := r.fitsLocked(key, &w.Policy); err != nil {
		return out, false, err
	}
	next := api.PolicyRecord{
		Namespace: key.Namespace, Service: key.Service, Policy: w.Policy, Version: 1, Note: w.Note, Time: time.Now().UTC().Truncate(time.Millisecond),
	}
	switch {
	case cur != nil && cur.Note == w.Note && len(api.Differences(&cur.Policy, &w.Policy)) == 0:
		next = *cur
	default:
		if cur != nil {
			next.Version = cur.Version + 1
		}
		r.revision++
		next.Revision = r.revision
		r.policies[key] = &next
		r.w.spreadLocked(r)
	}
	out.PolicyRecord = next
	for _, list := range []struct {
		name    string
		regions []api.Region
	}{{"allowed", w.Allowed}, {"order", w.Order}} {
		for _, name := range list.regions {
			if r.w.regions[name] == nil {
				out.Warnings = append(out.Warnings, fmt.Sprintf("%s names region %s, which is not known here", list.name, name))
			}
		}
	}
	return out, cur == nil, nil
}

// fitsLocked refuses a policy that contradicts the default, or a default that contradicts a policy.
func (r *Region) fitsLocked(key api.ServiceKey, p *api.Policy) error {
	if key.Service != api.PolicyDefault {
		var def *api.Policy
		if d := r.policies[api.ServiceKey{Namespace: key.Namespace, Service: api.PolicyDefault}]; d != nil {
			def = &d.Policy
		}
		return p.ValidateOver(def, r.name)
	}
	for _, other := range r.policiesLocked(key.Namespace) {
		if other.Service == api.PolicyDefault {
			continue
		}
		if err := other.Policy.ValidateOver(p, r.name); err != nil {
			return err
		}
	}
	return nil
}

// policiesLocked returns the policies of a namespace, the default first.
func (r *Region) policiesLocked(ns api.Namespace) []api.PolicyRecord {
	list := []api.PolicyRecord{}
	for k, p := range r.policies {
		if k.Namespace == ns {
			list = append(list, *p)
		}
	}
	slices.SortFunc(list, func(a, b api.PolicyRecord) int {
		if a.Service < b.Service { // '*' sorts before any name
			return -1
		}
		return 1
	})
	return list
}

func (r *Region) deletePolicyLocked(key api.ServiceKey, want *uint64) error {
	cur := r.policies[key]
	if err := at(key, cur, want); err != nil {
		return err
	}
	if cur == nil {
		return noPolicy(key)
	}
	delete(r.policies, key)
	r.revision++
	r.w.spreadLocked(r)
	return nil
}

func noPolicy(key api.ServiceKey) error {
	return &api.Error{
		Code: api.CodePolicyNotFound, Detail: fmt.Sprintf("service %s has no policy of its own", api.Quote(key.String())),
		Remedy: "?effective=true tells what is in force; GET /v1/policies lists the policies that there are",
	}
}

// at checks the revision that a policy is to be at; nil = any.
func at(key api.ServiceKey, cur *api.PolicyRecord, want *uint64) error {
	now := uint64(0)
	if cur != nil {
		now = cur.Revision
	}
	if want == nil || *want == now {
		return nil
	}
	return &api.Error{
		Code: api.CodeConflict, Field: "if_revision", Revision: &now,
		Detail: fmt.Sprintf("the policy for %s is at revision %d (0 = there is none), not %d", api.Quote(key.String()), now, *want),
		Remedy: "read it again, and write with if_revision and its revision",
	}
}

// drainedLocked returns what the region itself decided about a region.
func (r *Region) drainedLocked(region api.Region) float64 {
	if d := r.drains[region]; d != nil {
		return d.Percent
	}
	return 0
}

// drainLocked has the region's callers leave a region, at once.
func (r *Region) drainLocked(region api.Region, req api.DrainRequest) (api.RegionDrain, error) {
	if err := r.knows(region); err != nil {
		return api.RegionDrain{}, err
	}
	if req.Over != 0 || req.At != nil || req.Until != nil || req.Abort != nil {
		return api.RegionDrain{}, &api.Error{
			Code: api.CodeUnsupported, Detail: "sdktest drains at once and until it is undone", Remedy: "send percent alone",
		}
	}
	req, err := req.Normalize(time.Now())
	if err != nil {
		return api.RegionDrain{}, err
	}
	from := r.drainedLocked(region)
	if d := r.drains[region]; d == nil || d.Percent != req.Percent || d.Note != req.Note {
		r.revision++
		r.drains[region] = &api.RegionDrain{Region: region, By: r.name, DrainRequest: req, From: from, Started: *req.At, Revision: r.revision}
		r.w.spreadLocked(r)
	}
	return r.drainShownLocked(region), nil
}

func (r *Region) undrainRegionLocked(region api.Region) (api.RegionDrain, error) {
	if err := r.knows(region); err != nil {
		return api.RegionDrain{}, err
	}
	if d := r.drains[region]; d != nil && d.Percent > 0 {
		if _, err := r.drainLocked(region, api.DrainRequest{}); err != nil {
			return api.RegionDrain{}, err
		}
		r.drains[region].Why = "undone on request"
	}
	return r.drainShownLocked(region), nil
}

func (r *Region) knows(region api.Region) error {
	if err := api.CheckRegion(string(region)); err != nil {
		return err
	}
	if r.w.regions[region] == nil {
		return noRegion(region)
	}
	return nil
}

func noRegion(region api.Region) error {
	return &api.Error{
		Code: api.CodeRegionNotFound, Detail: fmt.Sprintf("region %s is not known here", api.Quote(string(region))), Remedy: "GET /v1/regions lists the regions",
	}
}

// drainShownLocked returns where the drain of a region stands.
func (r *Region) drainShownLocked(region api.Region) api.RegionDrain {
	wish := 0.0
	if rep := r.far[region]; rep != nil {
		wish = rep.wish
	}
	d := r.drains[region]
	if d == nil || d.Percent == 0 && wish > 0 {
		out := api.RegionDrain{Region: region, By: r.name, State: api.DrainEnded, Why: "nothing was ever drained here", Effective: wish}
		if wish > 0 {
			out.By, out.Percent, out.Now, out.State = region, wish, wish, api.DrainHolding
			out.Why = string(region) + "'s own wish"
		}
		return out
	}
	out := *d
	out.Now, out.State, out.Effective = d.Percent, api.DrainHolding, max(d.Percent, wish)
	if d.Percent == 0 {
		out.State = api.DrainEnded
	}
	return out
}
