package registry

import (
	"context"
	"fmt"

	"github.com/nearside/nearside/sdk/api"
)

// Auditor proves and repairs what the federation holds of other regions. All methods are
// safe for concurrent use; their errors are *api.Error.
type Auditor interface {
	// Verify compares what is held of a region with what that region says it should be. It
	// takes seconds at most.
	Verify(ctx context.Context, region api.Region) (api.Verification, error)
	// Resync asks the region for all of its rows anew, and returns at once.
	Resync(region api.Region) (api.ResyncInfo, error)
}

// VerifyRegion compares what this node holds of another region with what that region's
// federation says it should hold.
func (r *Registry) VerifyRegion(ctx context.Context, region api.Region) (api.Verification, error) {
	if err := r.authorize(ctx, VerbRead, ""); err != nil {
		return api.Verification{}, err
	}
	if err := r.needAuditor(region); err != nil {
		return api.Verification{}, err
	}
	return r.cfg.Auditor.Verify(ctx, region)
}

// ResyncRegion asks another region for all of its rows anew. What is held stays in use
// until they are complete and their digest fits.
func (r *Registry) ResyncRegion(ctx context.Context, region api.Region) (api.ResyncInfo, error) {
	if err := r.authorize(ctx, VerbOperate, ""); err != nil {
		return api.ResyncInfo{}, err
	}
	if err := r.needAuditor(region); err != nil {
		return api.ResyncInfo{}, err
	}
	info, err := r.cfg.Auditor.Resync(region)
	if err != nil {
		return info, err
	}
	actor, _ := ctx.Value(actorKey{}).(string)
	r.Record(api.Event{
		Kind: api.EventResync, Subject: string(region), Actor: actor, Cause: api.EventCause{Kind: api.BecauseRequest},
		Detail: fmt.Sprintf("all rows are asked for anew; the %d that are held stay until those are complete", info.Expected),
	})
	return info, nil
}

func (r *Registry) needAuditor(region api.Region) error {
	if region == r.cfg.Region {
		return api.FieldError("region", fmt.Sprintf("%s is this region itself; it holds its own records, not a copy", region), "name another region")
	}
	if r.cfg.Auditor == nil {
		return &api.Error{
			Code: api.CodeUnsupported, Detail: "this node has no federation of its own, so it holds no copy of another region",
			Remedy: "ask a node that runs with the role federation",
		}
	}
	return nil
}
