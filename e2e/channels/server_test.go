// Package channels holds the stories of gRPC channels over several regions, told with real
// nodes and real gRPC servers: processes that register themselves and can be killed.
package channels

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/nearside/nearside/e2e/cluster"
	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/child"
)

const (
	us = api.Region("us-east")
	eu = api.Region("eu-west")

	service = "orders"
	method  = "grpc.health.v1.Health/Check"
)

// serveWord as the first argument makes this program a server instead of the tests.
const serveWord = "serve-orders"

// TestMain is also the server's main: the tests start this program anew.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == serveWord {
		if err := serve(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve serves gRPC and registers with the node, until it is killed.
func serve(node, region, id string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, who{region: region})
	client, err := nearside.New(nearside.Config{Addresses: []string{node}, Region: api.Region(region)})
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Register(context.Background(), nearside.Registration{
		Service: service, ID: id, Address: "127.0.0.1", Port: 1, // nothing speaks HTTP there
		Ports: map[string]int{"grpc": l.Addr().(*net.TCPAddr).Port},
	})
	if err != nil {
		return err
	}
	return s.Serve(l)
}

// who answers where it is.
type who struct {
	healthpb.UnimplementedHealthServer
	region string
}

func (w who) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	_ = grpc.SetTrailer(ctx, metadata.Pairs("served-in", w.region))
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// world is regions of one node each, and servers.
type world struct {
	*cluster.Cluster
	t       *testing.T
	nursery *child.Nursery
	servers map[api.Region][]*child.Process
}

func newWorld(t *testing.T) *world {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, nursery: child.NewNursery(self), servers: map[api.Region][]*child.Process{}}
	t.Cleanup(func() {
		for _, list := range w.servers {
			for _, p := range list {
				p.Kill()
			}
		}
		w.nursery.Close()
	})
	w.Cluster = cluster.New(t, us, eu)
	w.StartAll()
	return w
}

// serve starts so many servers of a region.
func (w *world) serve(r api.Region, n int) {
	w.t.Helper()
	w.servers[r] = nil
	for i := range n {
		name := fmt.Sprintf("%s-%d", r, i)
		p, err := w.nursery.Spawn(name, filepath.Join(w.Dir, name+".log"), nil, serveWord, w.Node(r).URL(), string(r), name)
		if err != nil {
			w.t.Fatal(err)
		}
		w.servers[r] = append(w.servers[r], p)
	}
}

// signal reaches all servers of a region.
func (w *world) signal(r api.Region, s syscall.Signal) {
	for _, p := range w.servers[r] {
		p.Signal(s)
	}
}
