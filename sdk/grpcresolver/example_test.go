package grpcresolver_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/grpcresolver"
	"github.com/nearside/nearside/sdk/sdktest"
)

// A server registers where it listens; a program calls it by the service's name. The
// registry is a region of sdktest here, so that the example runs; else it is a node's address.
func Example() {
	region := sdktest.NewRegion(nil, "us-east")
	defer region.World().Close()
	client, err := nearside.New(nearside.Config{Addresses: []string{region.URL()}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()

	// The server: listen, register, serve. In the other order callers meet a closed door.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(l) }()
	defer server.GracefulStop() // after its registration is closed
	reg, err := client.Register(context.Background(), nearside.Registration{
		Service: "orders", Address: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = reg.Close(context.Background()) }()

	// The caller.
	conn, err := grpc.NewClient("nearside:///orders", append(
		grpcresolver.DialOptions(client, grpcresolver.WithRetry("grpc.health.v1.Health/Check")),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = conn.Close() }()
	reply, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(reply.Status)
	// Output: SERVING
}
