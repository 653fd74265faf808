package probe

import (
	"context"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/nearside/nearside/region/liveness/check"
)

// grpc asks grpc.health.v1.Health/Check on a connection of its own, without TLS, as the
// kubelet does.
func (p *Prober) grpc(ctx context.Context, t check.Target) check.Result {
	// gRPC tells why it could not connect as text only, so the dialer keeps the error.
	var mu sync.Mutex
	var dialErr error
	dialed := false
	conn, err := grpc.NewClient("passthrough:///"+t.Address,
		grpc.WithContextDialer(func(dctx context.Context, _ string) (net.Conn, error) {
			mu.Lock()
			again := dialed
			dialed = true
			mu.Unlock()
			if again {
				return nil, errors.New("one connection per check")
			}
			c, err := p.dial(dctx, t)
			mu.Lock()
			defer mu.Unlock()
			dialErr = err
			return c, err
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(), grpc.WithUserAgent(userAgent), grpc.WithMaxHeaderListSize(8<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxBody)),
	)
	if err != nil {
		return check.Result{Outcome: check.Failure, Code: codeFailed}
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: t.Service})
	if err == nil {
		r := check.Result{Outcome: check.Failure, Code: servingCode(answer.GetStatus())}
		if answer.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			r.Outcome = check.Success
		}
		return r
	}
	mu.Lock()
	cause := dialErr
	mu.Unlock()
	if cause != nil && ctx.Err() == nil {
		return failed(cause)
	}
	switch code := status.Code(err); {
	case ctx.Err() != nil:
		return failed(context.DeadlineExceeded)
	case code == codes.Unavailable:
		return check.Result{Outcome: check.Failure, Code: codeReset}
	default:
		return check.Result{Outcome: check.Failure, Code: code.String()}
	}
}

// servingCode is the name of a status that the protocol knows: others are numbers that a
// stranger chose.
func servingCode(s healthpb.HealthCheckResponse_ServingStatus) string {
	if name, ok := healthpb.HealthCheckResponse_ServingStatus_name[int32(s)]; ok {
		return name
	}
	return codeProtocol
}
