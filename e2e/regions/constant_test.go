package regions

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P8, test 24: constant work. Three regions of 200 instances, of which none, half and all are
// critical; what each of them tells a fourth one at rest is the same, give or take 20 %, and so is the time
// of a processor that it takes (which the long form holds it to: seconds of rest tell too little).
func TestConstantWork(t *testing.T) {
	t.Parallel() // it waits more than it works
	cluster.Seedless(t)
	const services, instances = 40, 5
	share := map[api.Region]int{us: 0, eu: 50, ap: 100}
	reader := api.Region("sa-east")
	w := newWorld(t, us, eu, ap, reader)
	w.StartAll()
	sick := 0
	for r, percent := range share {
		for s := range services {
			fill(t, w.clients[r], fmt.Sprintf("service-%d", s), instances, nil)
		}
		for n := range services * instances * percent / 100 {
			service := fmt.Sprintf("service-%d", n%services)
			path := api.PathInstance(api.ServiceName(service), api.InstanceID(fmt.Sprintf("%s-%d", service, n/services)))
			eventually(t, "an instance is critical", func() error {
				_, err := w.clients[r].Do(http.MethodPut, path+"/status", api.StatusChange{Status: api.StatusCritical}, nil)
				return err
			})
			sick++
		}
	}
	w.awaitAgreement("before the measurement")
	pass(2 * time.Second) // the first pings, which come at once, are over
	for r, percent := range share {
		info, err := w.clients[r].Region(r)
		if err != nil || info.Instances != services*instances || info.Passing != services*instances*(100-percent)/100 {
			t.Fatalf("%s has %d of %d instances passing, want %d %% critical: %v", r, info.Passing, info.Instances, percent, err)
		}
	}

	// A whole number of the five seconds from one ping to the next. A process that was starved tells less
	// than it should: one time in three without that is enough.
	long := cluster.SoakFor(t, 0) > 0
	hold := cluster.SoakFor(t, 5*time.Second).Round(5 * time.Second)
	for try := 1; ; try++ {
		before, began := map[api.Region]int64{}, time.Now()
		worked := map[api.Region]time.Duration{}
		for r := range share {
			before[r], worked[r] = w.links.Bytes(r, reader), busy(t, w, r)
		}
		pass(hold)
		rate, even := map[api.Region]float64{}, true
		for r := range share {
			rate[r] = float64(w.links.Bytes(r, reader)-before[r]) / time.Since(began).Seconds()
			worked[r] = busy(t, w, r) - worked[r]
			t.Logf("%3d %% critical: %.0f bytes/s from %s at rest, %.1f %% of a processor", share[r], rate[r], r, 100*worked[r].Seconds()/time.Since(began).Seconds())
		}
		for r := range share {
			even = even && rate[us] > 0 && rate[r] >= 0.8*rate[us] && rate[r] <= 1.2*rate[us]
			if noise := hold.Seconds() / 100; long { // a hundredth of a processor
				w, quiet := worked[r].Seconds(), worked[us].Seconds()
				even = even && w >= 0.8*quiet-noise && w <= 1.2*quiet+noise
			}
		}
		if even {
			break
		}
		if try == 3 {
			t.Fatalf("P8: three times in a row the work was not constant: %v bytes/s, %v of a processor", rate, worked)
		}
	}
	t.Logf("%d services x %d instances, %d critical, over %s", services, instances, sick, hold)
}

// busy is the processor time that a region's node has used.
func busy(t *testing.T, w *world, r api.Region) time.Duration {
	t.Helper()
	d, err := w.Node(r).CPU()
	if err != nil {
		t.Fatal(err)
	}
	return d
}
