package scenarios

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P5, P11: who follows the events with the CLI follows on when the node is killed and started
// again: every registration that was acknowledged is told once, in the order of its revisions,
// and ids only rise.
func TestFollowingEventsOverKills(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.New(t, us)
	c.StartAll()
	n := c.Node(us)
	h := n.Client()
	h.Register("orders", "first", api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(10 * time.Minute)})

	follow := exec.Command(cluster.Binary(t), "events", "-f", "-o", "jsonl", "--since", "0", "--addr", n.URL())
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen []api.Event
	var reading sync.WaitGroup
	reading.Go(func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var e api.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Errorf("stdout has something that is no event: %q", lines.Text())
				continue
			}
			mu.Lock()
			seen = append(seen, e)
			mu.Unlock()
		}
	})
	defer func() {
		_ = follow.Process.Kill()
		reading.Wait()
		_ = follow.Wait()
	}()
	told := func(id string) func() error {
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			if slices.ContainsFunc(seen, func(e api.Event) bool { return e.Kind == api.EventRegister && e.Subject == "orders/"+id }) {
				return nil
			}
			return fmt.Errorf("not among %d events", len(seen))
		}
	}
	cluster.Within(t, 30*time.Second, "the first registration is told", told("first"))
	const kills, each = 3, 5
	var acked []string
	for round := range kills {
		for i := range each {
			id := fmt.Sprintf("r%d-%d", round, i)
			h.Register("orders", id, api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(10 * time.Minute)})
			acked = append(acked, id)
		}
		// What was read survives kill -9; so it has to be read first.
		cluster.Within(t, 30*time.Second, "the round is told", told(acked[len(acked)-1]))
		n.Kill()
		n.Start()
	}
	if _, err := h.Do(http.MethodPut, api.PathInstance("orders", "first")+"/drain", api.Drain{Note: "last"}, nil); err != nil {
		t.Fatal(err)
	}
	cluster.Within(t, 60*time.Second, "what happens after the last start is told", func() error {
		mu.Lock()
		defer mu.Unlock()
		if e := seen[len(seen)-1]; e.Kind != api.EventDrain {
			return fmt.Errorf("the last is %s %s", e.Kind, e.Subject)
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	var id, revision uint64
	var registered []string
	starts := 0
	for _, e := range seen {
		if e.ID <= id {
			t.Errorf("P5: the id %d comes after %d", e.ID, id)
		}
		id = e.ID
		switch e.Kind {
		case api.EventRegister:
			if e.Revision <= revision {
				t.Errorf("revision %d after %d", e.Revision, revision)
			}
			revision = e.Revision
			registered = append(registered, e.Subject[len("orders/"):])
		case api.EventNodeStart:
			starts++
		}
	}
	if want := append([]string{"first"}, acked...); !slices.Equal(registered, want) {
		t.Errorf("told %q, acknowledged %q", registered, want)
	}
	if starts != kills+1 {
		t.Errorf("%d starts are told, %d were", starts, kills+1)
	}
	t.Logf("%d kills, %d registrations, %d events, none lost or twice", kills, len(acked)+1, len(seen))
}
