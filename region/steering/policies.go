package steering

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// PolicyQuery asks for the policy for one service; api.PolicyDefault is the default. An empty
// Namespace is the default one.
type PolicyQuery struct {
	Namespace api.Namespace
	Service   api.ServiceName
	Effective bool // merged with the default, also when there is none of its own
	registry.ReadOptions
}

// PoliciesQuery asks for the policies of a namespace.
type PoliciesQuery struct {
	Namespace api.Namespace
	Effective bool
	Limit     int    // 0 = api.DefaultListLimit; more than api.MaxListLimit is cut to it
	Cursor    string // of the page before
	registry.ReadOptions
}

// PolicyPut sets the policy for a service.
type PolicyPut struct {
	Namespace api.Namespace
	Service   api.ServiceName
	api.PolicyWrite
	// If, when not nil, is the revision that the policy must be at: 0 = there must be none.
	If *uint64
}

// PolicyDelete deletes the policy for a service, when If is given only at that revision.
type PolicyDelete struct {
	Namespace api.Namespace
	Service   api.ServiceName
	If        *uint64
}

// GetPolicy returns the policy for a service; CodePolicyNotFound when it has none of its own and
// the effective one is not asked for.
func (t *Table) GetPolicy(ctx context.Context, q PolicyQuery) (api.PolicyRecord, registry.Stamp, error) {
	key, err := t.begin(ctx, registry.VerbRead, q.Namespace, q.Service)
	if err != nil {
		return api.PolicyRecord{}, registry.Stamp{}, err
	}
	st, err := t.cfg.Registry.Fresh(ctx, q.ReadOptions)
	if err != nil {
		return api.PolicyRecord{}, registry.Stamp{}, err
	}
	h := t.head.Load() // at the stamp's revision or later
	st.Version = h.version
	p := h.view.policies[key]
	switch {
	case q.Effective:
		return h.view.effective(key), st, nil
	case p == nil:
		return api.PolicyRecord{}, registry.Stamp{}, registry.OrNotInCopy(st, policyNotFound(key))
	}
	return *p, st, nil
}

// effective returns the record of a service with what is in force in it.
func (v *View) effective(key api.ServiceKey) api.PolicyRecord {
	out := api.PolicyRecord{Namespace: key.Namespace, Service: key.Service}
	if p := v.policies[key]; p != nil {
		out = *p
	}
	if p := v.Policy(key); p != nil {
		out.Policy = *p
	}
	return out
}

// ListPolicies returns a page of the policies of a namespace, the default first.
func (t *Table) ListPolicies(ctx context.Context, q PoliciesQuery) (api.PolicyList, registry.Stamp, error) {
	ns := orDefault(q.Namespace)
	if err := t.cfg.Registry.Authorize(ctx, registry.Access{Verb: registry.VerbRead, Namespace: ns}); err != nil {
		return api.PolicyList{}, registry.Stamp{}, err
	}
	if err := api.CheckNamespace(string(ns)); err != nil {
		return api.PolicyList{}, registry.Stamp{}, err
	}
	if q.Cursor != "" && api.CheckPolicyService(q.Cursor) != nil {
		return api.PolicyList{}, registry.Stamp{}, &api.Error{
			Code: api.CodeInvalidRequest, Field: "cursor", Detail: "the cursor is not one of ours", Remedy: "use the cursor of the page before, or none",
		}
	}
	st, err := t.cfg.Registry.Fresh(ctx, q.ReadOptions)
	if err != nil {
		return api.PolicyList{}, registry.Stamp{}, err
	}
	h := t.head.Load()
	st.Version = h.version
	limit := q.Limit
	if limit <= 0 {
		limit = api.DefaultListLimit
	}
	limit = min(limit, api.MaxListLimit)
	out := api.PolicyList{Region: t.region, Namespace: ns, Policies: []api.PolicyRecord{}}
	for _, p := range h.view.list(ns) {
		if string(p.Service) <= q.Cursor {
			continue
		}
		if n := len(out.Policies); n == limit {
			out.Cursor = string(out.Policies[n-1].Service)
			break
		}
		record := *p
		if q.Effective {
			record.Policy = *h.view.merged[api.ServiceKey{Namespace: ns, Service: p.Service}]
		}
		out.Policies = append(out.Policies, record)
	}
	return out, st, nil
}

// PutPolicy sets the policy for a service, as a whole; created tells that there was none. It is
// in force on this node once this returns, and on the others as soon as their watch shows it. The
// same policy and note as there is writes nothing, so repeating is safe. With If it is refused
// with CodeConflict, which carries the present revision, when the policy is at another one.
func (t *Table) PutPolicy(ctx context.Context, q PolicyPut) (out api.PolicyWritten, created bool, err error) {
	key, err := t.begin(ctx, registry.VerbPolicy, q.Namespace, q.Service)
	if err != nil {
		return out, false, err
	}
	if err := q.Validate(t.region); err != nil {
		return out, false, err
	}
	if b, err := json.Marshal(q.PolicyWrite); err != nil || len(b) > api.MaxPolicyBytes {
		return out, false, &api.Error{
			Code: api.CodeBodyTooLarge, Detail: fmt.Sprintf("the policy has more than %d bytes", api.MaxPolicyBytes), Remedy: "list fewer regions; GET /v1/limits lists the limits",
		}
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	var next api.PolicyRecord
	revision, err := t.write(ctx, func(v *View) ([]store.Op, error) {
		cur := v.policies[key]
		if err := checkRevision(key, cur, q.If); err != nil {
			return nil, err
		}
		created = cur == nil
		if cur != nil && cur.Note == q.Note && len(api.Differences(&cur.Policy, &q.Policy)) == 0 {
			next = *cur
			return nil, nil
		}
		if err := t.fits(v, key, &q.Policy); err != nil {
			return nil, err
		}
		if cur == nil && len(v.policies) >= api.MaxPolicies {
			return nil, &api.Error{
				Code: api.CodeStorageFull, Detail: fmt.Sprintf("the region keeps at most %d policies, and this would be more", api.MaxPolicies),
				Remedy: "delete policies that are not needed, or say it in the namespace's default (service *)",
			}
		}
		next = api.PolicyRecord{
			Namespace: key.Namespace, Service: key.Service, Policy: q.Policy, Version: 1, Note: q.Note, Actor: registry.ActorOf(ctx), Time: now,
		}
		if cur != nil {
			next.Version = cur.Version + 1
		}
		value, err := encodePolicy(&next)
		if err != nil {
			return nil, err
		}
		return []store.Op{{Key: PolicyKey(key), Value: value, Guarded: true, If: v.guard(PolicyKey(key))}}, nil
	})
	if err != nil {
		return out, false, err
	}
	if revision != 0 {
		next.Revision = revision
		t.log.Debug("policy set", "policy", key.String(), "revision", revision, "version", next.Version)
	}
	return api.PolicyWritten{PolicyRecord: next, Warnings: t.warnings(&q.Policy)}, created, nil
}

// fits refuses a policy that contradicts the default, or a default that contradicts a policy.
func (t *Table) fits(v *View, key api.ServiceKey, p *api.Policy) error {
	if key.Service != api.PolicyDefault {
		return p.ValidateOver(v.defaultOf(key.Namespace), t.region)
	}
	if err := p.ValidateOver(nil, t.region); err != nil {
		return err
	}
	for _, other := range v.list(key.Namespace) {
		if other.Service == api.PolicyDefault {
			continue
		}
		if err := other.Policy.ValidateOver(p, t.region); err != nil {
			e := *err.(*api.Error) //nolint:errorlint // ValidateOver returns nothing else
			e.Detail = fmt.Sprintf("the policy for service %s and this default contradict each other: %s", other.Service, e.Detail)
			e.Remedy = "change that policy first, or this default"
			return &e
		}
	}
	return nil
}

// DeletePolicy removes the policy for a service, which then goes by the default;
// CodePolicyNotFound when there is none, CodeConflict as for PutPolicy.
func (t *Table) DeletePolicy(ctx context.Context, q PolicyDelete) (revision uint64, err error) {
	key, err := t.begin(ctx, registry.VerbPolicy, q.Namespace, q.Service)
	if err != nil {
		return 0, err
	}
	return t.write(ctx, func(v *View) ([]store.Op, error) {
		cur := v.policies[key]
		if err := checkRevision(key, cur, q.If); err != nil {
			return nil, err
		}
		guard := v.guard(PolicyKey(key))
		if guard == 0 {
			return nil, policyNotFound(key)
		}
		return []store.Op{{Delete: true, Key: PolicyKey(key), Guarded: true, If: guard}}, nil
	})
}

// write commits what decide returns for the present view. A refusal for what there is is
// confirmed with the store first: another node may have written it a moment ago.
func (t *Table) write(ctx context.Context, decide func(v *View) ([]store.Op, error)) (uint64, error) {
	once := func() ([]store.Op, error) { return decide(t.head.Load().view) }
	revision, err := t.cfg.Registry.Write(ctx, once)
	switch api.CodeOf(err) {
	case api.CodeConflict, api.CodePolicyNotFound:
	default:
		return revision, err
	}
	if _, err := t.cfg.Registry.Fresh(ctx, registry.ReadOptions{Strong: true}); err != nil {
		return 0, err
	}
	return t.cfg.Registry.Write(ctx, once)
}

// begin is the common start of the use cases of one policy.
func (t *Table) begin(ctx context.Context, verb registry.Verb, ns api.Namespace, service api.ServiceName) (api.ServiceKey, error) {
	key := api.ServiceKey{Namespace: orDefault(ns), Service: service}
	if err := t.cfg.Registry.Authorize(ctx, registry.Access{Verb: verb, Namespace: key.Namespace, Service: service}); err != nil {
		return key, err
	}
	if err := api.CheckNamespace(string(key.Namespace)); err != nil {
		return key, err
	}
	return key, api.CheckPolicyService(string(service))
}

// warnings names regions that nobody here knows: a typing error looks like a region to come.
func (t *Table) warnings(p *api.Policy) []string {
	known := []api.Region{t.region}
	for _, o := range t.cfg.Registry.Wishes() {
		known = append(known, o.Region)
	}
	var out []string
	for _, list := range []struct {
		name    string
		regions []api.Region
	}{{"allowed", p.Allowed}, {"order", p.Order}} {
		for _, r := range list.regions {
			if !slices.Contains(known, r) {
				out = append(out, fmt.Sprintf("%s names region %s, which is not known here", list.name, r))
			}
		}
	}
	return out
}

func orDefault(ns api.Namespace) api.Namespace {
	if ns == "" {
		return api.DefaultNamespace
	}
	return ns
}

func policyNotFound(key api.ServiceKey) error {
	if key.Service == api.PolicyDefault {
		return &api.Error{
			Code: api.CodePolicyNotFound, Detail: fmt.Sprintf("namespace %s has no default policy", key.Namespace), Remedy: "GET /v1/policies lists the policies that there are",
		}
	}
	return &api.Error{
		Code: api.CodePolicyNotFound, Detail: fmt.Sprintf("service %s has no policy of its own", api.Quote(key.String())),
		Remedy: "?effective=true tells what is in force; GET /v1/policies lists the policies that there are",
	}
}

func checkRevision(key api.ServiceKey, cur *api.PolicyRecord, want *uint64) error {
	at := uint64(0)
	if cur != nil {
		at = cur.Revision
	}
	if want == nil || *want == at {
		return nil
	}
	e := &api.Error{Code: api.CodeConflict, Field: "if_revision", Revision: &at}
	switch {
	case *want == 0:
		e.Detail = fmt.Sprintf("there is a policy for %s already, at revision %d", api.Quote(key.String()), at)
		e.Remedy = "read it, then write with if_revision and its revision"
	case at == 0:
		e.Detail = fmt.Sprintf("there is no policy for %s (any more); it was to be at revision %d", api.Quote(key.String()), *want)
		e.Remedy = "set it with if_revision=0, if it is wanted still"
	default:
		e.Detail = fmt.Sprintf("the policy for %s is at revision %d, not %d", api.Quote(key.String()), at, *want)
		e.Remedy = "read it again, and write with if_revision and its revision"
	}
	return e
}
