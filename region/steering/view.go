package steering

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// View is every policy and drain of the region at one revision. It never changes.
type View struct {
	policies map[api.ServiceKey]*api.PolicyRecord
	// merged is each policy over its namespace's default; of the default it is the default.
	merged map[api.ServiceKey]*api.Policy
	drains map[api.Region]*heldDrain
	// broken are the revisions of records that cannot be read, by store key: writing them again
	// is guarded by these.
	broken map[string]uint64
}

type heldDrain struct {
	Drain
	revision uint64
}

// Broken is a record that cannot be read.
type Broken struct {
	Key string
	Err error
}

// Load returns the view of the records of the whole store.
func Load(records []store.Record) (*View, []Broken) {
	v := &View{}
	v = v.edit()
	var broken []Broken
	for _, rec := range records {
		if err := v.put(rec, rec.Revision); err != nil {
			broken = append(broken, Broken{rec.Key, err})
		}
	}
	v.merge()
	return v, broken
}

// Apply returns the view after a commit, and what of it this package has records of.
func (v *View) Apply(b store.Batch) (*View, []Broken) {
	next := v.edit()
	var broken []Broken
	for _, ev := range b.Events {
		if !ev.Delete {
			if err := next.put(ev.Record, b.Revision); err != nil {
				broken = append(broken, Broken{ev.Record.Key, err})
			}
			continue
		}
		next.remove(ev.Record.Key)
	}
	next.merge()
	return next, broken
}

func concerns(b store.Batch) bool {
	return slices.ContainsFunc(b.Events, func(ev store.Event) bool { return Concerns(ev.Record.Key) })
}

func (v *View) edit() *View {
	next := &View{policies: maps.Clone(v.policies), drains: maps.Clone(v.drains), broken: maps.Clone(v.broken)}
	if next.policies == nil {
		next.policies, next.drains, next.broken = map[api.ServiceKey]*api.PolicyRecord{}, map[api.Region]*heldDrain{}, map[string]uint64{}
	}
	return next
}

func (v *View) put(rec store.Record, revision uint64) error {
	if !Concerns(rec.Key) {
		return nil
	}
	v.remove(rec.Key)
	if strings.HasPrefix(rec.Key, policyPrefix) {
		p, err := decodePolicy(rec, revision)
		if err != nil {
			v.broken[rec.Key] = revision
			return err
		}
		v.policies[api.ServiceKey{Namespace: p.Namespace, Service: p.Service}] = p
		return nil
	}
	region, d, err := decodeDrain(rec)
	if err != nil {
		v.broken[rec.Key] = revision
		return err
	}
	v.drains[region] = &heldDrain{*d, revision}
	return nil
}

func (v *View) remove(key string) {
	delete(v.broken, key)
	if region, ok := strings.CutPrefix(key, drainPrefix); ok {
		delete(v.drains, api.Region(region))
	} else if strings.HasPrefix(key, policyPrefix) {
		if k, err := parsePolicyKey(key); err == nil {
			delete(v.policies, k)
		}
	}
}

// merge works out what is in force.
func (v *View) merge() {
	v.merged = make(map[api.ServiceKey]*api.Policy, len(v.policies))
	for k, p := range v.policies {
		if k.Service == api.PolicyDefault {
			v.merged[k] = &p.Policy
			continue
		}
		out := p.Policy.Over(v.defaultOf(k.Namespace))
		v.merged[k] = &out
	}
}

// defaultOf returns the default policy of a namespace, nil when none is set.
func (v *View) defaultOf(ns api.Namespace) *api.Policy {
	if p := v.policies[api.ServiceKey{Namespace: ns, Service: api.PolicyDefault}]; p != nil {
		return &p.Policy
	}
	return nil
}

// Policy returns what is in force for a service; nil = nothing is set.
func (v *View) Policy(k api.ServiceKey) *api.Policy {
	if p := v.merged[k]; p != nil {
		return p
	}
	return v.merged[api.ServiceKey{Namespace: k.Namespace, Service: api.PolicyDefault}]
}

// guard returns the revision that a write of a record must find: 0 = there is none.
func (v *View) guard(key string) uint64 {
	if revision, ok := v.broken[key]; ok {
		return revision
	}
	if region, ok := strings.CutPrefix(key, drainPrefix); ok {
		if d := v.drains[api.Region(region)]; d != nil {
			return d.revision
		}
		return 0
	}
	if k, err := parsePolicyKey(key); err == nil {
		if p := v.policies[k]; p != nil {
			return p.Revision
		}
	}
	return 0
}

// list returns the policies of a namespace, the default first ('*' sorts before any name).
func (v *View) list(ns api.Namespace) []*api.PolicyRecord {
	var out []*api.PolicyRecord
	for k, p := range v.policies {
		if k.Namespace == ns {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *api.PolicyRecord) int { return cmp.Compare(a.Service, b.Service) })
	return out
}
