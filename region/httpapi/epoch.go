package httpapi

import (
	"context"

	"github.com/nearside/nearside/sdk/api"
)

// raiseEpoch is for a federation that is a process of its own: the registry asks for a verb
// of its own.
func (d *door) raiseEpoch(ctx context.Context, r *request) (answer, error) {
	region := r.pathRegion()
	if r.err != nil {
		return answer{}, r.err
	}
	var raise api.EpochRaise
	if err := r.decode(&raise); err != nil {
		return answer{}, err
	}
	out, st, err := d.Registry.RaiseEpochFor(ctx, region, raise)
	if err != nil {
		return answer{}, err
	}
	return answer{body: &out, stamp: st}, nil
}
