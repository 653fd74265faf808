package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// Follower keeps a view of other records of the registry's store than the catalogue's,
// under a prefix of its own. It is fed from the one watch that the registry has: a node
// opens no second one.
//
// All methods are called one at a time, in revision order, before the registry publishes
// the same step: whoever sees a revision in the registry sees it in every follower. They
// hold up every write of the region, so they must be quick, and they must not call the
// registry.
type Follower interface {
	// Load replaces everything by the records of the whole store at version, in key order.
	// Values may be kept and must not be changed.
	Load(version api.Version, records []store.Record)
	// Apply takes one commit; its events are of all prefixes.
	Apply(b store.Batch)
	// Progress tells that nothing happened up to revision.
	Progress(revision uint64)
	// Raise tells that the same content stands in a new epoch.
	Raise(epoch api.Epoch)
}

// Follow adds a follower; before Run.
func (r *Registry) Follow(f Follower) error {
	if r.running.Load() {
		return errors.New("registry: Follow comes before Run")
	}
	r.followers = append(r.followers, f)
	return nil
}

// Authorize is the function that every use case passes first, for use cases of followers.
func (r *Registry) Authorize(ctx context.Context, a Access) error {
	return r.cfg.Authorizer.Authorize(ctx, a)
}

// Fresh returns once what a read with these options may use is in memory, here and in
// every follower, and says where the catalogue stands.
func (r *Registry) Fresh(ctx context.Context, o ReadOptions) (Stamp, error) {
	snap, source, err := r.fresh(ctx, o)
	if err != nil {
		return Stamp{}, err
	}
	return r.stamp(snap, source), nil
}

// Meet is for a client that holds seen, before it resumes a stream: when that is ahead of
// this node it waits for a moment until the node is there. why is not empty when it is not
// and the client must start over.
func (r *Registry) Meet(ctx context.Context, seen api.Version) (why string, err error) {
	return r.meet(ctx, seen)
}

// Write commits what decide returns, and calls it again when another write came between;
// every operation must be guarded by what decide saw. It returns the commit's revision once
// followers show it, and 0 when decide returned nothing to do: with several nodes, of memory that
// has everything acknowledged before the call. Each try within five seconds. A
// refusal of decide's is as old as this node's memory: whoever must not refuse what another node
// has just made possible confirms it with Fresh.
func (r *Registry) Write(ctx context.Context, decide func() ([]store.Op, error)) (revision uint64, err error) {
	if err := r.needStore(); err != nil {
		return 0, err
	}
	once := func(*catalog.Snapshot) ([]store.Op, error) { return decide() }
	_, revision, err = r.writeFrom(ctx, true, once)
	if err != nil || revision != 0 || r.own.alone {
		return revision, err
	}
	cctx, cancel := context.WithTimeout(ctx, writeDeadline)
	defer cancel()
	if _, err := r.confirmed(cctx); err != nil {
		return 0, err
	}
	_, revision, err = r.writeFrom(ctx, true, once)
	return revision, err
}

// OpenWatch counts one more stream against the node's limit; done counts it out again.
func (r *Registry) OpenWatch() (done func(), err error) {
	if n := r.watches.Add(1); n > int64(r.cfg.MaxWatches) {
		r.watches.Add(-1)
		return nil, &api.Error{
			Code: api.CodeTooManyRequests, Detail: fmt.Sprintf("this node serves %d watches already", r.cfg.MaxWatches),
			Remedy: "watch more in one stream, or ask another node",
		}
	}
	return func() { r.watches.Add(-1) }, nil
}

// Ended is closed when Run returns.
func (r *Registry) Ended() <-chan struct{} { return r.ended }
