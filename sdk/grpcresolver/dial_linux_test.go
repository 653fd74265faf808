package grpcresolver

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/nearside/nearside/sdk/sdktest"
)

// A connection into a black hole must end by itself: the kernel probes quiet ones, and gives up
// on what is not acknowledged. gRPC's own defaults are two hours and never.
func TestConnectionsNoticeABlackHole(t *testing.T) {
	w := sdktest.NewWorld(t, "us")
	serve(t, w.Region("us"), "orders", "us-a")
	var mu sync.Mutex
	var conns []*net.TCPConn
	keep := func(ctx context.Context, address string) (net.Conn, error) {
		c, err := dial(ctx, address)
		if err == nil {
			mu.Lock()
			conns = append(conns, c.(*net.TCPConn))
			mu.Unlock()
		}
		return c, err
	}
	conn, err := grpc.NewClient("nearside:///orders", append(DialOptions(client(t, w.Region("us"), nil)),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(keep))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	must(t, conn)
	mu.Lock()
	defer mu.Unlock()
	if len(conns) != 1 {
		t.Fatalf("%d connections", len(conns))
	}
	raw, err := conns[0].SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const tcpUserTimeout = 18 // TCP_USER_TIMEOUT, which package syscall does not name
	for _, o := range []struct {
		name                string
		level, option, want int
	}{
		{"SO_KEEPALIVE", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE in s", syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(probeIdle.Seconds())},
		{"TCP_KEEPINTVL in s", syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(probeEach.Seconds())},
		{"TCP_KEEPCNT", syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, probeCount},
		{"TCP_USER_TIMEOUT in ms", syscall.IPPROTO_TCP, tcpUserTimeout, int(unanswered.Milliseconds())},
	} {
		_ = raw.Control(func(fd uintptr) {
			if got, err := syscall.GetsockoptInt(int(fd), o.level, o.option); err != nil || got != o.want {
				t.Errorf("%s is %d, %v; want %d", o.name, got, err, o.want)
			}
		})
	}
}
