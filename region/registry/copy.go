package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// copyPatience is how long after the start the store may be silent before the copy on disk
	// is answered from.
	copyPatience = 3 * time.Second
	// copyInterval is the least time between two saves of what changed; copyRefresh that
	// between saves of what did not, which only say that it still stood. A save takes at most one
	// part in copyShare of the time.
	copyInterval = 10 * time.Second
	copyRefresh  = 5 * time.Minute
	copyShare    = 20
)

// Copy keeps the region's records on this node's disk, for a start while the store is away. It
// is called from one goroutine at a time.
type Copy interface {
	// Load returns what was saved last and since when it may be out of date. A zero time means that
	// there is nothing; an error that it is not to be used.
	Load() (store.Image, time.Time, error)
	// Save keeps img, which the store confirmed at that time, in place of what was kept.
	Save(img store.Image, confirmed time.Time) error
}

// copied is the catalogue of a copy, while it is what readers see.
type copied struct {
	snap *catalog.Snapshot
	at   time.Time // when the store last confirmed it; with a monotonic reading
}

func (c *copied) age() time.Duration { return max(0, time.Since(c.at)) }

// String says what the node answers from.
func (c *copied) String() string {
	return fmt.Sprintf("read-only, from the copy of %s on this node's disk", c.at.UTC().Format(time.RFC3339))
}

// copyOf returns the copy that snap is of, nil for every other snapshot.
func (r *Registry) copyOf(snap *catalog.Snapshot) *copied {
	if c := r.copied.Load(); c != nil && c.snap == snap {
		return c
	}
	return nil
}

// readsFrom returns the copy that readers see, nil when it is the store's content or nothing.
func (r *Registry) readsFrom() *copied { return r.copyOf(r.Snapshot()) }

// copyLoop answers from the copy when the store does not, and keeps it while the store does.
func (r *Registry) copyLoop(ctx context.Context) error {
	if r.cfg.Copy == nil {
		return nil
	}
	late := time.NewTimer(copyPatience)
	defer late.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-r.loaded:
	case <-late.C:
		r.useCopy()
		select {
		case <-ctx.Done():
			return nil
		case <-r.loaded:
		}
	}
	return r.saveLoop(ctx)
}

// useCopy puts the copy in front of readers, if there is one that may be shown.
func (r *Registry) useCopy() {
	img, at, err := r.cfg.Copy.Load()
	switch {
	case err != nil:
		r.log.Warn("the copy of the catalogue on disk is passed over; reads wait for the store", "cause", err)
		return
	case at.IsZero():
		return
	}
	at = time.Now().Add(-max(0, time.Since(at)))
	snap, _, broken := catalog.Load(r.cfg.Region, img)
	v := snap.Version()
	// The region may have moved on since, to another history: the copy is shown only while it
	// is a past of the newest version that is known (P4).
	if mark := r.mark(); !mark.Epoch.IsZero() && mark.Epoch != v.Epoch && v.Compare(mark) != api.Newer {
		r.log.Warn("the copy of the catalogue on disk is of another history and is passed over; reads wait for the store", "copy", v.String(), "newest", mark.String())
		return
	}
	c := &copied{snap: snap, at: at}
	r.copied.Store(c)
	if !r.adopt(api.Version{}, snap, img.Records) {
		r.copied.Store(nil) // the store was quicker
		return
	}
	r.answer()
	r.reportBroken(broken)
	services, instances := snap.Len()
	r.log.Warn("the store has not answered since the start: reads are answered from the copy on disk, writes are refused",
		"version", v.String(), "age", c.age().Round(time.Second).String(), "services", services, "instances", instances)
}

// saveLoop keeps the copy up to date until ctx ends, and once more then.
func (r *Registry) saveLoop(ctx context.Context) error {
	var kept api.Version
	var keptAt time.Time
	failing := false
	save := func() (took time.Duration) {
		v := r.Snapshot().Version()
		v.Revision = r.stirred.Load() // the beats of an owner of liveness are no change
		if v == kept && time.Since(keptAt) < copyRefresh && ctx.Err() == nil {
			return 0
		}
		began := time.Now()
		err := r.cfg.Copy.Save(r.image(), began.Add(-r.health.age()))
		if err == nil {
			kept, keptAt = v, began
		} else if !failing {
			r.log.Warn("the copy of the catalogue on disk cannot be written; it is tried again", "cause", err)
		}
		failing = err != nil
		return time.Since(began)
	}
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			save()
			return nil
		case <-t.C:
			t.Reset(max(copyInterval, copyShare*save()))
			r.copied.Store(nil) // nobody reads it any more
		}
	}
}

// image returns what memory holds, as the store would.
func (r *Registry) image() store.Image {
	r.mu.Lock()
	snap := r.head.Load().snap
	records := slices.Collect(maps.Values(r.others.records))
	r.mu.Unlock()
	v := snap.Version()
	for _, key := range snap.Services() {
		list, _ := snap.Service(key)
		for _, in := range list {
			value, err := catalog.EncodeInstance(*in)
			if err != nil {
				continue // it was read from the store, so it can be written
			}
			records = append(records, store.Record{Key: catalog.InstanceRecordKey(in.Key()), Value: value, Revision: in.Revision})
		}
	}
	slices.SortFunc(records, func(a, b store.Record) int { return strings.Compare(a.Key, b.Key) })
	return store.Image{Epoch: v.Epoch, Revision: v.Revision, Records: records}
}

// others follows the records that the catalogue has no instances in, for the copy. Values are shared with
// whoever else follows them.
type others struct{ records map[string]store.Record }

func (o *others) Load(_ api.Version, records []store.Record) {
	o.records = map[string]store.Record{}
	for _, rec := range records {
		o.put(rec)
	}
}

func (o *others) Apply(b store.Batch) {
	for _, e := range b.Events {
		if e.Delete {
			delete(o.records, e.Record.Key)
		} else {
			o.put(e.Record)
		}
	}
}

func (o *others) put(rec store.Record) {
	if !catalog.IsInstanceRecord(rec.Key) {
		o.records[rec.Key] = rec
	}
}

func (o *others) Progress(uint64) {}

func (o *others) Raise(api.Epoch) {}

// needStore returns an error unless the catalogue is the store's: a copy of it is no ground to
// write on.
func (r *Registry) needStore() error {
	c := r.readsFrom()
	if c == nil {
		return r.needLoaded()
	}
	remedy := "send it again, it is safe to repeat; reads, and heartbeats of the instances in the copy, go on"
	if !r.own.alone {
		remedy = "send it again, it is safe to repeat, or ask another node of the region; reads go on"
	}
	return &api.Error{
		Code: api.CodeUnavailable, Detail: "this node is " + c.String() + ": the region's store has not answered since it started",
		Remedy: remedy,
	}
}

// OrNotInCopy is err, a read's answer that something does not exist, unless st says that the read was from
// a copy: what was written after it is not in there, and exists all the same.
func OrNotInCopy(st Stamp, err error) error {
	if st.Source != api.SourceSnapshot {
		return err
	}
	return &api.Error{
		Code: api.CodeUnavailable,
		Detail: fmt.Sprintf("this node answers from a copy of the region's records that is %s old, and what is asked for is not in it; it may have been written since",
			st.Age.Round(time.Second)),
		Remedy: "try again shortly, or ask another node; what is in the copy is answered",
	}
}
