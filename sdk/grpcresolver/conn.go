package grpcresolver

import (
	"sync/atomic"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"

	"github.com/nearside/nearside/sdk/api"
)

// Times of a connection.
const (
	// patience is how long the next tier is not tried while the needed one is being
	// connected to for the first time.
	patience = 500 * time.Millisecond
	// connectLimit is how long connecting may take before the instance counts as one that
	// cannot be reached: TCP, TLS and the first HTTP/2 frames.
	connectLimit = 2 * time.Second
	// leaveAfter is how long a connection that is not wanted any more is kept: traffic that
	// has just left a region may come back.
	leaveAfter = time.Minute
)

// conn is the connection to one instance, wanted or just left.
//
//	connecting ──▶ ready ──(breaks: dialed again at once if wanted, else dropped)──▶ connecting
//	connecting ──(refused, or connectLimit)──▶ failed ──(gRPC's backoff)──▶ connecting
//	failed ──(the client has dialed it with success and offers it again)──▶ a new conn
//	any ──(not wanted: at once if failed, else after leaveAfter)──▶ gone
type conn struct {
	endpoint api.Endpoint
	address  string
	sc       balancer.SubConn

	// usable tells pickers that calls may go here: connected, and nothing better is on its way.
	usable atomic.Bool

	// Owned by the balancer, under its lock.
	ready      bool
	failed     bool      // could not be connected to since it was ready
	since      time.Time // of connecting; zero = it is not connecting for the first time
	needed     bool
	warm       bool
	lastResort bool      // its tier takes traffic only because nothing better is left
	left       time.Time // not wanted since; zero = wanted
}

// stalled reports that nothing should wait for the connection alone.
func (c *conn) stalled(now time.Time) bool {
	return !c.ready && (c.failed || now.Sub(c.since) >= patience)
}

// connecting reports that the connection may be there in a moment.
func (c *conn) connecting() bool { return !c.ready && !c.failed }

// due returns when time alone changes something; zero = never.
func (c *conn) due(now time.Time) time.Time {
	switch {
	case !c.left.IsZero():
		return c.left.Add(leaveAfter)
	case c.connecting() && now.Before(c.since.Add(patience)):
		return c.since.Add(patience)
	case c.connecting():
		return c.since.Add(connectLimit)
	}
	return time.Time{}
}

// move takes over a state of the subconnection. It reports whether connecting failed.
func (c *conn) move(s connectivity.State, now time.Time) (failed bool) {
	c.ready = s == connectivity.Ready
	switch s {
	case connectivity.Ready:
		c.failed, c.since = false, time.Time{}
	case connectivity.Idle, connectivity.Connecting:
		if !c.failed && c.since.IsZero() {
			c.since = now
		}
	case connectivity.TransientFailure:
		c.failed = true
		return true
	}
	return false
}
