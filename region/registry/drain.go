package registry

import (
	"context"

	"github.com/nearside/nearside/sdk/api"
)

// EndDrain takes a drain back: an instance that drains is passing again and its note is
// gone, any other stays as it is, so it is safe to repeat. It is no sign of life. An
// incarnation of 0 is not compared; a lower one than the stored one is refused.
func (r *Registry) EndDrain(ctx context.Context, key api.InstanceKey, incarnation uint64) (api.Instance, error) {
	return r.setStatus(ctx, key, api.StatusChange{Status: api.StatusPassing, Incarnation: incarnation}, api.StatusDraining)
}
