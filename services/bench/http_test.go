package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

const (
	clients = 64
	turns   = 9
	turn    = 500 * time.Millisecond
)

// seed registers services of ten instances each, with the given number of metadata keys.
func seed(b *testing.B, s *server, services, metadata int) {
	b.Helper()
	seedEach(b, s, services, 10, metadata)
}

// seedEach registers services of so many instances each.
func seedEach(b *testing.B, s *server, services, each, metadata int) {
	b.Helper()
	c := dial(b, s.Node)
	defer c.Close()
	meta := map[string]string{}
	for i := range metadata {
		meta[fmt.Sprintf("key-%d", i)] = fmt.Sprintf("value of key %d", i)
	}
	var batch api.Batch
	flush := func() {
		body, err := json.Marshal(batch)
		if err != nil {
			b.Fatal(err)
		}
		for tries := 1; ; tries++ { // a disk that stands still for seconds is not what is measured
			status, answer, err := c.call(request("POST", api.PathBatchRegister, body), true)
			if err != nil || status != 200 || tries == 10 {
				b.Fatalf("seeding: status %d, %v: %.300s", status, err, answer)
			}
			if bytes.Contains(answer, []byte(`"failed":0`)) {
				break
			}
		}
		batch.Instances = batch.Instances[:0]
	}
	for n := range services * each {
		batch.Instances = append(batch.Instances, api.BatchRegistration{
			Service: api.ServiceName(fmt.Sprintf("s%d", n/each)), ID: api.InstanceID(fmt.Sprintf("i%d", n)),
			Registration: api.Registration{
				Address: fmt.Sprintf("10.0.%d.%d", n>>8&255, n&255), Port: 8080, Zone: api.Zone([]string{"a", "b", "c"}[n%3]),
				Version: "1.4.2", Tags: []string{"http"}, Metadata: meta, TTL: api.Duration(api.MaxTTL),
			},
		})
		if len(batch.Instances) == 1000 {
			flush()
		}
	}
	if len(batch.Instances) > 0 {
		flush()
	}
}

// sides prepares a load on the node and the same on the bare handler, which answers
// the bytes that the node answered.
func sides(b *testing.B, s *server, req []byte) (ours, theirs *load) {
	b.Helper()
	c := dial(b, s.Node)
	defer c.Close()
	status, body, err := c.call(req, true)
	if err != nil || status != 200 {
		b.Fatalf("status %d, %v: %.300s", status, err, body)
	}
	s.tell("answer " + strings.TrimSuffix(string(body), "\n"))
	b.Logf("%.40q is answered with %d bytes", req, len(body))
	return newLoad(b, s.Node, clients, fixed(req)), newLoad(b, s.Bare, clients, fixed(req))
}

// measured is a load, with the processor time that each of its calls costs the server.
func measured(b *testing.B, s *server, run func(*testing.B, time.Duration) float64, used *[]float64) func(time.Duration) float64 {
	return func(d time.Duration) float64 {
		before, began := s.cpu(), time.Now()
		rate := run(b, d)
		*used = append(*used, (s.cpu()-before).Seconds()/(rate*time.Since(began).Seconds())*1e6)
		return rate
	}
}

// ownCPU returns the processor time of this process, the client.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHTTP takes the figures of the HTTP door on a catalogue of 10,000 instances.
func BenchmarkHTTP(b *testing.B) {
	if b.N > 1 {
		return // all was said in the first round
	}
	s := startServer(b, b.TempDir())
	seed(b, s, 1000, 2)
	b.ReportMetric(0, "ns/op")

	versus := func(what, goal string, least float64, req []byte) {
		ours, theirs := sides(b, s, req)
		var a, c []float64
		if p := os.Getenv("NEARSIDE_BENCH_PROFILE"); p != "" {
			ours.run(b, turn)
			s.tell("profile " + p + "-" + strings.Fields(what)[0] + ".prof")
			ours.run(b, 4*time.Second)
			s.tell("profile")
		}
		our, their, ratio := duel(b, turns, turn, measured(b, s, ours.run, &a), measured(b, s, theirs.run, &c))
		report(b, figure{
			what: what, got: fmt.Sprintf("%.0f requests/s, server %.1f µs each", our, median(a)),
			yardstick: fmt.Sprintf("bare echo %.0f/s, %.1f µs: %.0f %%", their, median(c), 100*ratio), goal: goal, reached: ratio >= least,
		})
	}
	versus("heartbeats through HTTP, one each", "≥ 80 % of bare echo", 0.8,
		request("PUT", "/v1/services/s7/instances/i73/heartbeat?incarnation=0", nil))
	versus("resolve through HTTP, 10 instances of 10,000", "≥ 70 % of bare echo", 0.7, request("GET", "/v1/resolve/s7?zone=a", nil))
	batches(b, s)
}

// batches beats 100 hearts with each request.
func batches(b *testing.B, s *server) {
	var batch api.Batch
	for i := range 100 {
		batch.Heartbeats = append(batch.Heartbeats, api.BatchHeartbeat{Service: api.ServiceName(fmt.Sprintf("s%d", i/10)), ID: api.InstanceID(fmt.Sprintf("i%d", i))})
	}
	body, err := json.Marshal(batch)
	if err != nil {
		b.Fatal(err)
	}
	ours, _ := sides(b, s, request("POST", api.PathBatchHeartbeats, body))
	ours.run(b, turn)
	if p := os.Getenv("NEARSIDE_BENCH_PROFILE"); p != "" {
		s.tell("profile " + p + "-batch.prof")
		defer s.tell("profile")
	}
	var rates, server, client []float64
	for range turns {
		before, own, began := s.cpu(), ownCPU(), time.Now()
		rate := ours.run(b, turn)
		calls := rate * time.Since(began).Seconds()
		rates = append(rates, 100*rate)
		server = append(server, (s.cpu()-before).Seconds()/calls*1e6)
		client = append(client, (ownCPU()-own).Seconds()/calls*1e6)
	}
	rate, us := median(rates), median(server)
	report(b, figure{
		what: "heartbeats through HTTP, 100 in a batch", got: fmt.Sprintf("%.0f instances/s", rate),
		yardstick: fmt.Sprintf("a batch: server %.0f µs, client %.0f µs", us, median(client)), goal: "≥ 500,000 instances/s and node", reached: rate >= 500_000,
	})
}
