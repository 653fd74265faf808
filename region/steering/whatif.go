package steering

import (
	"context"
	"errors"
	"slices"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// Bounds of the test of a default: services looked at, and told of.
const (
	maxLooked  = 2_000
	maxEffects = 100
)

// PolicyTrial asks what a policy would change.
type PolicyTrial struct {
	Namespace api.Namespace
	Service   api.ServiceName
	api.PolicyWrite
	Zone api.Zone // of the caller; may be empty
}

// TestPolicy validates a policy and tells what the answers would become, by the very function
// that makes them. Nothing is stored. It needs the right to read only.
func (t *Table) TestPolicy(ctx context.Context, q PolicyTrial) (api.PolicyTest, registry.Stamp, error) {
	out := api.PolicyTest{}
	key, err := t.begin(ctx, registry.VerbRead, q.Namespace, q.Service)
	if err != nil {
		return out, registry.Stamp{}, err
	}
	if err := q.Validate(t.region); err != nil {
		return out, registry.Stamp{}, err
	}
	st, err := t.cfg.Registry.Fresh(ctx, registry.ReadOptions{})
	if err != nil {
		return out, registry.Stamp{}, err
	}
	v := t.head.Load().view
	if err := t.fits(v, key, &q.Policy); err != nil {
		return out, registry.Stamp{}, err
	}
	next := v.with(key, &q.Policy)
	before, after := v.effective(key).Policy, next.effective(key).Policy
	out = api.PolicyTest{
		Region: t.region, Namespace: key.Namespace, Service: key.Service, Before: before, After: after,
		Changes: api.Differences(&before, &after), Warnings: t.warnings(&q.Policy), Decisions: []api.PolicyEffect{},
	}
	services := []api.ServiceName{key.Service}
	if key.Service == api.PolicyDefault {
		list, _, err := t.cfg.Registry.ListServices(ctx, registry.ServicesQuery{Namespace: key.Namespace})
		if err != nil {
			return out, st, err
		}
		services = services[:0]
		for _, s := range list.Services[:min(len(list.Services), maxLooked)] {
			services = append(services, s.Service)
		}
	}
	for _, s := range services {
		one := api.ServiceKey{Namespace: key.Namespace, Service: s}
		e, err := t.effect(ctx, one, q.Zone, v.Policy(one), next.Policy(one))
		if err != nil {
			return out, st, err
		}
		out.Looked++
		if key.Service != api.PolicyDefault || e.Changed && len(out.Decisions) < maxEffects {
			out.Decisions = append(out.Decisions, e)
		}
	}
	return out, st, nil
}

// with returns the view in which the policy of key is p.
func (v *View) with(key api.ServiceKey, p *api.Policy) *View {
	next := v.edit()
	next.policies[key] = &api.PolicyRecord{Namespace: key.Namespace, Service: key.Service, Policy: *p}
	next.merge()
	return next
}

func (t *Table) effect(ctx context.Context, key api.ServiceKey, zone api.Zone, before, after *api.Policy) (api.PolicyEffect, error) {
	e := api.PolicyEffect{Service: key.Service}
	q := registry.ResolveQuery{Namespace: key.Namespace, Service: key.Service, Zone: zone}
	var err error
	for _, side := range []struct {
		policy *api.Policy
		to     *api.Decision
	}{{before, &e.Before}, {after, &e.After}} {
		*side.to, err = t.cfg.Registry.ResolveUnder(ctx, q, side.policy)
		var refused *api.Error
		if errors.As(err, &refused) && refused.Code == api.CodeServiceNotFound {
			*side.to = api.Decision{Reason: api.ReasonServiceNotFound, Detail: refused.Detail, Tiers: []api.Tier{}}
		} else if err != nil {
			return e, err
		}
	}
	e.Changed = e.Before.Reason != e.After.Reason || !slices.Equal(e.Before.Tiers, e.After.Tiers)
	return e, nil
}
