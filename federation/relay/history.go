package relay

import (
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// Bounds of a History.
const (
	maxSteps = 512
	maxKeys  = 20_000
)

// History remembers which rows the last steps of a replica changed, so that a reader of ours
// gets those alone. The zero value is empty. Not safe for concurrent use.
type History struct {
	steps []step
	keys  int
}

type step struct {
	from, to api.Version
	keys     []api.ServiceKey
	planned  map[api.ServiceKey]struct{} // of which the origin said that what they lost was meant to go
}

// Note takes a step from one view to the next.
func (h *History) Note(from, to *replica.View) {
	if from.Version == to.Version {
		return
	}
	keys := to.Truth.Differ(from.Truth)
	if len(keys) > maxKeys {
		h.steps, h.keys = nil, 0
		return
	}
	if n := len(h.steps); n > 0 && len(keys) == 0 && len(h.steps[n-1].keys) == 0 && h.steps[n-1].to == from.Version &&
		h.steps[n-1].from.Epoch == to.Version.Epoch && h.steps[n-1].to.Epoch == to.Version.Epoch {
		h.steps[n-1].to = to.Version // versions that change nothing need one step together
		return
	}
	var planned map[api.ServiceKey]struct{}
	if to.PlannedAt.Compare(from.Version) == api.Newer && to.PlannedAt.Epoch == from.Version.Epoch {
		planned = to.Planned
	}
	h.steps = append(h.steps, step{from.Version, to.Version, keys, planned})
	h.keys += len(keys)
	for len(h.steps) > maxSteps || h.keys > maxKeys {
		h.keys -= len(h.steps[0].keys)
		h.steps = h.steps[1:]
	}
}

// Planned returns the rows whose last change after a version was meant by the origin.
func (h *History) Planned(after api.Version) map[api.ServiceKey]struct{} {
	last := make(map[api.ServiceKey]bool)
	for i := len(h.steps) - 1; i >= 0; i-- {
		s := &h.steps[i]
		if s.to.Epoch != after.Epoch || s.to.Revision <= after.Revision {
			break
		}
		for _, k := range s.keys {
			if _, later := last[k]; !later {
				_, last[k] = s.planned[k]
			}
		}
	}
	out := make(map[api.ServiceKey]struct{})
	for k, planned := range last {
		if planned {
			out[k] = struct{}{}
		}
	}
	return out
}

// Since returns the rows that changed after a version; false when that is not known.
func (h *History) Since(after, now api.Version) ([]api.ServiceKey, bool) {
	if after == now {
		return nil, true
	}
	var keys []api.ServiceKey
	for i := len(h.steps) - 1; i >= 0; i-- {
		s := h.steps[i]
		if s.to.Epoch != after.Epoch {
			return nil, false
		}
		if s.to.Revision <= after.Revision {
			return keys, true
		}
		keys = append(keys, s.keys...)
		if s.from.Epoch == after.Epoch && s.from.Revision <= after.Revision {
			return keys, true
		}
	}
	return nil, false
}
