package scenarios

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// Registrations through the API of three nodes of one region, each fsynced by a quorum, by 64
// clients. One node in the same run is the yardstick; all of it shares the machine.
func BenchmarkRegisterNodes(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			c := cluster.NewRegion(b, us, nodes)
			begun := time.Now()
			c.StartAll()
			b.Logf("%d nodes ready after %s", nodes, time.Since(begun).Round(time.Millisecond))
			var clients []*cluster.HTTP
			for _, n := range c.Nodes(us) {
				clients = append(clients, n.Client())
			}
			var next atomic.Int64
			b.SetParallelism(32) // of 2 processors: 64 clients
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := next.Add(1)
					_, err := clients[i%int64(len(clients))].Do(http.MethodPut, api.PathInstance("orders", api.InstanceID(fmt.Sprintf("o%d", i))),
						api.Registration{Address: "10.0.0.1", Port: 8080, TTL: long}, nil)
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "registrations/s")
		})
	}
}
