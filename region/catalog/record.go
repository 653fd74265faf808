package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/sdk/api"
)

const (
	instancePrefix  = "instances/"
	departurePrefix = "services/"
	// recordVersion is the newest form of a record that this version reads and writes.
	recordVersion = 1
	// usualRecord is what most records need, in bytes.
	usualRecord = 512
)

// InstanceRecordKey returns the store key of an instance.
func InstanceRecordKey(k api.InstanceKey) string {
	return instancePrefix + string(k.Namespace) + "/" + string(k.Service) + "/" + string(k.ID)
}

// DepartureRecordKey returns the store key of a service's last departure.
func DepartureRecordKey(k api.ServiceKey) string {
	return departurePrefix + string(k.Namespace) + "/" + string(k.Service)
}

// parseInstanceKey reads a key made by InstanceRecordKey.
func parseInstanceKey(key string) (api.InstanceKey, error) {
	rest, _ := strings.CutPrefix(key, instancePrefix)
	ns, rest, ok1 := strings.Cut(rest, "/")
	service, id, ok2 := strings.Cut(rest, "/")
	if !ok1 || !ok2 || !api.ValidLabel(ns) || !api.ValidLabel(service) || !api.ValidInstanceID(id) {
		return api.InstanceKey{}, fmt.Errorf("record key %s does not name an instance", api.Quote(key))
	}
	return api.InstanceKey{Namespace: api.Namespace(ns), Service: api.ServiceName(service), ID: api.InstanceID(id)}, nil
}

// parseDepartureKey reads a key made by DepartureRecordKey.
func parseDepartureKey(key string) (api.ServiceKey, error) {
	rest, _ := strings.CutPrefix(key, departurePrefix)
	ns, service, ok := strings.Cut(rest, "/")
	if !ok || !api.ValidLabel(ns) || !api.ValidLabel(service) {
		return api.ServiceKey{}, fmt.Errorf("record key %s does not name a service", api.Quote(key))
	}
	return api.ServiceKey{Namespace: api.Namespace(ns), Service: api.ServiceName(service)}, nil
}

// IsInstanceRecord reports whether the record of this key is an instance's.
func IsInstanceRecord(key string) bool { return strings.HasPrefix(key, instancePrefix) }

// DepartedService returns the service whose departure record has this key; false for every
// other key.
func DepartedService(key string) (api.ServiceKey, bool) {
	if !strings.HasPrefix(key, departurePrefix) {
		return api.ServiceKey{}, false
	}
	k, err := parseDepartureKey(key)
	return k, err == nil
}

// instanceRecord is the stored form of an instance. What the key or the record's place in
// history says (names, region, revision) is taken from there when reading.
type instanceRecord struct {
	V int `json:"v"`
	api.Instance
}

// EncodeInstance returns the record of an instance.
func EncodeInstance(i api.Instance) ([]byte, error) {
	i.Overdue = false // an observation of this node, not a fact about the instance
	i.Revision = 0    // known only after the commit
	b, err := encoded.AppendRecord(make([]byte, 0, usualRecord), recordVersion, &i)
	if err != nil {
		return nil, fmt.Errorf("encode instance %s: %w", i.Key(), err)
	}
	return b, nil
}

// DecodeInstance reads a record made by EncodeInstance. It refuses what could not have
// been registered, so that a damaged record never reaches a caller.
func DecodeInstance(key api.InstanceKey, region api.Region, revision uint64, value []byte) (*api.Instance, error) {
	var rec instanceRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return nil, fmt.Errorf("instance %s: %w", key, err)
	}
	if rec.V != recordVersion {
		return nil, fmt.Errorf("instance %s: the record has form %d, this version reads form %d", key, rec.V, recordVersion)
	}
	i := rec.Instance
	i.Namespace, i.Service, i.ID, i.Region = key.Namespace, key.Service, key.ID, region
	i.Revision, i.Overdue = revision, false
	weight := i.Weight
	reg := api.Registration{
		Address: i.Address, Port: i.Port, Ports: i.Ports, Zone: i.Zone, Weight: &weight, Capacity: i.Capacity,
		Version: i.Version, Tags: i.Tags, Metadata: i.Metadata, TTL: i.TTL, Checks: i.Checks,
	}
	if i.TTL == 0 && !i.Checked() {
		return nil, fmt.Errorf("instance %s: the record has no ttl", key)
	}
	if _, err := reg.Normalize(); err != nil {
		return nil, fmt.Errorf("instance %s: %w", key, err)
	}
	if !i.Status.Valid() {
		return nil, fmt.Errorf("instance %s: status %s is not known", key, api.Quote(string(i.Status)))
	}
	if i.Incarnation == 0 {
		return nil, fmt.Errorf("instance %s: the record has no incarnation", key)
	}
	for _, c := range i.CheckResults {
		if !c.Status.Valid() {
			return nil, fmt.Errorf("instance %s: check status %s is not known", key, api.Quote(string(c.Status)))
		}
	}
	for _, set := range []*api.SetStatus{i.Set, i.BeforeDrain} {
		if set != nil && !set.Status.Valid() {
			return nil, fmt.Errorf("instance %s: status %s is not known", key, api.Quote(string(set.Status)))
		}
	}
	return &i, nil
}

// departure is the stored form of a service's last departure.
type departure struct {
	V     int              `json:"v"`
	Cause api.Cause        `json:"cause"`
	IDs   []api.InstanceID `json:"ids"`
}

// EncodeDeparture returns the record that says why the instances with these ids leave
// their service in the same commit.
func EncodeDeparture(cause api.Cause, ids []api.InstanceID) ([]byte, error) {
	b, err := json.Marshal(departure{V: recordVersion, Cause: cause, IDs: ids})
	if err != nil {
		return nil, fmt.Errorf("encode departure: %w", err)
	}
	return b, nil
}

// JoinDepartures returns the record of two departures in one commit; false when they differ
// in their cause, which one record cannot tell.
func JoinDepartures(a, b []byte) ([]byte, bool) {
	// Both come from EncodeDeparture: they are alike up to the ids, and the ids come last.
	const ids, end = `"ids":[`, "]}"
	i, j := bytes.Index(a, []byte(ids)), bytes.Index(b, []byte(ids))
	if i < 0 || i != j || !bytes.Equal(a[:i], b[:i]) || !bytes.HasSuffix(a, []byte(end)) || !bytes.HasSuffix(b, []byte(end)) {
		return nil, false
	}
	out := make([]byte, 0, len(a)+len(b))
	out = append(out, a[:len(a)-len(end)]...)
	out = append(out, ',')
	return append(out, b[j+len(ids):]...), true
}

func decodeDeparture(value []byte) (departure, error) {
	var d departure
	if err := json.Unmarshal(value, &d); err != nil {
		return departure{}, err
	}
	if d.V != recordVersion {
		return departure{}, fmt.Errorf("the record has form %d, this version reads form %d", d.V, recordVersion)
	}
	return d, nil
}
