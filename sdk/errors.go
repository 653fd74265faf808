package nearside

import (
	"errors"
	"fmt"
	"net"

	"github.com/nearside/nearside/sdk/api"
)

var (
	// ErrNoInstances means that the service is known, but there is nothing to call: it has
	// no instance left, or the policy forbids every region that has one.
	ErrNoInstances = errors.New("no instance to call")

	// ErrNoneFits is returned by PickWhere: the service has instances, and none that may be
	// chosen now.
	ErrNoneFits = errors.New("no instance that may be chosen now")

	// ErrUnreachable means that no registry answered, here or in other regions, and that
	// no snapshot knows the service. Asking again later may succeed.
	ErrUnreachable = errors.New("no registry answers and no snapshot knows the service")

	// ErrIncomplete means that no region is known to have the service, but not everything is
	// known of all of them: home does not answer and another region's registry does not know
	// all of it, or one region was not heard completely yet. Asking again later gives a
	// definite answer.
	ErrIncomplete = errors.New("no region is known to have it, but one is not known completely")

	// ErrClosed is returned by a client after Close.
	ErrClosed = errors.New("the client is closed")

	// ErrSuperseded means that a newer incarnation of the instance id has registered: this
	// one has stopped its heartbeats and will not take the id back.
	ErrSuperseded = errors.New("a newer incarnation of this instance is registered")

	// ErrTooManyServices means that a client was asked for more services than it watches
	// (4,096), and that all of them were used lately.
	ErrTooManyServices = errors.New("too many services for one client")
)

// errNoContext is what callers get who pass nil where a context belongs.
var errNoContext = errors.New("the context is nil: pass context.Background() if there is no other")

// notFound is what everybody gets who asks for a service that no region has.
func notFound(key api.ServiceKey) error {
	return &api.Error{
		Code: api.CodeServiceNotFound, Detail: fmt.Sprintf("no region known has service %s", key),
		Remedy: "check its name; an instance must have registered under it",
	}
}

// CallError is returned by the transport when every attempt of a call failed without an
// answer. Unwrap gives the error of the last attempt.
type CallError struct {
	Service  string
	Attempts int
	// Instance and Region name where the last attempt went.
	Instance api.InstanceID
	Region   api.Region
	Err      error
}

// Error names the service, the last instance and the number of attempts.
func (e *CallError) Error() string {
	return fmt.Sprintf("service %s: instance %s in %s after %d attempt(s): %v", e.Service, e.Instance, e.Region, e.Attempts, e.Err)
}

// Unwrap returns the error of the last attempt.
func (e *CallError) Unwrap() error { return e.Err }

// Timeout reports whether the last attempt ran out of time.
func (e *CallError) Timeout() bool {
	var t net.Error
	return errors.Is(e.Err, errAttemptTimeout) || errors.Is(e.Err, errSilent) || (errors.As(e.Err, &t) && t.Timeout())
}
