package replica

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// origin is a model of a region that publishes: its rows, its version, and the history from
// which deltas are made. It makes the frames of version 1 of the protocol; package origin, whose
// tests and simulation drive this package too, makes those of the newest.
type origin struct {
	region   api.Region
	epoch    api.Epoch
	revision uint64
	rows     map[api.ServiceKey]*api.Summary
	changed  map[api.ServiceKey]uint64 // revision of the last change, deletes included
	floor    uint64                    // history before it is gone
	sent     int64
}

func newOrigin(generation uint64) *origin {
	return &origin{
		region: "eu-west", epoch: api.Epoch{Generation: generation, Nonce: generation * 77}, revision: 1,
		rows: map[api.ServiceKey]*api.Summary{}, changed: map[api.ServiceKey]uint64{},
	}
}

func key(name string) api.ServiceKey {
	return api.ServiceKey{Namespace: "default", Service: api.ServiceName(name)}
}

func (o *origin) set(name string, instances int) {
	o.revision++
	k := key(name)
	var list []*api.Instance
	for i := range instances {
		list = append(list, &api.Instance{
			Namespace: "default", Service: k.Service, ID: api.InstanceID(fmt.Sprintf("%s-%d", name, i)), Region: o.region,
			Zone: "a", Address: "10.0.0.1", Port: 8000 + i, Weight: 100, Status: api.StatusPassing,
		})
	}
	o.rows[k] = summary.Build(k, list, o.revision, "us-east")
	o.changed[k] = o.revision
}

func (o *origin) remove(name string) {
	o.revision++
	delete(o.rows, key(name))
	o.changed[key(name)] = o.revision
}

// wipe loses all data and history; the epoch restarts at generation 1 unless it is raised.
func (o *origin) wipe(nonce uint64) {
	*o = *newOrigin(1)
	o.epoch.Nonce = nonce
}

// refute does what the server does when a reader holds something newer.
func (o *origin) refute(held api.Version, nonce uint64) {
	if held.IsZero() {
		return
	}
	switch held.Compare(o.version()) {
	case api.Newer, api.Conflict:
		o.epoch = api.Epoch{Generation: held.Epoch.Generation + 1, Nonce: nonce}
	}
}

func (o *origin) version() api.Version {
	return api.Version{Region: o.region, Epoch: o.epoch, Revision: o.revision}
}

func (o *origin) digest() summary.Digest {
	var d summary.Digest
	for _, s := range o.rows {
		_, h := summary.Encode(s)
		d = d.Add(h)
	}
	return d
}

func (o *origin) row(k api.ServiceKey) Row {
	body, _ := summary.Encode(o.rows[k])
	return Row{Revision: o.rows[k].Revision, Body: body}
}

func (o *origin) hello() Frame {
	return Frame{Kind: Hello, Proto: MinProto, Region: o.region, Node: "n1", Epoch: o.epoch, Head: o.revision, Complete: true, Addresses: []string{"http://10.0.0.1:7400"}}
}

func (o *origin) heartbeat() Frame {
	o.sent += 1000
	return Frame{Kind: Heartbeat, Epoch: o.epoch, Head: o.revision, Digest: o.digest(), SentMS: o.sent}
}

func (o *origin) snapshot() []Frame {
	out := []Frame{{Kind: SnapshotBegin, Epoch: o.epoch, To: o.revision}}
	keys := slices.SortedFunc(maps.Keys(o.rows), CompareKeys)
	for part := range slices.Chunk(keys, 3) {
		f := Frame{Kind: SnapshotChunk, Epoch: o.epoch}
		for _, k := range part {
			f.Rows = append(f.Rows, o.row(k))
		}
		out = append(out, f)
	}
	return append(out, Frame{Kind: SnapshotEnd, Epoch: o.epoch, To: o.revision, Count: len(keys), Digest: o.digest()})
}

func (o *origin) delta(from uint64) Frame {
	f := Frame{Kind: Delta, Epoch: o.epoch, From: from, To: o.revision, Digest: o.digest(), SentMS: o.sent}
	for _, k := range slices.SortedFunc(maps.Keys(o.changed), CompareKeys) {
		switch {
		case o.changed[k] <= from:
		case o.rows[k] != nil:
			f.Rows = append(f.Rows, o.row(k))
		default:
			f.Deletes = append(f.Deletes, FormatKey(k))
		}
	}
	return f
}

// catchUp returns the frames that answer a reader that holds have.
func (o *origin) catchUp(have api.Version, whole bool) []Frame {
	out := []Frame{o.hello()}
	switch {
	case whole || have.Epoch != o.epoch || have.Revision < o.floor:
		out = append(out, o.snapshot()...)
	case have.Revision < o.revision:
		out = append(out, o.delta(have.Revision))
	}
	return append(out, o.heartbeat())
}

// feed connects r afresh and steps through frames until one drops the stream.
func feed(r *Replica, frames []Frame, now time.Time) []Effects {
	r.Connect(now)
	var out []Effects
	for _, f := range frames {
		eff := r.Step(f, now)
		out = append(out, eff)
		if eff.Err != nil {
			break
		}
	}
	return out
}
