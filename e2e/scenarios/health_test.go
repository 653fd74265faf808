package scenarios

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P3, P7, test 21 on the wire: from just over half of the instances critical to all of them,
// /v1/resolve and an SDK always have an answer; all critical means all of them, flagged.
func TestPanicRoutingOnTheWire(t *testing.T) {
	const total = 20
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	h := n.Client()
	for i := range total {
		h.Register("web", fmt.Sprintf("w-%02d", i), api.Registration{Address: "127.0.0.1", Port: 80 + i, TTL: api.Duration(time.Hour)})
	}
	sdk := newCaller(t, n, "web")
	for failing := 1; failing <= total; failing++ {
		path := api.PathInstance("web", api.InstanceID(fmt.Sprintf("w-%02d", failing-1))) + "/status"
		if _, err := h.Do(http.MethodPut, path, api.StatusChange{Status: api.StatusCritical, Note: "test"}, nil); err != nil {
			t.Fatal(err)
		}
		if failing <= total/2 {
			continue
		}
		r, err := h.Resolve("web")
		if err != nil {
			t.Fatal(err)
		}
		want := total - failing
		if failing == total {
			want = total
		}
		if len(r.Endpoints) != want || r.Decision.Panic != (failing == total) {
			t.Errorf("P7: %d of %d are critical: %d endpoints, panic %v, %s", failing, total, len(r.Endpoints), r.Decision.Panic, r.Decision.Detail)
		}
	}
	r, err := h.Resolve("web")
	if err != nil || r.Decision.Reason != api.ReasonPanic {
		t.Errorf("all critical: %+v %v", r.Decision, err)
	}
	t.Logf("all critical: %s; %s", r.Decision.Detail, sdk)
	sdk.end(t)
}

// P8, catalogue row 32: an instance whose check fails and passes every second. It is held at
// the worse status before long, so watchers are told a bounded number of changes and not one
// a second.
func TestFlappingInstanceIsDamped(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	var asked atomic.Int64
	flapper := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(flapper.Close)
	n.Client().Register("web", "flapper", api.Registration{
		Address: "127.0.0.1", Port: flapper.Listener.Addr().(*net.TCPAddr).Port, TTL: api.Duration(time.Hour),
		Checks: []api.Check{{Kind: api.CheckHTTP, Path: "/", Interval: api.Duration(time.Second), SuccessBeforePassing: 1, FailuresBeforeCritical: 1}},
	})
	resp, err := http.Get(n.URL() + api.PathWatch + "?service=web")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var changes atomic.Int64
	told := make(chan struct{})
	go func() {
		defer close(told)
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var f api.Frame
			if ok && json.Unmarshal([]byte(data), &f) == nil && f.Op != "" {
				changes.Add(1)
			}
		}
	}()
	watched := cluster.SoakFor(t, 16*time.Second)
	pass(watched)
	resp.Body.Close()
	<-told
	looks, seen := asked.Load(), changes.Load()
	var in api.Instance
	if _, err := n.Client().Do(http.MethodGet, api.PathInstance("web", "flapper"), nil, &in); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d looks in %s, every other one failed: watchers were told %d changes; it is %s (%s)", looks, watched, seen, in.Status, in.StatusNote)
	// Six changes in ten minutes are flapping; then it is held for half a minute and longer.
	bound := int64(8 + 4*watched/(30*time.Second))
	if looks < 10 || seen == 0 || seen > bound {
		t.Errorf("P8: %d looks, %d changes told; at most %d are right", looks, seen, bound)
	}
}
