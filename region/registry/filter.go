package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const (
	// maxFilters are remembered: of 1 KiB each at most, with their programs.
	maxFilters = 256
	// filterDeadline bounds what one list may think about its filter: patterns over much
	// metadata of many instances can take long.
	filterDeadline = 2 * time.Second
)

// useFilter makes q.filter of q.Filter. done tells after the list whether it came to its end.
func (r *Registry) useFilter(ctx context.Context, q *InstancesQuery) (done func() error, err error) {
	if q.Filter == "" {
		return func() error { return nil }, nil
	}
	f, err := r.filters.Parse(q.Filter)
	if err != nil {
		return nil, err
	}
	var end time.Time
	failed := error(nil)
	q.filter = func(in *api.Instance) bool {
		now := time.Now()
		if end.IsZero() {
			end = now.Add(filterDeadline)
		}
		switch {
		case failed != nil:
			return false
		case ctx.Err() != nil:
			failed = fmt.Errorf("filter: %w", ctx.Err())
			return false
		case now.After(end):
			failed = &api.Error{
				Code: api.CodeTimeout, Field: "filter", Detail: "the filter takes longer than " + filterDeadline.String(),
				Remedy: "use simpler patterns, or a smaller limit",
			}
			return false
		}
		return f.Match(in)
	}
	return func() error { return failed }, nil
}
