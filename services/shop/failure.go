package shop

import (
	"fmt"
	"net/http"
)

// The error codes of problem.Error.
const (
	errBadRequest = "bad_request"        // 400
	errNotFound   = "not_found"          // 404
	errMethod     = "method_not_allowed" // 405
	errConflict   = "conflict"           // 409 the idempotency key was used for something else
	errTooLarge   = "too_large"          // 413
	errMediaType  = "unsupported_media"  // 415
	errInternal   = "internal"           // 500
	errDownstream = "downstream"         // 502 a service that this one needs did not answer
	errDraining   = "draining"           // 503
	errBusy       = "busy"               // 503 the same purchase is still being made
)

// failure is an error that knows its HTTP answer.
type failure struct {
	status int
	problem
}

func (f *failure) Error() string { return f.Detail }

func fail(status int, code, format string, args ...any) *failure {
	return &failure{status: status, problem: problem{Error: code, Detail: fmt.Sprintf(format, args...)}}
}

func badRequest(format string, args ...any) *failure {
	return fail(http.StatusBadRequest, errBadRequest, format, args...)
}

func notFound(format string, args ...any) *failure {
	return fail(http.StatusNotFound, errNotFound, format, args...)
}

// downstream says that service, which this one needs, did not give a useful answer.
func downstream(service string, cause error) *failure {
	f := fail(http.StatusBadGateway, errDownstream, "%s: %v", service, cause)
	f.Service = service
	return f
}
