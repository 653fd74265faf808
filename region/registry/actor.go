package registry

import (
	"context"
	"sync"

	"github.com/nearside/nearside/sdk/api"
)

type actorKey struct{}

// WithActor returns a context that says who asks, for the event log: "client ADDRESS". It
// is no proof of anything, and nothing is decided by it.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// actors knows who is writing which instance at the moment, so that a change that comes
// back from the store can be told with its author. A write that is given up leaves none.
type actors struct {
	mu      sync.Mutex
	writing map[api.InstanceKey][]string
}

// acting notes that ctx's actor begins to write key; the returned function ends that.
func (r *Registry) acting(ctx context.Context, key api.InstanceKey) (done func()) {
	actor, _ := ctx.Value(actorKey{}).(string)
	if actor == "" || r.cfg.Events == nil {
		return func() {}
	}
	if key.Namespace == "" {
		key.Namespace = api.DefaultNamespace
	}
	a := &r.actors
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.writing == nil {
		a.writing = map[api.InstanceKey][]string{}
	}
	a.writing[key] = append(a.writing[key], actor)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		list := a.writing[key]
		for i := range list {
			if list[i] == actor {
				list[i] = list[len(list)-1]
				list = list[:len(list)-1]
				break
			}
		}
		if len(list) == 0 {
			delete(a.writing, key)
		} else {
			a.writing[key] = list
		}
	}
}

// of returns who is writing key: "" when nobody is, or nobody can say which of several.
func (a *actors) of(key api.InstanceKey) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.writing[key]
	for _, actor := range list {
		if actor != list[0] {
			return ""
		}
	}
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
