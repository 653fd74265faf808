package registry

import (
	"context"
	"fmt"

	"github.com/nearside/nearside/sdk/api"
)

// RaiseEpochFor is RaiseEpoch for a federation that runs as its own process. It needs
// VerbFederate. A region that is above already stays as it is.
func (r *Registry) RaiseEpochFor(ctx context.Context, region api.Region, raise api.EpochRaise) (api.EpochRaised, Stamp, error) {
	if err := r.authorize(ctx, VerbFederate, ""); err != nil {
		return api.EpochRaised{}, Stamp{}, err
	}
	if region != r.cfg.Region {
		return api.EpochRaised{}, Stamp{}, &api.Error{
			Code: api.CodeRegionNotFound, Detail: fmt.Sprintf("this node is of region %s and cannot raise the epoch of %s", r.cfg.Region, api.Quote(string(region))),
			Remedy: "ask a node of that region",
		}
	}
	if err := r.needLoaded(); err != nil {
		return api.EpochRaised{}, Stamp{}, err
	}
	own := r.Snapshot().Version().Epoch.Generation
	switch {
	case raise.Above == 0:
		return api.EpochRaised{}, Stamp{}, api.FieldError("above", "above is missing or 0", "give the generation of the epoch that others hold")
	case raise.Above > own && raise.Above-own > api.MaxEpochJump:
		return api.EpochRaised{}, Stamp{}, api.FieldError("above", fmt.Sprintf("generation %d is far beyond that of this region, %d", raise.Above, own),
			"find out which peer claims it, and remove its replica of this region")
	}
	if raise.Above >= own {
		if err := r.RaiseEpoch(ctx, raise.Above); err != nil {
			return api.EpochRaised{}, Stamp{}, err
		}
	}
	snap := r.Snapshot()
	v := snap.Version()
	return api.EpochRaised(v), r.stamp(snap, api.SourceMemory), nil
}
