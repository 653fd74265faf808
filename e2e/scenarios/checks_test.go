package scenarios

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// patient is a program whose health the test decides.
type patient struct {
	host string
	port int
	sick atomic.Bool
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if p.sick.Load() {
			http.Error(w, "database password is hunter2", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(srv.Close)
	host, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p.host = host
	if p.port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	return p
}

// P1, P3, P7: the region asks a real program over HTTP how it is. Its status follows, with
// cause and since, in the record, in what is resolved and in the event log; flapping is damped;
// and a liveness check that failed for its deregister_after removes it.
func TestChecksOfARealProgram(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.New(t, us)
	c.StartAll()
	h := c.Node(us).Client()
	p, other := newPatient(t), newPatient(t)
	second := api.Duration(time.Second)
	ready := api.Check{Kind: api.CheckHTTP, Path: "/healthz", Interval: second, Timeout: second, FailuresBeforeCritical: 1}
	h.Register("orders", "a", api.Registration{Address: p.host, Port: p.port, Checks: []api.Check{ready}})
	h.Register("orders", "b", api.Registration{Address: other.host, Port: other.port, Checks: []api.Check{ready}})
	instance := func(id string) api.Instance {
		var in api.Instance
		if _, err := h.Do(http.MethodGet, api.PathInstance("orders", api.InstanceID(id)), nil, &in); err != nil {
			t.Fatal(err)
		}
		return in
	}
	becomes := func(want api.Status) api.Instance {
		t.Helper()
		var in api.Instance
		cluster.Within(t, 30*time.Second, "orders/a is "+string(want), func() error {
			if in = instance("a"); in.Status != want {
				return fmt.Errorf("it is %s (%s)", in.Status, in.StatusNote)
			}
			return nil
		})
		return in
	}
	becomes(api.StatusPassing)

	began := time.Now()
	p.sick.Store(true)
	in := becomes(api.StatusCritical)
	t.Logf("critical %s after the program answered 503", time.Since(began).Round(time.Millisecond))
	if in.StatusNote != "readiness http: 1 × 503" || in.StatusSince.Before(began.Add(-time.Second)) || len(in.CheckResults) != 1 || in.CheckResults[0].LastCode != "503" {
		t.Errorf("%+v", in)
	}
	var res api.Resolution
	if _, err := h.Do(http.MethodGet, api.PathResolve("orders"), nil, &res); err != nil || len(res.Endpoints) != 1 || res.Endpoints[0].ID != "b" {
		t.Errorf("%v, %+v", err, res.Endpoints)
	}
	p.sick.Store(false)
	becomes(api.StatusPassing)

	// To and fro, until it counts as flapping: then the worse status stays.
	flaps := 0
	for ; flaps < 12 && !strings.Contains(in.StatusNote, "flapping"); flaps++ {
		p.sick.Store(true)
		in = becomes(api.StatusCritical)
		if strings.Contains(in.StatusNote, "flapping") {
			break
		}
		p.sick.Store(false)
		becomes(api.StatusPassing)
	}
	if !strings.Contains(in.StatusNote, "flapping: passes after 30s without a failure") {
		t.Fatalf("%d outages and no damping: %s", flaps, in.StatusNote)
	}
	p.sick.Store(false)
	events := func(kind api.EventKind) []api.Event {
		var list api.EventList
		if _, err := h.Do(http.MethodGet, api.PathEvents+"?since=0&ns=default&subject=orders/a&kind="+string(kind), nil, &list); err != nil {
			t.Fatal(err)
		}
		return list.Events
	}
	told := events(api.EventStatus)
	// Well again, and held: five rounds of the check say nothing.
	cluster.Within(t, 20*time.Second, "five rounds while it is held", func() error {
		now := instance("a")
		if now.Status != api.StatusCritical {
			t.Fatalf("it passes although it flaps: %+v", now)
		}
		if r := now.CheckResults[0]; r.LastCode != "200" || r.LastAt.Sub(in.CheckResults[0].Since) < 5*time.Second {
			return fmt.Errorf("last asked at %s: %s", r.LastAt, r.LastCode)
		}
		return nil
	})
	if now := events(api.EventStatus); len(now) != len(told) {
		t.Errorf("%d events became %d while the status was held", len(told), len(now))
	}
	for i, e := range told {
		if e.Actor != "checks" || e.Cause.Kind != api.BecauseChecks || e.From == "" || e.To == "" || e.Since.IsZero() || i > 0 && (e.Cause.Ref != told[i-1].ID || e.From != told[i-1].To) {
			t.Errorf("%+v", e)
		}
		if strings.Contains(e.Detail, "hunter2") {
			t.Errorf("what the program answered is told: %s", e.Detail)
		}
	}
	t.Logf("flapping after %d outages, %d events of its status", flaps+2, len(told))

	// A liveness check that fails for its deregister_after ends the registration.
	alive := ready
	alive.Name, alive.Role, alive.DeregisterAfter = "alive", api.RoleLiveness, second
	gone := newPatient(t)
	h.Register("orders", "c", api.Registration{Address: gone.host, Port: gone.port, Checks: []api.Check{alive}})
	began = time.Now()
	gone.sick.Store(true)
	cluster.Within(t, 2*time.Minute, "orders/c is removed", func() error {
		_, err := h.Do(http.MethodGet, api.PathInstance("orders", "c"), nil, nil)
		if api.CodeOf(err) == api.CodeInstanceNotFound {
			return nil
		}
		return fmt.Errorf("it is still there: %v", err)
	})
	t.Logf("removed %s after its liveness check began to fail", time.Since(began).Round(time.Millisecond))
	var list api.EventList
	if _, err := h.Do(http.MethodGet, api.PathEvents+"?since=0&subject=orders/c&kind=evict", nil, &list); err != nil || len(list.Events) != 1 || list.Events[0].Cause.Kind != api.BecauseLiveness || list.Events[0].Cause.Ref == 0 {
		t.Errorf("%v %+v", err, list.Events)
	}

	// P12: nobody can have the region call what is not the instance's to offer.
	for what, reg := range map[string]api.Registration{
		"cloud metadata":  {Address: "169.254.169.254", Port: 80, Checks: []api.Check{ready}},
		"link-local":      {Address: "fe80::1", Port: 80, Checks: []api.Check{ready}},
		"unspecified":     {Address: "0.0.0.0", Port: 80, Checks: []api.Check{ready}},
		"multicast":       {Address: "224.0.0.1", Port: 80, Checks: []api.Check{ready}},
		"the node itself": {Address: p.host, Port: portOf(t, c.Node(us).HTTP), Checks: []api.Check{ready}},
		"another host":    {Address: p.host, Port: p.port, Checks: []api.Check{{Kind: api.CheckHTTP, Path: "//169.254.169.254/latest"}}},
	} {
		_, err := h.Do(http.MethodPut, api.PathInstance("orders", "evil"), reg, nil)
		if code := api.CodeOf(err); code != api.CodeInvalidField && code != api.CodeForbidden {
			t.Errorf("%s: %v", what, err)
		} else {
			t.Logf("%s: %v", what, err)
		}
	}
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
