package nearside

import (
	"context"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Balancer says how calls are spread over the instances of a tier: which of them the first
// attempt of a call goes to. Which tier that is, is decided before, and where a failed call
// is repeated, after it. [RoundRobin], [LeastRequest], [PeakEWMA] and [ConsistentHash] are
// built in; a program may bring its own, see the example.
//
// One Balancer serves every service and tier that it is configured for, by
// [Config.Balancer] or [Config.Services].
type Balancer interface {
	// Prepare is told who shares the calls of one tier, and returns who chooses among them.
	// It is called anew for every tier of every new answer, at the first call that needs it,
	// and by that call: so it should be quick. Several calls may run at once, for
	// different tiers and also for two answers of one tier. What has to outlast an answer
	// is the Balancer's to keep, by Candidates.Service and the endpoints' Region and ID.
	//
	// While it runs, and after it panicked or returned nil, calls go round robin.
	Prepare(t Candidates) Picker
}

// Picker chooses among the candidates of one tier of one answer. It must be safe for
// concurrent use. A Picker that wants to know how its calls went is an [Observer] too.
type Picker interface {
	// Pick returns the place in Candidates.List of the instance for the next call. If its
	// breaker opened in that moment, the client takes another one. A place that does not
	// exist is logged once per service, and the call goes round robin. After a panic the
	// service's calls go round robin for good: a lock may be held for ever.
	//
	// It is on the way of every call: it should neither allocate nor wait.
	Pick(info PickInfo) int
}

// PickInfo is what a Picker may know of the call.
type PickInfo struct {
	// Context is the call's: that of Client.Pick, or of the HTTP request.
	Context context.Context
}

// Key returns the key that WithKey gave the call, if it has one.
func (p PickInfo) Key() (key string, ok bool) {
	if p.Context == nil {
		return "", false
	}
	key, ok = p.Context.Value(stickyKey{}).(string)
	return key, ok
}

type stickyKey struct{}

// WithKey returns a context whose calls, by Pick and through a Transport, stay with one
// instance per key, as long as it is there and has room: see [ConsistentHash]. Other
// balancers that are built in do not look at it.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, stickyKey{}, key)
}

// Candidates are the instances that share the calls of one tier.
type Candidates struct {
	Service api.ServiceKey
	Region  api.Region
	Kind    api.TierKind
	Zone    api.Zone // of a tier of kind same_zone
	// List holds at least one candidate: passing before warning, then by id. Those of
	// weight 0 are in it only when there is no other.
	List []Candidate

	lots []uint32 // schedule of List, if it was made before
}

// Candidate is one instance that a Picker may choose.
type Candidate struct {
	// Endpoint is shared with the client: do not change it.
	Endpoint *api.Endpoint
	// Weight is its share of the calls, relative to the others'; above 0. It is the
	// endpoint's weight (1 when all have weight 0), less while it starts slowly; see
	// Config.SlowStart.
	Weight float64

	in *instance
}

// Running returns how many calls of this client run at the instance now: attempts until the
// answer's body is read, picks until Done.
func (c Candidate) Running() int {
	if c.in == nil {
		return 0
	}
	return int(c.in.inflight.Load())
}

// Observer is a Picker that wants to know how the calls went to its candidates, also those
// that were repeated there without asking it. It must be safe for concurrent use, and must
// not wait. What panics is not asked again, as with Pick.
type Observer interface {
	Picker
	// Observe is called once per attempt, by the goroutine that ends it.
	Observe(o Outcome)
}

// Outcome is how an attempt ended.
type Outcome struct {
	Index int // the candidate's place in Candidates.List
	// Took is the time to the headers of the answer, through a Transport; of a Pick the time
	// until Done.
	Took time.Duration
	// Status of the HTTP answer; 0 = none, or not through a Transport.
	Status int
	// Err is why there is no answer, or what Done was told. That of a call which its caller
	// gave up wraps context.Canceled or DeadlineExceeded, and says little of the instance.
	Err error
}
