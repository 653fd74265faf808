package grpcresolver

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var errUnavailable = errors.New("the call ended as unavailable")

// outcome is what the end of a call says about its instance, as nearside.Picked.Done takes
// it: nil = it answered, context.Canceled = nothing, other errors = it failed.
//
//	code                                  says
//	OK, and every code that servers       answered: a NOT_FOUND is an answer, and INTERNAL is
//	give as an answer                     an error of the program, not of the way to it
//	UNAVAILABLE                           failed: no connection, a broken one, or a server
//	                                      that does not take calls
//	DEADLINE_EXCEEDED without a byte      failed: a hung instance shows itself by nothing else
//	DEADLINE_EXCEEDED later               nothing: streams end like that
//	CANCELLED                             nothing: the caller gave up
//	nothing was sent                      nothing: the connection was gone before
func outcome(info balancer.DoneInfo) error {
	if info.Err == nil {
		if !info.BytesReceived && !info.BytesSent {
			return context.Canceled
		}
		return nil
	}
	switch status.Code(info.Err) {
	case codes.Unavailable:
		return errUnavailable
	case codes.DeadlineExceeded:
		if info.BytesReceived {
			return context.Canceled
		}
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	}
	return nil
}

// report carries the outcome of one call to the client. Reports are used again, so that a
// pick allocates nothing; gRPC calls Done once.
type report struct {
	done func(error)
	fn   func(balancer.DoneInfo)
}

func newReports() *sync.Pool {
	pool := &sync.Pool{}
	pool.New = func() any {
		r := &report{}
		r.fn = func(info balancer.DoneInfo) {
			done := r.done
			r.done = nil
			pool.Put(r)
			done(outcome(info))
		}
		return r
	}
	return pool
}
