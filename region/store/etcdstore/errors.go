package etcdstore

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nearside/nearside/region/store"
)

// refusals are etcd's definite answers; everything else that goes wrong on the way leaves
// the outcome open.
var refusals = []struct{ etcd, ours error }{
	{rpctypes.ErrNoSpace, store.ErrFull},
	{rpctypes.ErrCompacted, store.ErrCompacted},
	{rpctypes.ErrTooManyOps, store.ErrTooLarge},
	{rpctypes.ErrRequestTooLarge, store.ErrTooLarge},
	// "Too many requests" is refused before anything is proposed; callers treat it as any
	// other time the store cannot serve, and try again.
	{rpctypes.ErrTooManyRequests, store.ErrUnavailable},
}

// translate gives an error of the client the store's words. ctx is the caller's: when it
// has ended, that is part of the answer.
func (s *Store) translate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if s.ctx.Err() != nil {
		return store.ErrClosed
	}
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, cause)
	}
	for _, r := range refusals {
		if errors.Is(err, r.etcd) {
			if r.ours == store.ErrFull && s.cfg.WhenFull != "" {
				return fmt.Errorf("%w (etcd: %v): %s", r.ours, err, s.cfg.WhenFull)
			}
			return fmt.Errorf("%w (etcd: %v)", r.ours, err)
		}
	}
	switch code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		return fmt.Errorf("etcd at %v: %w", s.cfg.Endpoints, err)
	default:
		return fmt.Errorf("%w (etcd at %v: %v)", store.ErrUnavailable, s.cfg.Endpoints, err)
	}
}

func code(err error) codes.Code {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code()
	}
	return status.Code(err)
}
