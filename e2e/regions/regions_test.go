// Package regions holds the stories of several regions, told with real processes: what is
// said between them goes through emulated links (services/wan) or network namespaces.
package regions

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

const (
	us = api.Region("us-east")
	eu = api.Region("eu-west")
	ap = api.Region("ap-south")
)

// patience is for whatever has no other bound: a machine three times slower than most.
const patience = time.Minute

// These stories wait more than they work: more of them run at a time than there are
// processors, unless -parallel says otherwise.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil && f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0)))
	}
	os.Exit(m.Run())
}

// world is some regions of one node each, with a line between every two of them.
type world struct {
	*cluster.Cluster
	t       *testing.T
	regions []api.Region
	links   *cluster.Links
	clients map[api.Region]*cluster.HTTP
	emptied map[api.Region]bool // came back without what it had: the others hold its rows, and suspect it
}

// newWorld allocates the regions; nothing runs yet.
func newWorld(t *testing.T, regions ...api.Region) *world {
	t.Helper()
	w := &world{Cluster: cluster.New(t, regions...), t: t, regions: regions, clients: map[api.Region]*cluster.HTTP{}, emptied: map[api.Region]bool{}}
	w.links = w.Link()
	for _, r := range regions {
		w.clients[r] = w.Node(r).Client()
	}
	return w
}

// federation returns what a region says of its links.
func (w *world) federation(r api.Region) (info api.FederationInfo, err error) {
	_, err = w.clients[r].Do(http.MethodGet, api.PathFederation, nil, &info)
	return info, err
}

// fill registers instances of a service, which need no heartbeats for the length of a test.
func fill(t *testing.T, h *cluster.HTTP, service string, count int, change func(i int, r *api.Registration)) {
	t.Helper()
	var b api.Batch
	flush := func() {
		eventually(t, "instances of "+service+" are registered", func() error {
			var out api.BatchResults
			status, err := h.Do(http.MethodPost, api.PathBatchRegister, b, &out)
			if status == http.StatusNotFound { // the oldest program has no batches
				err = nil
				for _, i := range b.Instances {
					h.Register(string(i.Service), string(i.ID), i.Registration)
				}
			}
			for _, r := range out.Results {
				if err == nil {
					err = r.Err()
				}
			}
			return err
		})
		b.Instances = nil
	}
	for i := range count {
		reg := api.Registration{Address: "127.0.0.1", Port: 10000 + i, Zone: api.Zone([]string{"a", "b"}[i%2]), TTL: api.Duration(api.MaxTTL)}
		if change != nil {
			change(i, &reg)
		}
		b.Instances = append(b.Instances, api.BatchRegistration{
			Service: api.ServiceName(service), ID: api.InstanceID(fmt.Sprintf("%s-%d", service, i)), Registration: reg,
		})
		if len(b.Instances) == 500 {
			flush()
		}
	}
	if len(b.Instances) > 0 {
		flush()
	}
}

// eventually repeats a write that a slow disk refused for now; it fails the test at any other refusal.
func eventually(t *testing.T, what string, write func() error) {
	t.Helper()
	cluster.Within(t, patience, what, func() error {
		err := write()
		var e *api.Error
		if errors.As(err, &e) && !e.Code.Retryable() {
			t.Fatalf("%s: %v", what, err)
		}
		return err
	})
}

// link returns a region's link to another one.
func link(info api.FederationInfo, peer api.Region) (api.LinkInfo, error) {
	for _, l := range info.Links {
		if l.Peer == peer {
			return l, nil
		}
	}
	return api.LinkInfo{}, fmt.Errorf("%s has no link to %s", info.Region, peer)
}

// agree returns nil if of every ordered pair of regions the reader holds the origin's newest
// version, and both have the same digest of it (P6).
func (w *world) agree(regions ...api.Region) error {
	infos := map[api.Region]api.FederationInfo{}
	for _, r := range regions {
		info, err := w.federation(r)
		if err != nil {
			return err
		}
		infos[r] = info
	}
	for _, reader := range regions {
		for _, origin := range regions {
			if reader == origin {
				continue
			}
			l, err := link(infos[reader], origin)
			if err != nil {
				return err
			}
			o := infos[origin]
			fresh := l.Replica.State == api.AgeFresh || w.emptied[origin] && l.Replica.State == api.AgeSuspect
			if l.State != "connected" || !fresh || l.Replica.Epoch != o.Epoch || l.Replica.Revision != o.Revision {
				return fmt.Errorf("%s has %s at %s/%d (%s, %s, %s), it is at %s/%d", reader, origin, l.Replica.Epoch, l.Replica.Revision, l.State, l.Replica.State, l.LastError, o.Epoch, o.Revision)
			}
			told := false
			for _, r := range o.Readers {
				told = told || r.Region == reader && r.Digest == l.Digest && r.Revision == l.Replica.Revision
			}
			if !told {
				return fmt.Errorf("P6: the digest of %s that %s holds is %s at revision %d; %s has told %+v", origin, reader, l.Digest, l.Replica.Revision, origin, o.Readers)
			}
		}
	}
	return nil
}

// awaitAgreement waits until all agree and returns how long that took.
func (w *world) awaitAgreement(what string, regions ...api.Region) time.Duration {
	w.t.Helper()
	if len(regions) == 0 {
		regions = w.regions
	}
	began := time.Now()
	cluster.Within(w.t, patience, "P6: all digests are equal "+what, func() error { return w.agree(regions...) })
	return time.Since(began)
}

// asQuick fails the test when local answers were much slower at p99 than a yardstick taken in the same
// run. The machine does the rest of the test too, and perhaps other things: only answers that wait for
// what goes on beside them show; how quick they are is for benchmarks.
func asQuick(t *testing.T, when string, yardstick, took []time.Duration) {
	t.Helper()
	const factor, grace = 10, 2 * time.Second
	quiet, p99 := cluster.Percentile(yardstick, 0.99), cluster.Percentile(took, 0.99)
	if limit := factor*quiet + grace; p99 > limit {
		t.Errorf("P10: p99 of local answers %s is %s, want %s at most: %d x %s + %s", when, p99, limit, factor, quiet, grace)
	}
}

// pass lets time go by: what is waited for has no other sign.
func pass(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}
