package scenarios

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P9, catalogue row 45: a program that registers through the SDK is stopped (SIGSTOP) for longer
// than its TTL, and goes on. Nobody sees it as well in its old incarnation, not for a moment: it
// says that it is a new one before it says that it lives. Another program that took the id of a
// stopped one keeps it.
func TestSuspendedProgramComesBackAsANewIncarnation(t *testing.T) {
	t.Parallel()                // it waits more than it works
	const ttl = 5 * time.Second // of the shop's programs, see cluster.StartShop
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	shops := map[string]*cluster.Shop{}
	for _, name := range []string{"sleeper", "replaced", "awake"} {
		shops[name] = c.StartShop(us, name, "users")
	}
	h := n.Client()
	instances := func() map[string]api.Instance {
		t.Helper()
		l, err := h.Instances("users")
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]api.Instance{}
		for _, in := range l.Instances {
			for name := range shops {
				if in.ID == api.InstanceID("users-"+name+"-"+string(us)) {
					m[name] = in
				}
			}
		}
		return m
	}
	before := instances()
	if len(before) != 3 {
		t.Fatalf("%d of 3 are registered: %+v", len(before), before)
	}
	for _, name := range []string{"sleeper", "replaced"} {
		shops[name].Signal(syscall.SIGSTOP)
	}
	cluster.Within(t, 3*ttl, "the stopped programs are overdue or gone", func() error {
		now := instances()
		for _, name := range []string{"sleeper", "replaced"} {
			if in, ok := now[name]; ok && !in.Overdue {
				return fmt.Errorf("%s is offered", name)
			}
		}
		return nil
	})
	// Somebody else takes the place of one of them, as an orchestrator would.
	successor := api.Registration{
		Address: "127.0.0.1", Port: 9, TTL: api.Duration(time.Minute), Incarnation: uint64(time.Now().UnixMilli()),
	}
	if _, err := h.Do(http.MethodPut, api.PathInstance("users", before["replaced"].ID), successor, nil); err != nil {
		t.Fatal(err)
	}
	pass(3 * time.Second) // so that the stop is longer than the TTL, and a third more
	for _, name := range []string{"sleeper", "replaced"} {
		shops[name].Signal(syscall.SIGCONT)
	}
	resumed := time.Now()
	var back time.Duration
	for time.Since(resumed) < ttl {
		now := instances()
		if in, ok := now["sleeper"]; ok && !in.Overdue {
			if in.Incarnation <= before["sleeper"].Incarnation {
				t.Fatalf("P9: %s after it went on, the sleeper is well in its old incarnation", time.Since(resumed))
			}
			if back == 0 {
				back = time.Since(resumed)
				if in.Status != api.StatusPassing {
					t.Errorf("back as %s", in.Status)
				}
			}
		}
		if in := now["replaced"]; in.Incarnation != successor.Incarnation || in.Port != 9 {
			t.Fatalf("P9: the successor lost its id to a program that slept: %+v", in)
		}
		if in := now["awake"]; in.Incarnation != before["awake"].Incarnation || in.Overdue {
			t.Fatalf("the program beside them: %+v", in)
		}
		pass(5 * time.Millisecond)
	}
	if back == 0 {
		t.Fatal("P1: the sleeper did not come back within a TTL")
	}
	t.Logf("stopped for longer than its TTL, the sleeper was back %s after it went on, as incarnation %d after %d",
		back.Round(time.Millisecond), instances()["sleeper"].Incarnation, before["sleeper"].Incarnation)
}
