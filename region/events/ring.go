package events

import (
	"sort"

	"github.com/nearside/nearside/sdk/api"
)

// ring holds the newest events, by rising id.
type ring struct {
	buf  []api.Event // grows to size, then wraps
	next int         // where the next one goes, once it wraps
	size int
}

func (r *ring) push(e api.Event) {
	if len(r.buf) < r.size {
		r.buf = append(r.buf, e)
		return
	}
	r.buf[r.next] = e
	r.next = (r.next + 1) % r.size
}

// at returns the i-th oldest event.
func (r *ring) at(i int) *api.Event { return &r.buf[(r.next+i)%len(r.buf)] }

// first returns the oldest id; 0 when the ring is empty.
func (r *ring) first() uint64 {
	if len(r.buf) == 0 {
		return 0
	}
	return r.at(0).ID
}

// after returns up to most events with ids above id, the oldest first.
func (r *ring) after(id uint64, most int) []api.Event {
	i := sort.Search(len(r.buf), func(i int) bool { return r.at(i).ID > id })
	n := min(most, len(r.buf)-i)
	if n <= 0 {
		return nil
	}
	out := make([]api.Event, n)
	for k := range out {
		out[k] = *r.at(i + k)
	}
	return out
}
