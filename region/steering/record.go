package steering

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	policyPrefix = "policies/"
	drainPrefix  = "drains/"
	// form is the newest form of a record that this version reads and writes.
	form = 1
)

// PolicyKey returns the store key of a policy, and DrainKey that of a drain.
func PolicyKey(k api.ServiceKey) string {
	return policyPrefix + string(k.Namespace) + "/" + string(k.Service)
}

// DrainKey returns the store key of the drain of a region.
func DrainKey(r api.Region) string { return drainPrefix + string(r) }

// Concerns reports whether a key is of a record of this package.
func Concerns(key string) bool {
	return strings.HasPrefix(key, policyPrefix) || strings.HasPrefix(key, drainPrefix)
}

type policyRecord struct {
	V       int        `json:"v"`
	Policy  api.Policy `json:"policy"`
	Version uint64     `json:"version"`
	Note    string     `json:"note,omitempty"`
	Actor   string     `json:"actor,omitempty"`
	Time    time.Time  `json:"time"`
}

type drainRecord struct {
	V int `json:"v"`
	Drain
}

func encodePolicy(p *api.PolicyRecord) ([]byte, error) {
	return json.Marshal(policyRecord{V: form, Policy: p.Policy, Version: p.Version, Note: p.Note, Actor: p.Actor, Time: p.Time})
}

func encodeDrain(d *Drain) ([]byte, error) { return json.Marshal(drainRecord{V: form, Drain: *d}) }

// parsePolicyKey returns what the key of a policy's record names.
func parsePolicyKey(key string) (api.ServiceKey, error) {
	rest := strings.TrimPrefix(key, policyPrefix)
	ns, service, _ := strings.Cut(rest, "/")
	if !api.ValidLabel(ns) || api.CheckPolicyService(service) != nil {
		return api.ServiceKey{}, fmt.Errorf("record key %s does not name a policy", api.Quote(key))
	}
	return api.ServiceKey{Namespace: api.Namespace(ns), Service: api.ServiceName(service)}, nil
}

func decodePolicy(rec store.Record, revision uint64) (*api.PolicyRecord, error) {
	key, err := parsePolicyKey(rec.Key)
	if err != nil {
		return nil, err
	}
	var p policyRecord
	if err := json.Unmarshal(rec.Value, &p); err != nil {
		return nil, err
	}
	if p.V != form {
		return nil, fmt.Errorf("the record is of form %d; this version reads %d", p.V, form)
	}
	return &api.PolicyRecord{
		Namespace: key.Namespace, Service: key.Service, Policy: p.Policy, Revision: revision, Version: p.Version,
		Note: p.Note, Actor: p.Actor, Time: p.Time,
	}, nil
}

func decodeDrain(rec store.Record) (api.Region, *Drain, error) {
	region := strings.TrimPrefix(rec.Key, drainPrefix)
	if !api.ValidLabel(region) {
		return "", nil, fmt.Errorf("record key %s does not name a region", api.Quote(rec.Key))
	}
	var d drainRecord
	if err := json.Unmarshal(rec.Value, &d); err != nil {
		return "", nil, err
	}
	if d.V != form {
		return "", nil, fmt.Errorf("the record is of form %d; this version reads %d", d.V, form)
	}
	if d.At == nil || !(d.Percent >= 0 && d.Percent <= 100 && d.From >= 0 && d.From <= 100) || d.Over < 0 || d.Over.D() > api.MaxDrainOver || d.Steps > api.MaxDrainSteps {
		return "", nil, fmt.Errorf("the record has values that no drain has")
	}
	return api.Region(region), &d.Drain, nil
}
