package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/wan"
)

// oneWay is the delay of the link between the two regions, each way.
const oneWay = 40 * time.Millisecond

// quiet is the time between two changes: longer than deltas are ever held together.
const quiet = 260 * time.Millisecond

// BenchmarkFederation takes the figure of a change in one region until an SDK client in another one
// is told, over an emulated link; the yardstick is what one byte needs over the same kind of link.
func BenchmarkFederation(b *testing.B) {
	if b.N > 1 {
		return
	}
	b.ReportMetric(0, "ns/op")
	dir := b.TempDir()
	binary := program(b, dir)
	_, eu, _ := startRegion(b, binary, mkdir(b, dir, "eu-west"), "eu-west", "--federation-addr", "127.0.0.1:0")
	over := link(b, eu.FederationAddr)
	_, us, _ := startRegion(b, binary, mkdir(b, dir, "us-east"), "us-east", "--federation-addr", "127.0.0.1:0", "--peer", "eu-west=http://"+over.Addr())

	c := dial(b, eu.HTTPAddr)
	defer c.Close()
	for service, count := range map[string]int{"small": 5, "large": 500} {
		var batch api.Batch
		for i := range count {
			batch.Instances = append(batch.Instances, api.BatchRegistration{
				Service: api.ServiceName(service), ID: api.InstanceID(fmt.Sprintf("%s-%d", service, i)), Registration: api.Registration{
					Address: fmt.Sprintf("10.0.%d.%d", i>>8, i&255), Port: 8080, Zone: api.Zone([]string{"a", "b", "c"}[i%3]), Version: "1.4.2",
					Metadata: map[string]string{"shard": "7", "owner": "checkout"}, TTL: api.Duration(api.MaxTTL),
				},
			})
		}
		body, err := json.Marshal(batch)
		if err != nil {
			b.Fatal(err)
		}
		if status, answer, err := c.call(request("POST", api.PathBatchRegister, body), true); err != nil || status != 200 || !strings.Contains(string(answer), `"failed":0`) {
			b.Fatalf("status %d, %v: %.300s", status, err, answer)
		}
	}
	client, err := nearside.New(nearside.Config{Addresses: []string{us.HTTP}, Region: "us-east"})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()

	one := bareLink(b)
	for _, service := range []struct {
		name, size string
	}{{"small", "5"}, {"large", "500"}} {
		late, bare := acrossRegions(b, client, c, service.name, 50, one)
		p99, bare99 := percentile(late, 99), percentile(bare, 99)
		// A machine that is late itself shows in both.
		report(b, figure{
			what: "change to another region's SDK, of " + service.size + " instances", got: fmt.Sprintf("p50 %s, p99 %s", percentile(late, 50), p99),
			yardstick: fmt.Sprintf("a byte over the link: p50 %s, p99 %s", percentile(bare, 50), bare99),
			goal:      fmt.Sprintf("p99 ≤ the link's, %s or more, + 10 ms", oneWay), reached: p99 <= max(oneWay, bare99)+10*time.Millisecond,
		})
	}
}

func mkdir(b *testing.B, dir, name string) string {
	b.Helper()
	// startRegion makes the data directory; its ready file and its log need this one.
	path := filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o700); err != nil {
		b.Fatal(err)
	}
	return path
}

// link starts an emulated link to an address; it ends with the benchmark.
func link(b *testing.B, target string) *wan.Link {
	b.Helper()
	l, err := wan.Listen("127.0.0.1:0", target, wan.Both(wan.Direction{Delay: api.Duration(oneWay)}))
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(func() {
		stop()
		running.Wait()
	})
	return l
}

// bareLink returns a function that sends one byte over such a link, and returns how long it took.
func bareLink(b *testing.B) func() time.Duration {
	b.Helper()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer target.Close()
	near, err := net.Dial("tcp", link(b, target.Addr().String()).Addr())
	if err != nil {
		b.Fatal(err)
	}
	far, err := target.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
	})
	one := func() time.Duration {
		buf := []byte{0}
		began := time.Now()
		if _, err := near.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := far.Read(buf); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	one() // the first one waits for the handshake
	return one
}

// acrossRegions changes the port of an instance at home again and again, and returns how long after
// each acknowledgement the client of the other region was told, and what bare took before each.
func acrossRegions(b *testing.B, client *nearside.Client, c *conn, service string, times int, bare func() time.Duration) (took, bares []time.Duration) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	type told struct {
		resolution api.Resolution
		at         time.Time
	}
	news := make(chan told, 64)
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = client.Watch(ctx, service, func(r api.Resolution) { news <- told{r, time.Now()} })
	})
	defer watching.Wait()
	defer stop()
	next := func(what string, holds func(api.Resolution) bool) told {
		b.Helper()
		late := time.After(20 * time.Second)
		for {
			select {
			case n := <-news:
				if holds(n.resolution) {
					return n
				}
			case <-late:
				b.Fatalf("%s: not told within 20 s", what)
			}
		}
	}
	first := next("the service is known", func(r api.Resolution) bool { return len(r.Endpoints) > 0 })
	changing := first.resolution.Endpoints[0]
	for n := range times + 5 {
		<-time.After(quiet)
		bares = append(bares, bare())
		port := 20000 + n
		body := fmt.Appendf(nil, `{"address":%q,"port":%d,"zone":%q,"ttl":"24h","version":"1.4.2","metadata":{"shard":"7","owner":"checkout"}}`, changing.Address, port, changing.Zone)
		status, answer, err := c.call(request("PUT", api.PathInstance(api.ServiceName(service), changing.ID), body), true)
		acked := time.Now()
		if err != nil || status/100 != 2 {
			b.Fatalf("status %d, %v: %.200s", status, err, answer)
		}
		got := next(fmt.Sprintf("change %d", n), func(r api.Resolution) bool {
			for _, e := range r.Endpoints {
				if e.ID == changing.ID && e.Port == port {
					return true
				}
			}
			return false
		})
		if n >= 5 { // the first warm up
			took = append(took, got.at.Sub(acked))
		}
	}
	return took, bares
}
