package registry

import (
	"sync"
	"sync/atomic"
	"weak"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// Answer is a resolution without its views. It is shared between callers and never changes.
type Answer struct {
	api.Resolution
	away []api.Region // the other regions that take traffic of this one by it
	form atomic.Pointer[[]byte]
}

// Form returns what encode makes of the answer; encode is called once or, by callers at the
// same moment, a few times. There is one form: only one door may use it.
func (a *Answer) Form(encode func(*api.Resolution) ([]byte, error)) ([]byte, error) {
	if p := a.form.Load(); p != nil {
		return *p, nil
	}
	b, err := encode(&a.Resolution)
	if err != nil {
		return nil, err
	}
	a.form.Store(&b)
	return b, nil
}

// answerCache remembers answers and what they were made from. An answer is used again
// while that is the very same; nothing has to be told to forget. The zero cache is empty
// and safe for concurrent use.
//
// It is bounded by generations: a shard that is full becomes the old one, whose answers
// move over when they are asked for; the rest goes with the next turn.
type answerCache struct{ shards [answerShards]answerShard }

const (
	answerShards = 16
	// answersPerShard times shards times two generations is the most that is kept: 2,048
	// answers.
	answersPerShard = 64
	// maxShared is about how many bytes an answer that is kept may have: 32 MiB all together,
	// and as much for their form. What they were made from is not kept.
	maxShared = 16 << 10
)

type answerShard struct {
	mu       sync.Mutex
	now, old map[answerKey]*cached
}

type answerKey struct {
	key    api.ServiceKey
	caller callerKey
	limit  int
}

type callerKey struct {
	region api.Region
	zone   api.Zone
}

// cached is an answer with what it was made from, ages and addresses aside.
type cached struct {
	regions []madeFrom
	policy  *api.Policy
	memory  *route.Memory
	answer  *Answer
}

// madeFrom is a route.RegionView as far as a decision looks at it. Its endpoints are held weakly: the
// answers of a large service that changes often would else keep all that it ever was.
type madeFrom struct {
	origin    api.Origin // without addresses
	counts    [3]int     // total, passing, draining
	load      float64
	n         int
	endpoints weak.Pointer[api.Endpoint]
}

func (c *answerCache) shard(k *answerKey) *answerShard {
	h := uint32(2166136261)
	for _, s := range [...]string{string(k.key.Service), string(k.caller.zone)} {
		for i := 0; i < len(s); i++ {
			h = (h ^ uint32(s[i])) * 16777619
		}
	}
	return &c.shards[(h^h>>16)%answerShards]
}

// get returns the answer made from the same view under the same policy and memory, nil when there
// is none.
func (c *answerCache) get(k answerKey, v *route.View, p *api.Policy, m *route.Memory) *Answer {
	s := c.shard(&k)
	s.mu.Lock()
	e := s.now[k]
	if e == nil {
		if e = s.old[k]; e != nil {
			s.add(k, e)
		}
	}
	s.mu.Unlock()
	if e == nil || e.policy != p || e.memory != m || len(e.regions) != len(v.Regions) {
		return nil
	}
	rule := route.PolicyOf(p)
	for i := range v.Regions {
		if !sees(rule, &e.regions[i], &v.Regions[i]) {
			return nil
		}
	}
	return e.answer
}

func (c *answerCache) put(k answerKey, v *route.View, p *api.Policy, m *route.Memory, a *Answer) {
	if weigh(a) > maxShared {
		return
	}
	regions := make([]madeFrom, len(v.Regions))
	for i := range v.Regions {
		regions[i] = from(&v.Regions[i])
	}
	s := c.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(k, &cached{regions, p, m, a})
}

func (s *answerShard) add(k answerKey, e *cached) {
	if s.now == nil || len(s.now) >= answersPerShard && s.now[k] == nil {
		s.old, s.now = s.now, make(map[answerKey]*cached)
	}
	s.now[k] = e
}

// weigh returns about how many bytes an answer is.
func weigh(a *Answer) int {
	const fixed = 256 // an endpoint's short strings and numbers
	n := fixed * (1 + len(a.Endpoints))
	for i := range a.Endpoints {
		e := &a.Endpoints[i]
		for k, v := range e.Metadata {
			n += len(k) + len(v) + 6
		}
		for _, t := range e.Tags {
			n += len(t) + 3
		}
		n += 80 * len(e.Ports)
	}
	return n
}

func from(v *route.RegionView) madeFrom {
	m := madeFrom{origin: v.Origin, counts: [3]int{v.Total, v.Passing, v.Draining}, load: v.Load, n: len(v.Endpoints)}
	m.origin.Addresses = nil
	if m.n > 0 {
		m.endpoints = weak.Make(&v.Endpoints[0])
	}
	return m
}

// sees reports whether a decision under p sees in v what the answer was made from. Endpoints never change
// in place, so the same slice is the same content; a weak pointer to one that is gone is
// nobody's, also when another one has its place in memory.
func sees(p route.Policy, m *madeFrom, v *route.RegionView) bool {
	return m.counts == [3]int{v.Total, v.Passing, v.Draining} && m.n == len(v.Endpoints) && m.load == v.Load &&
		m.origin.Complete == v.Origin.Complete && p.Alike(m.origin, v.Origin) &&
		(m.n == 0 || m.endpoints.Value() == &v.Endpoints[0])
}
