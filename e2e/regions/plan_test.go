package regions

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/sdk/api"
)

// P4, P7, test 22 and catalogue row 56: a delayed publisher of eu-west applies an old plan, that of a generation
// which ended, and then its cleaner removes everything. us-east refuses it each time, n of n, and goes on with
// what it has, which is shown as older and older. And a second publisher that was started on eu-west's old data directory
// is not asked while the first one lives.
func TestStalePlanNotApplied(t *testing.T) {
	t.Parallel() // it waits more than it works
	w := newWorld(t, us, eu)
	var plan atomic.Pointer[[]byte]
	var sent atomic.Int64
	delayed := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p := plan.Load()
		if p == nil || r.URL.Path != peer.PathStream {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		rw.Header().Set("Content-Type", peer.StreamType)
		_, _ = rw.Write(*p)
		sent.Add(1)
	}))
	defer delayed.Close()
	// The second publisher's own address is known too.
	zombie := cluster.New(t, eu)
	n := w.Node(us)
	n.Extra = []string{"--peer", "eu-west=" + delayed.URL + ",http://" + zombie.Node(eu).Federation}
	w.StartAll()

	// Generation 1: three instances at ports from 10000 on.
	fill(t, w.clients[eu], "orders", 3, nil)
	fill(t, w.clients[eu], "retired", 3, nil)
	w.awaitAgreement("in the first generation")
	old := record(t, w.Node(eu).Federation, eu)
	first, err := w.federation(eu)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Node(eu).Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.Node(eu).DataDir, zombie.Node(eu).DataDir); err != nil {
		t.Fatal(err)
	}
	// Generation 2: others, at ports from 20000 on.
	w.Node(eu).Start()
	fill(t, w.clients[eu], "orders", 5, func(i int, r *api.Registration) { r.Port = 20000 + i })
	fill(t, w.clients[eu], "retired", 3, func(i int, r *api.Registration) { r.Port = 20000 + i })
	w.awaitAgreement("in the second generation")
	second, err := w.federation(eu)
	if err != nil || second.Epoch == first.Epoch {
		t.Fatalf("P4: the epoch was %s and is %s (%v)", first.Epoch, second.Epoch, err)
	}
	v := w.watchOver("orders")
	plainlyNew := func() error {
		var list api.InstanceList
		if _, err := w.clients[us].Do(http.MethodGet, api.PathInstances("orders")+"?region="+string(eu), nil, &list); err != nil {
			return err
		}
		if len(list.Instances) != 5 {
			return fmt.Errorf("P7: %d of 5 instances are shown", len(list.Instances))
		}
		for _, i := range list.Instances {
			if i.Port < 20000 {
				return fmt.Errorf("P4: an instance of the old plan is shown: %+v", i)
			}
		}
		// With everything gone at once the guard would still show the newer rows.
		info, err := w.clients[us].Region(eu)
		if err == nil && info.Epoch != second.Epoch {
			err = fmt.Errorf("P4: us-east follows %s/%d", info.Epoch, info.Revision)
		}
		return err
	}
	hold := func(what string, d time.Duration, until func() bool) {
		t.Helper()
		for begun := time.Now(); time.Since(begun) < d || !until(); {
			if err := plainlyNew(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if time.Since(begun) > d+patience {
				t.Fatalf("not within %s: %s", d+patience, what)
			}
			pass(10 * time.Millisecond)
		}
	}

	// While the publisher of the second generation lives, that of the first one is started again.
	zombie.Node(eu).Extra = []string{"--peer", "us-east=http://" + n.Federation}
	zombie.Node(eu).Start()
	hold("beside a second publisher", 2*time.Second, func() bool { return true })
	if info, err := w.federation(us); err != nil {
		t.Fatal(err)
	} else if l, err := link(info, eu); err != nil || l.Replica.Epoch != second.Epoch || l.State != "connected" {
		t.Errorf("P4: us-east follows %+v, %v", l, err)
	}
	zombie.Node(eu).Kill()

	// Nobody of the second generation answers; the delayed publisher does, and its cleaner after it.
	clean := fmt.Sprintf(`{"kind":"delta","epoch":"%s","from":%d,"to":%d,"deletes":["default/orders","default/retired"],"digest":"0000000000000000"}`+"\n", first.Epoch, first.Revision, first.Revision+1)
	all := bytes.Join([][]byte{old, []byte(clean)}, nil)
	before, err := w.federation(us)
	if err != nil {
		t.Fatal(err)
	}
	v.down(eu)
	w.Node(eu).Kill()
	plan.Store(&all)
	least := int64(4)
	hold("while an old plan is published", cluster.SoakFor(t, 3*time.Second), func() bool { return sent.Load() >= least })
	plan.Store(nil)
	var refused uint64
	cluster.Within(t, patience, "each is refused", func() error {
		after, err := w.federation(us)
		if err != nil {
			return err
		}
		was, err := link(before, eu)
		if err != nil {
			return err
		}
		is, err := link(after, eu)
		if err != nil {
			return err
		}
		if refused = is.Refused - was.Refused; refused < uint64(sent.Load()) {
			return fmt.Errorf("%d of %d (%s)", refused, sent.Load(), is.LastError)
		}
		if is.Replica.Epoch != second.Epoch || is.Replica.Revision < second.Revision {
			return fmt.Errorf("P4: us-east holds %s/%d", is.Replica.Epoch, is.Replica.Revision)
		}
		return nil
	})
	if err := plainlyNew(); err != nil {
		t.Error(err)
	}
	w.Node(eu).Start()
	v.up(eu)
	w.awaitAgreement("after the return of the second generation")
	if err := plainlyNew(); err != nil {
		t.Error(err)
	}
	v.verdict()
	t.Logf("generation %s was published %d times while %s was known (%d bytes, %d frames each): refused %d of %d",
		first.Epoch, sent.Load(), second.Epoch, len(all), strings.Count(string(all), "\n"), refused, sent.Load())
}
