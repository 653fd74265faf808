package sdktest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// record is an instance, and what the registry knows of its life.
type record struct {
	in    *api.Instance // never changes; replaced
	heard time.Time     // the last sign of life
	kept  bool          // the test's own: needs no heartbeat
	told  told          // of its load
	timer *time.Timer   // of the eviction; nil = none
}

func (rec *record) stop() {
	if rec.timer != nil {
		rec.timer.Stop()
		rec.timer = nil
	}
}

// deadline returns when the instance is overdue; zero = never.
func (rec *record) deadline() time.Time {
	if rec.kept || rec.in.TTL == 0 {
		return time.Time{}
	}
	return rec.heard.Add(rec.in.TTL.D() + api.DeadlineGrace)
}

func (rec *record) overdue(now time.Time) bool {
	d := rec.deadline()
	return !d.IsZero() && now.After(d)
}

// change is one step of the history.
type change struct {
	revision uint64
	op       api.Op
	cause    api.Cause
	in       *api.Instance
}

// maxHistory bounds the changes that are remembered.
const maxHistory = 100_000

// storeLocked makes next the record of its instance; heard is left to the caller.
func (r *Region) storeLocked(rec *record, next api.Instance) {
	cause := api.CauseRegister
	if rec.in != nil && rec.in.Incarnation == next.Incarnation && alike(withStatusOf(*rec.in, &next), next) {
		cause = api.CauseStatus
	}
	r.revision++
	next.Revision = r.revision
	rec.in = &next
	r.records[next.Key()] = rec
	r.noteLocked(change{r.revision, api.OpPut, cause, rec.in})
}

func (r *Region) removeLocked(rec *record, cause api.Cause) {
	rec.stop()
	r.revision++
	delete(r.records, rec.in.Key())
	r.noteLocked(change{r.revision, api.OpDelete, cause, rec.in})
}

// noteLocked keeps a change, and tells it to whoever is to know.
func (r *Region) noteLocked(c change) {
	r.history = append(r.history, c)
	if extra := len(r.history) - maxHistory; extra > 0 {
		r.forgotten = r.history[extra-1].revision
		r.history = slices.Clone(r.history[extra:])
	}
	key := c.in.Key().ServiceKey()
	r.classifyLocked(key)
	rows := maps.Clone(r.rows)
	if s := r.summaryLocked(key); s != nil {
		rows[key] = s
	} else {
		delete(rows, key)
	}
	r.rows = rows
	r.w.spreadLocked(r)
}

// summaryLocked returns what others are told of a service; nil when the region does not have it.
func (r *Region) summaryLocked(key api.ServiceKey) *api.Summary {
	list := r.instancesLocked(key)
	if len(list) == 0 {
		return nil
	}
	s := &api.Summary{
		Namespace: key.Namespace, Service: key.Service, Total: len(list), Revision: r.revision,
		Load: r.classes[key], Zones: map[api.Zone]api.ZoneCount{}, Endpoints: []api.Endpoint{},
	}
	for i := range list {
		in := &list[i]
		z := s.Zones[in.Zone]
		z.Total++
		switch {
		case in.Status.Usable():
			s.Passing++
			s.Capacity += in.Capacity * max(in.Weight, 0) / api.DefaultWeight
			z.Passing++
		case in.Status == api.StatusDraining:
			s.Draining++
		}
		s.Zones[in.Zone] = z
		if in.Version != "" && !slices.Contains(s.Versions, in.Version) {
			s.Versions = append(s.Versions, in.Version)
		}
	}
	slices.Sort(s.Versions)
	s.Flags = flags(s, list)
	slices.SortStableFunc(list, func(a, b api.Instance) int {
		return slices.Index(api.Statuses, a.Status) - slices.Index(api.Statuses, b.Status)
	})
	for i := range list {
		if len(s.Endpoints) == api.MaxFailoverSet || s.Passing > 0 && !list[i].Status.Usable() {
			break
		}
		e := list[i].Endpoint()
		e.Overdue = false // a row says what is stored
		s.Endpoints = append(s.Endpoints, e)
	}
	s.Complete = s.Passing == 0 || len(s.Endpoints) == s.Passing
	return s
}

// flags says what a caller should know of the service as a whole.
func flags(s *api.Summary, list []api.Instance) (out []string) {
	if !slices.ContainsFunc(list, func(in api.Instance) bool {
		return (s.Passing == 0 || in.Status.Usable()) && !slices.Contains(in.Tags, api.TagDeprecated)
	}) {
		out = append(out, api.FlagDeprecated)
	}
	if s.Passing == 0 && s.Draining > 0 {
		out = append(out, api.FlagDraining)
	}
	return out
}

// shownLocked returns an instance as answers have it.
func (r *Region) shownLocked(rec *record) api.Instance {
	in := *rec.in
	in.Overdue = rec.overdue(time.Now())
	return in
}

// armLocked sets the timer of the eviction as it should be.
func (r *Region) armLocked(rec *record) {
	rec.stop()
	d := rec.deadline()
	if !r.evict || d.IsZero() || r.w.closed {
		return
	}
	rec.timer = time.AfterFunc(time.Until(d)+time.Nanosecond, func() {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		// A dead registry evicts nobody, and arms the timers anew when it is back.
		if r.records[rec.in.Key()] == rec && r.evict && r.up() && rec.overdue(time.Now()) {
			r.removeLocked(rec, api.CauseEvict)
		}
	})
}

func (r *Region) heardLocked(rec *record) {
	rec.heard = time.Now()
	r.armLocked(rec)
}

// registerLocked stores an instance or refreshes it.
func (r *Region) registerLocked(key api.InstanceKey, reg api.Registration) (in api.Instance, created bool, err error) {
	if reg, err = reg.Normalize(); err != nil {
		return in, false, err
	}
	rec := r.records[key]
	if rec == nil {
		rec = &record{}
		r.storeLocked(rec, r.merged(nil, key, reg))
		r.heardLocked(rec)
		return *rec.in, true, nil
	}
	if reg.Incarnation != 0 && reg.Incarnation < rec.in.Incarnation {
		return in, false, stale(rec.in)
	}
	if next := r.merged(rec.in, key, reg); !alike(*rec.in, next) {
		r.storeLocked(rec, next)
	}
	r.heardLocked(rec)
	return *rec.in, false, nil
}

// merged returns the instance that registering reg over cur (nil when new) gives.
func (r *Region) merged(cur *api.Instance, key api.InstanceKey, reg api.Registration) api.Instance {
	now := time.Now().UTC().Truncate(time.Millisecond)
	next := api.Instance{
		Namespace: key.Namespace, Service: key.Service, ID: key.ID, Region: r.name, Zone: reg.Zone,
		Address: reg.Address, Port: reg.Port, Ports: reg.Ports, Weight: *reg.Weight, Capacity: reg.Capacity,
		Version: reg.Version, Tags: reg.Tags, Metadata: reg.Metadata, TTL: reg.TTL, Checks: reg.Checks,
		Incarnation: max(reg.Incarnation, 1), Status: reg.Status, StatusSince: now, RegisteredAt: now,
	}
	if cur == nil || reg.Incarnation > cur.Incarnation {
		return next // the program starts anew: nothing of its old state holds
	}
	next.Incarnation, next.RegisteredAt = cur.Incarnation, cur.RegisteredAt
	switch {
	case cur.Status == api.StatusDraining: // only a status change or a new incarnation ends that
		next.BeforeDrain = cur.BeforeDrain
		if was := before(cur); next.Status != was.Status && !(next.Status == api.StatusStarting && was.Status.Usable()) {
			next.BeforeDrain = setStatus(next.Status, "")
		}
	case cur.Status == next.Status:
	case next.Status == api.StatusStarting && cur.Status.Usable(): // a refresh does not send it back to where it began
	default:
		return next
	}
	next.Status, next.StatusNote, next.StatusSince = cur.Status, cur.StatusNote, cur.StatusSince
	return next
}

// alike reports whether storing next over cur would change nothing.
func alike(cur, next api.Instance) bool {
	next.Revision = cur.Revision
	for _, in := range []*api.Instance{&cur, &next} { // empty is the same as not given
		if len(in.Tags) == 0 {
			in.Tags = nil
		}
		if len(in.Ports) == 0 {
			in.Ports = nil
		}
		if len(in.Metadata) == 0 {
			in.Metadata = nil
		}
		if len(in.Checks) == 0 {
			in.Checks = nil
		}
	}
	return reflect.DeepEqual(cur, next)
}

// withStatusOf returns in with the status of another.
func withStatusOf(in api.Instance, of *api.Instance) api.Instance {
	in.Status, in.StatusNote, in.StatusSince, in.BeforeDrain = of.Status, of.StatusNote, of.StatusSince, of.BeforeDrain
	return in
}

// setStatus returns what is kept of a status during a drain; nil = passing.
func setStatus(s api.Status, note string) *api.SetStatus {
	if s == api.StatusPassing && note == "" {
		return nil
	}
	return &api.SetStatus{Status: s, Note: note}
}

// before returns what an instance goes back to when its drain ends.
func before(in *api.Instance) api.SetStatus {
	if in.BeforeDrain != nil {
		return *in.BeforeDrain
	}
	return api.SetStatus{Status: api.StatusPassing}
}

// beatLocked takes a heartbeat.
func (r *Region) beatLocked(key api.InstanceKey, incarnation uint64, load api.Load) (api.HeartbeatAck, error) {
	rec := r.records[key]
	switch {
	case rec == nil, incarnation > rec.in.Incarnation:
		return api.HeartbeatAck{}, absent(key, "register it again")
	case incarnation != 0 && incarnation < rec.in.Incarnation:
		return api.HeartbeatAck{}, stale(rec.in)
	}
	r.heardLocked(rec)
	if !load.IsZero() {
		rec.told = told{load, rec.heard}
		r.weighLocked(key.ServiceKey())
	}
	in := rec.in
	return api.HeartbeatAck{ID: in.ID, Status: in.Status, Incarnation: in.Incarnation, TTL: in.TTL, Epoch: r.epoch}, nil
}

// statusLocked sets the status of an instance by hand.
func (r *Region) statusLocked(key api.InstanceKey, c api.StatusChange) (api.Instance, error) {
	if err := c.Validate(); err != nil {
		return api.Instance{}, err
	}
	return r.changeLocked(key, c.Incarnation, func(in *api.Instance) {
		switch {
		case c.Status != api.StatusDraining:
			in.BeforeDrain = nil
		case in.Status != api.StatusDraining:
			in.BeforeDrain = setStatus(in.Status, in.StatusNote)
		}
		in.Status, in.StatusNote = c.Status, c.Note
	})
}

// undrainLocked takes a drain back; an instance that does not drain stays as it is.
func (r *Region) undrainLocked(key api.InstanceKey, incarnation uint64) (api.Instance, error) {
	return r.changeLocked(key, incarnation, func(in *api.Instance) {
		if in.Status == api.StatusDraining {
			was := before(in)
			in.Status, in.StatusNote, in.BeforeDrain = was.Status, was.Note, nil
		}
	})
}

func (r *Region) changeLocked(key api.InstanceKey, incarnation uint64, put func(*api.Instance)) (api.Instance, error) {
	rec := r.records[key]
	switch {
	case rec == nil:
		return api.Instance{}, absent(key, "register it again")
	case incarnation != 0 && incarnation < rec.in.Incarnation:
		return api.Instance{}, stale(rec.in)
	}
	next := *rec.in
	put(&next)
	if next.Status != rec.in.Status {
		next.StatusSince = time.Now().UTC().Truncate(time.Millisecond)
	}
	if !alike(*rec.in, next) {
		r.storeLocked(rec, next)
	}
	return *rec.in, nil
}

func (r *Region) deregisterLocked(key api.InstanceKey, incarnation uint64) error {
	rec := r.records[key]
	switch {
	case rec == nil:
		return absent(key, "nothing is left to do: it was deregistered or evicted before, or never registered under this id")
	case incarnation != 0 && incarnation < rec.in.Incarnation:
		return stale(rec.in)
	}
	r.removeLocked(rec, api.CauseDeregister)
	return nil
}

func absent(key api.InstanceKey, remedy string) error {
	return &api.Error{Code: api.CodeInstanceNotFound, Detail: fmt.Sprintf("instance %s is not registered", api.Quote(key.String())), Remedy: remedy}
}

func stale(in *api.Instance) error {
	return &api.Error{
		Code:   api.CodeStaleIncarnation,
		Detail: fmt.Sprintf("a newer incarnation, %d, of instance %s is registered", in.Incarnation, api.Quote(in.Key().String())),
		Remedy: "stop the older process, or register with a higher incarnation", Incarnation: in.Incarnation,
	}
}
