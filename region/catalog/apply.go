package catalog

import (
	"maps"
	"slices"
	"strings"

	"github.com/nearside/nearside/region/encoded"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// Change is one change of one instance.
type Change struct {
	Revision uint64
	Op       api.Op
	Cause    api.Cause
	// Instance after a put; the last known one for a delete. Shared: do not change it.
	Instance *api.Instance
	// Encoded is where the change is kept as it is sent; nil for changes of a load.
	Encoded *encoded.Frame
}

// Key returns the service the change belongs to.
func (c *Change) Key() api.ServiceKey {
	return api.ServiceKey{Namespace: c.Instance.Namespace, Service: c.Instance.Service}
}

// Broken is a record that could not be read and was left out.
type Broken struct {
	Key string
	Err error
}

// Load builds the snapshot of a store's whole content. Orphans are the departure records
// of services without instances: they have no more use and may be deleted, guarded by
// their revision.
func Load(region api.Region, img store.Image) (s *Snapshot, orphans []store.Record, broken []Broken) {
	e := newEditor(Empty(api.Version{Region: region, Epoch: img.Epoch}))
	for _, rec := range img.Records {
		if strings.HasPrefix(rec.Key, instancePrefix) {
			e.put(rec, nil)
		}
	}
	for _, rec := range img.Records {
		if !strings.HasPrefix(rec.Key, departurePrefix) {
			continue
		}
		key, _, err := readDeparture(rec)
		if err != nil {
			e.report(rec.Key, err)
		}
		if key == (api.ServiceKey{}) {
			continue
		}
		if !e.raise(key, rec.Revision) {
			orphans = append(orphans, rec)
		}
	}
	for recordKey, revision := range e.s.broken {
		if key, err := parseInstanceKey(recordKey); err == nil {
			e.raise(key.ServiceKey(), revision)
		}
	}
	e.s.version.Revision = img.Revision
	return e.finish(), orphans, e.reports
}

// Apply returns the snapshot after b, and what changed, in key order. s itself stays as it
// is. A batch that s already contains changes nothing. Records that cannot be read are
// left out and reported; an instance whose record became unreadable counts as deleted.
func (s *Snapshot) Apply(b store.Batch) (*Snapshot, []Change, []Broken) {
	return s.ApplyKnown(b, nil)
}

// ApplyKnown is Apply with a function that may know what the record of a key says: it then
// returns an instance of its own, as DecodeInstance would but for the revision, else nil.
func (s *Snapshot) ApplyKnown(b store.Batch, known func(key string, value []byte) *api.Instance) (*Snapshot, []Change, []Broken) {
	if b.Revision <= s.version.Revision {
		return s, nil, nil
	}
	e := newEditor(s)
	e.known = known
	e.s.version.Revision = b.Revision
	causes := map[api.InstanceKey]api.Cause{}
	for _, ev := range b.Events {
		if ev.Delete || !strings.HasPrefix(ev.Record.Key, departurePrefix) {
			continue
		}
		key, d, err := readDeparture(ev.Record)
		if err != nil {
			e.report(ev.Record.Key, err)
		}
		for _, id := range d.IDs {
			causes[api.InstanceKey{Namespace: key.Namespace, Service: key.Service, ID: id}] = d.Cause
		}
	}
	for _, ev := range b.Events {
		switch {
		case !strings.HasPrefix(ev.Record.Key, instancePrefix):
		case ev.Delete:
			e.remove(ev.Record, causes)
		default:
			rec := ev.Record
			rec.Revision = b.Revision
			e.put(rec, causes)
		}
	}
	frames := make([]encoded.Frame, len(e.changes))
	for i := range e.changes {
		e.changes[i].Encoded = &frames[i]
	}
	return e.finish(), e.changes, e.reports
}

func readDeparture(rec store.Record) (api.ServiceKey, departure, error) {
	key, err := parseDepartureKey(rec.Key)
	if err != nil {
		return api.ServiceKey{}, departure{}, err
	}
	d, err := decodeDeparture(rec.Value)
	return key, d, err
}

// editor is a snapshot being made: it copies a part the first time it touches it.
type editor struct {
	s       *Snapshot
	shards  map[uint32]bool
	touched map[*service]bool // services made by this editor, which may be changed in place
	counts  map[api.Status]int
	changes []Change
	reports []Broken
	known   func(key string, value []byte) *api.Instance // may be nil
	// ownBroken tells that s.broken is a copy of this editor's.
	ownBroken bool
}

func newEditor(from *Snapshot) *editor {
	c := *from
	e := &editor{s: &c, shards: map[uint32]bool{}, touched: map[*service]bool{}, counts: maps.Clone(from.counts.ByStatus)}
	if e.counts == nil {
		e.counts = map[api.Status]int{}
	}
	return e
}

func (e *editor) finish() *Snapshot {
	e.s.counts.ByStatus = e.counts
	return e.s
}

func (e *editor) report(key string, err error) {
	e.reports = append(e.reports, Broken{Key: key, Err: err})
}

// service returns the service for changing, made when it is new.
func (e *editor) service(key api.ServiceKey) *service {
	n := shardOf(key)
	if !e.shards[n] {
		m := make(map[api.ServiceKey]*service, len(e.s.shards[n])+1)
		maps.Copy(m, e.s.shards[n])
		e.s.shards[n] = m
		e.shards[n] = true
	}
	old := e.s.shards[n][key]
	if old != nil && e.touched[old] {
		return old
	}
	sv := &service{}
	if old != nil {
		sv.instances, sv.revision = slices.Clone(old.instances), old.revision
	} else {
		e.s.services++
	}
	e.s.shards[n][key] = sv
	e.touched[sv] = true
	return sv
}

// raise moves the revision of a service forward; false when there is no such service.
func (e *editor) raise(key api.ServiceKey, revision uint64) bool {
	if e.s.shards[shardOf(key)][key] == nil {
		return false
	}
	sv := e.service(key)
	sv.revision = max(sv.revision, revision)
	return true
}

func (e *editor) put(rec store.Record, causes map[api.InstanceKey]api.Cause) {
	key, err := parseInstanceKey(rec.Key)
	if err != nil {
		e.report(rec.Key, err)
		return
	}
	in, err := e.read(key, rec)
	if err != nil {
		e.report(rec.Key, err)
		e.remove(rec, causes)
		e.setBroken(rec.Key, rec.Revision)
		e.raise(key.ServiceKey(), rec.Revision)
		return
	}
	e.setBroken(rec.Key, 0)
	sv := e.service(key.ServiceKey())
	sv.revision = max(sv.revision, rec.Revision)
	cause := api.CauseRegister
	if i, ok := search(sv.instances, in.ID); ok {
		old := sv.instances[i]
		cause = causeOf(old, in)
		e.count(old.Status, -1)
		sv.instances[i] = in
	} else {
		sv.instances = slices.Insert(sv.instances, i, in)
	}
	e.count(in.Status, 1)
	e.changes = append(e.changes, Change{Revision: rec.Revision, Op: api.OpPut, Cause: cause, Instance: in})
}

func (e *editor) read(key api.InstanceKey, rec store.Record) (*api.Instance, error) {
	if e.known != nil {
		if in := e.known(rec.Key, rec.Value); in != nil && in.Region == e.s.version.Region {
			in.Revision = rec.Revision
			return in, nil
		}
	}
	return DecodeInstance(key, e.s.version.Region, rec.Revision, rec.Value)
}

func (e *editor) remove(rec store.Record, causes map[api.InstanceKey]api.Cause) {
	key, err := parseInstanceKey(rec.Key)
	if err != nil {
		return
	}
	e.setBroken(rec.Key, 0)
	if e.s.Instance(key) == nil {
		return
	}
	sv := e.service(key.ServiceKey())
	i, _ := search(sv.instances, key.ID)
	old := sv.instances[i]
	sv.instances = slices.Delete(sv.instances, i, i+1)
	sv.revision = e.s.version.Revision
	e.count(old.Status, -1)
	if len(sv.instances) == 0 {
		delete(e.s.shards[shardOf(key.ServiceKey())], key.ServiceKey())
		e.s.services--
	}
	cause := causes[key]
	if cause == "" {
		cause = api.CauseUnknown
	}
	e.changes = append(e.changes, Change{Revision: e.s.version.Revision, Op: api.OpDelete, Cause: cause, Instance: old})
}

func (e *editor) count(s api.Status, n int) {
	e.s.counts.Total += n
	if e.counts[s] += n; e.counts[s] == 0 {
		delete(e.counts, s)
	}
}

func (e *editor) setBroken(key string, revision uint64) {
	if _, ok := e.s.broken[key]; !ok && revision == 0 {
		return
	}
	if !e.ownBroken {
		e.s.broken = maps.Clone(e.s.broken)
		if e.s.broken == nil {
			e.s.broken = map[string]uint64{}
		}
		e.ownBroken = true
	}
	if revision == 0 {
		delete(e.s.broken, key)
	} else {
		e.s.broken[key] = revision
	}
}

// causeOf tells a status change from a registration: it alone leaves the rest as it was.
func causeOf(old, in *api.Instance) api.Cause {
	if sameStatus(old, in) || old.Incarnation != in.Incarnation || !SameContent(old, in) {
		return api.CauseRegister
	}
	return api.CauseStatus
}

// sameStatus reports whether two records of one instance say the same of its health.
func sameStatus(a, b *api.Instance) bool {
	return a.Status == b.Status && a.StatusNote == b.StatusNote && a.StatusSince.Equal(b.StatusSince) &&
		SameResults(a.CheckResults, b.CheckResults) && SameSet(a.Set, b.Set) && SameSet(a.BeforeDrain, b.BeforeDrain)
}

// SameSet reports whether two statuses set by hand are the same.
func SameSet(a, b *api.SetStatus) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// SameResults reports whether the checks' verdicts are the same; when they last ran, and
// how that went, does not count.
func SameResults(a, b []api.CheckResult) bool {
	return slices.EqualFunc(a, b, func(x, y api.CheckResult) bool {
		return x.Name == y.Name && x.Role == y.Role && x.Status == y.Status && x.Note == y.Note && x.Since.Equal(y.Since)
	})
}

// SameContent reports whether two records of one instance say the same but for status,
// incarnation, times and revision.
func SameContent(a, b *api.Instance) bool {
	return a.Zone == b.Zone && a.Address == b.Address && a.Port == b.Port && maps.Equal(a.Ports, b.Ports) &&
		a.Weight == b.Weight && a.Capacity == b.Capacity && a.Version == b.Version &&
		slices.Equal(a.Tags, b.Tags) && maps.Equal(a.Metadata, b.Metadata) && a.TTL == b.TTL &&
		slices.Equal(a.Checks, b.Checks)
}
