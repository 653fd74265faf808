package replica

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"unique"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Entry is one row of a replica. Entries are immutable.
type Entry struct {
	// Hash is that of the body which the origin sent; it counts in the digest even when the
	// body could not be used.
	Hash summary.Hash
	sum  summary.Sum // of the same, for what is signed
	// Revision is the origin's revision of the row.
	Revision uint64
	// Summary is what readers get. It is nil when the row was never usable.
	Summary *api.Summary
	// Quarantined says why the newest body is not used; Summary is then the last good one.
	// One bad row must neither stop the others nor erase what was known.
	Quarantined string
	// raw is the body, kept only when it has fields that this version does not know, so that
	// writing it to disk loses nothing.
	raw json.RawMessage
	// size is that of the body; what an origin's rows take together is bounded.
	size int
}

// Body returns the bytes that the origin sent, nil for a quarantined row.
func (e *Entry) Body() json.RawMessage { return e.body() }

// body returns bytes whose hash is e.Hash, or nil for a quarantined row.
func (e *Entry) body() []byte {
	switch {
	case e.raw != nil:
		return e.raw
	case e.Summary == nil || e.Quarantined != "":
		return nil
	}
	b, _ := summary.Encode(e.Summary)
	return b
}

// readRow makes an entry of a row that origin sent. A body without a readable key is an
// error: there is no place to keep it. Any other fault yields a quarantined entry.
func readRow(origin api.Region, row Row) (api.ServiceKey, *Entry, error) {
	if why := large(row.Body); why != "" {
		return largeRow(row, why)
	}
	var s api.Summary
	var raw json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(row.Body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		s = api.Summary{}
		if err := json.Unmarshal(row.Body, &s); err != nil {
			return api.ServiceKey{}, nil, fmt.Errorf("%w: row: %s", ErrMalformed, cut(err.Error()))
		}
		raw = row.Body
	}
	key, err := ParseKey(FormatKey(s.Key()))
	if err != nil {
		return key, nil, err
	}
	e := &Entry{Hash: summary.HashOf(row.Body), sum: summary.SumOf(row.Body), Revision: row.Revision, raw: raw, size: len(row.Body)}
	if why := checkSummary(origin, &s); why != "" {
		e.Quarantined = why
		return key, e, nil
	}
	s.Revision = row.Revision
	share(origin, &s)
	e.Summary = &s
	return key, e, nil
}

// large says why a body is not even decoded, or "".
func large(body []byte) string {
	switch {
	case len(body) > MaxRowBytes:
		return fmt.Sprintf("%d bytes, %d are allowed", len(body), MaxRowBytes)
	case Wide(body, maxRowElements):
		return fmt.Sprintf("lists of over %d elements", maxRowElements)
	}
	return ""
}

// largeRow makes a quarantined entry, for which only the key is read.
func largeRow(row Row, why string) (api.ServiceKey, *Entry, error) {
	var k struct {
		Namespace api.Namespace   `json:"namespace"`
		Service   api.ServiceName `json:"service"`
	}
	if err := json.Unmarshal(row.Body, &k); err != nil {
		return api.ServiceKey{}, nil, fmt.Errorf("%w: row: %s", ErrMalformed, cut(err.Error()))
	}
	key, err := ParseKey(FormatKey(api.ServiceKey{Namespace: k.Namespace, Service: k.Service}))
	if err != nil {
		return key, nil, err
	}
	return key, &Entry{
		Hash: summary.HashOf(row.Body), sum: summary.SumOf(row.Body), Revision: row.Revision, size: len(row.Body), Quarantined: why,
	}, nil
}

// share makes a row refer to the one copy there is of what many rows say alike: it saves some 100
// bytes a row, and the collector a dozen objects.
func share(origin api.Region, s *api.Summary) {
	s.Namespace = once(s.Namespace)
	ShareEndpoints(origin, s.Endpoints)
}

// ShareEndpoints does that for endpoints of origin, which are nobody else's yet.
func ShareEndpoints(origin api.Region, endpoints []api.Endpoint) {
	for i := range endpoints {
		e := &endpoints[i]
		e.Region, e.Zone, e.Version, e.Status = origin, once(e.Zone), once(e.Version), once(e.Status)
	}
}

// once returns the one copy of a string.
func once[T ~string](s T) T { return T(unique.Make(string(s)).Value()) }

// checkSummary says what is wrong with a summary, or "". It keeps out what would do harm
// later: endpoints of another region, addresses that cannot be called, negative counts.
func checkSummary(origin api.Region, s *api.Summary) string {
	switch {
	case s.Total < 0 || s.Passing < 0 || s.Draining < 0 || s.Capacity < 0 || s.Passing > s.Total:
		return "counts do not add up"
	case len(s.Endpoints) > api.MaxFailoverSet:
		return fmt.Sprintf("%d endpoints, %d are allowed", len(s.Endpoints), api.MaxFailoverSet)
	case len(s.Zones) > summary.MaxZones:
		return fmt.Sprintf("%d zones, %d are allowed", len(s.Zones), summary.MaxZones)
	case len(s.Versions) > summary.MaxVersions:
		return "too many versions"
	case len(s.Flags) > api.MaxFlags || slices.ContainsFunc(s.Flags, func(f string) bool { return !api.ValidLabel(f) }):
		return "its flags are not valid"
	}
	for z, n := range s.Zones {
		if z != "" && !api.ValidLabel(string(z)) || n.Total < 0 || n.Passing < 0 {
			return "zone " + api.Quote(string(z)) + " is not valid"
		}
	}
	return CheckEndpoints(origin, s.Endpoints)
}

// CheckEndpoints says what is wrong with endpoints that origin sent of one service, or "".
func CheckEndpoints(origin api.Region, endpoints []api.Endpoint) string {
	seen := make(map[api.InstanceID]struct{}, len(endpoints))
	for i := range endpoints {
		e := &endpoints[i]
		if why := checkEndpoint(origin, e); why != "" {
			return "endpoint " + api.Quote(string(e.ID)) + ": " + why
		}
		if _, dup := seen[e.ID]; dup {
			return "endpoint " + api.Quote(string(e.ID)) + " is there twice"
		}
		seen[e.ID] = struct{}{}
	}
	return ""
}

// checkEndpoint holds an endpoint to the rules that its own region applied when it was
// registered.
func checkEndpoint(origin api.Region, e *api.Endpoint) string {
	switch {
	case e.Region != origin:
		return "it claims region " + api.Quote(string(e.Region))
	case !api.ValidInstanceID(string(e.ID)):
		return "its id is not valid"
	case !e.Status.Valid():
		return "status " + api.Quote(string(e.Status)) + " is not known"
	case e.Tier != 0:
		return "it has a tier"
	}
	weight := e.Weight
	_, err := api.Registration{
		Address: e.Address, Port: e.Port, Ports: e.Ports, Zone: e.Zone, Weight: &weight,
		Capacity: e.Capacity, Version: e.Version, Tags: e.Tags, Metadata: e.Metadata,
	}.Normalize()
	if err != nil {
		return cut(err.Error())
	}
	return ""
}
