package grpcresolver

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	nearside "github.com/nearside/nearside/sdk"
)

// How channels connect, and how they notice that nobody is at the other end any more.
const (
	dialLimit = time.Second // of TCP alone
	// TCP probes of a connection on which nothing moves: dead after 10 + 3×3 s. Kernels
	// answer them, so no server can mind.
	probeIdle, probeEach, probeCount = 10 * time.Second, 3 * time.Second, 3
	// unanswered is how long what was sent may stay unacknowledged (TCP_USER_TIMEOUT on
	// Linux), and how long a ping may.
	unanswered = 5 * time.Second
	// pingIdle is when a connection with calls on which nothing moves is pinged. gRPC servers end
	// connections that are pinged more often than every five minutes, unless told otherwise.
	pingIdle = 6 * time.Minute
	// Backoff of an instance that cannot be connected to. Mostly the client's own dials are
	// sooner.
	backoffBase, backoffMost = 500 * time.Millisecond, 5 * time.Second
)

// DialOptions returns what a channel needs to call services by name:
//
//	conn, err := grpc.NewClient("nearside:///orders", append(grpcresolver.DialOptions(client),
//		grpc.WithTransportCredentials(creds))...)
//
// These are the resolver; a dialer that dials instances directly, whatever proxy the
// environment names, with TCP keepalive (10 s, then every 3 s, three times); a keepalive
// whose time-out of 5 s is also TCP_USER_TIMEOUT, so that a connection into a black hole ends
// 5 s after a call was sent on it, or 20 s after it went quiet (gRPC's own default is never);
// a backoff of at most 5 s; and with [WithRetry] interceptors that send a repeat to another
// instance. Options that follow override them. The client stays the caller's, and must
// outlive the channel.
//
// Behind a proxy that ends TCP connections itself, or to notice a stopped server of a quiet
// stream sooner, use a shorter grpc.WithKeepaliveParams, and allow it on the servers with
// keepalive.EnforcementPolicy.
func DialOptions(c *nearside.Client, opts ...Option) []grpc.DialOption {
	set := newSettings(c, opts)
	list := []grpc.DialOption{
		grpc.WithResolvers(&builder{set}),
		grpc.WithContextDialer(dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: backoffBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: backoffMost},
			MinConnectTimeout: connectLimit,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingIdle, Timeout: unanswered}),
	}
	if len(set.retry) > 0 {
		list = append(list, grpc.WithChainUnaryInterceptor(set.unary), grpc.WithChainStreamInterceptor(set.stream))
	}
	return list
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         dialLimit,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: probeIdle, Interval: probeEach, Count: probeCount},
	}
	return d.DialContext(ctx, "tcp", address)
}
