package scenarios

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

const long = api.Duration(time.Hour) // a TTL that no scenario lives to see

// P10, P2 (failures 9 and 16): with two of three nodes gone the third answers every read from
// memory, and says how old it is; what needs a quorum is refused in time; and when they are
// back everyone is still there. Which one is left is drawn; the long form does it again and again.
func TestQuorumLossReads(t *testing.T) {
	t.Parallel() // it waits more than it works
	rng := rand.New(rand.NewPCG(cluster.Seed(t), 9))
	soak := cluster.SoakFor(t, 0)
	c := cluster.NewRegion(t, us, 3)
	c.StartAll()
	nodes := c.Nodes(us)
	const instances = 30
	for i := range instances {
		nodes[i%3].Client().Register("orders", fmt.Sprintf("o%d", i), api.Registration{Address: "10.0.0.1", Port: 8080, TTL: long})
	}
	reads := 0
	for round, begun := 0, time.Now(); round == 0 || time.Since(begun) < soak; round++ {
		i := rng.IntN(3)
		reads += withoutQuorum(t, nodes[i], []*cluster.Node{nodes[(i+1)%3], nodes[(i+2)%3]}, instances)
		for _, n := range nodes {
			cluster.Within(t, 20*time.Second, n.Name+" has everyone, as the quorum confirms", func() error {
				var l api.InstanceList
				if _, err := n.Client().Do(http.MethodGet, api.PathInstances("orders")+"?consistency=strong", nil, &l); err != nil {
					return err
				}
				alive := 0
				for _, in := range l.Instances {
					if in.ID != "late" { // refused, with an outcome that was open
						alive++
					}
				}
				if alive != instances {
					t.Fatalf("%s has %d of %d", n.Name, alive, instances)
				}
				return nil
			})
		}
		if _, err := nodes[i].Client().Do(http.MethodDelete, api.PathInstance("orders", "late"), nil, nil); err != nil && !errors.Is(err, &api.Error{Code: api.CodeInstanceNotFound}) {
			t.Fatal(err)
		}
	}
	t.Logf("%d reads without a quorum, all answered from memory with their age; 0 of %d evicted", reads, instances)
}

// withoutQuorum kills all nodes but one, looks at what that one still does and refuses, and starts
// them again. It returns how many reads were answered.
func withoutQuorum(t *testing.T, left *cluster.Node, others []*cluster.Node, instances int) (reads int) {
	t.Helper()
	survivor := left.Client()
	t.Logf("%s is left", left.Name)
	cluster.Within(t, 10*time.Second, left.Name+" has them all", func() error { return holds(survivor, instances) })
	log, err := os.ReadFile(left.Log())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range others {
		n.Kill()
	}
	// A write finds out at once; reads before and after it are the same.
	for begun := time.Now(); time.Since(begun) < 4*time.Second; {
		resp, err := http.Get(left.URL() + api.PathInstances("orders"))
		if err != nil {
			t.Fatalf("read %d: %v", reads, err)
		}
		if resp.StatusCode != http.StatusOK || resp.Header.Get(api.HeaderSource) != api.SourceMemory || resp.Header.Get(api.HeaderAgeMS) == "" {
			t.Fatalf("read %d: status %d, source %q, age %q", reads, resp.StatusCode, resp.Header.Get(api.HeaderSource), resp.Header.Get(api.HeaderAgeMS))
		}
		resp.Body.Close()
		reads++
		if reads%500 == 1 {
			if err := holds(survivor, instances); err != nil {
				t.Fatal(err)
			}
		}
	}
	for what, call := range map[string]func() (int, error){
		"a strong read": func() (int, error) {
			return survivor.Do(http.MethodGet, api.PathInstances("orders")+"?consistency=strong", nil, nil)
		},
		"a registration": func() (int, error) {
			return survivor.Do(http.MethodPut, api.PathInstance("orders", "late"), api.Registration{Address: "10.0.0.1", Port: 8080, TTL: long}, nil)
		},
	} {
		limit := 5 * time.Second // a write's deadline
		if what == "a strong read" {
			limit = 2 * time.Second
		}
		begun := time.Now()
		status, err := call()
		took := time.Since(begun)
		t.Logf("%s without a quorum: %d after %s: %v", what, status, took.Round(time.Millisecond), err)
		if status != http.StatusServiceUnavailable || !errors.Is(err, &api.Error{Code: api.CodeUnavailable}) {
			t.Errorf("%s without a quorum: %d %v, want 503 unavailable", what, status, err)
		}
		if took > limit+time.Second { // on a loaded machine
			t.Errorf("%s without a quorum took %s, want %s at most", what, took, limit)
		}
	}
	var ready api.Readiness
	cluster.Within(t, 10*time.Second, "/readyz says that the store is away", func() (err error) {
		if ready, err = survivor.Readiness(); err == nil && ready.Ready {
			err = fmt.Errorf("%+v", ready)
		}
		return err
	})
	toldOnce(t, left, len(log))
	for _, n := range others {
		n.Launch()
	}
	for _, n := range others {
		n.AwaitReady()
	}
	return reads
}

// toldOnce checks that the store's process says each thing about a lasting outage a few times, not
// for as long as it lasts: in the part of its log from a place on.
func toldOnce(t *testing.T, n *cluster.Node, from int) {
	t.Helper()
	log, err := os.ReadFile(n.Log())
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]int{}
	for line := range strings.Lines(string(log[from:])) {
		if !strings.Contains(line, "part=etcd") || strings.Contains(line, "level=DEBUG") {
			continue
		}
		_, message, _ := strings.Cut(line, "msg=")
		message, _, _ = strings.Cut(message, "=")
		said[message]++
	}
	t.Logf("etcd without a quorum: %v", said)
	for message, times := range said {
		if times > 3 {
			t.Errorf("the log says %d times: %s", times, message)
		}
	}
}

// holds is nil when a node's memory has n instances of orders.
func holds(h *cluster.HTTP, n int) error {
	l, err := h.Instances("orders")
	if err == nil && len(l.Instances) != n {
		err = fmt.Errorf("%d of %d instances", len(l.Instances), n)
	}
	return err
}

// Failure 18: a node whose disk is lost is replaced by the documented verbs, and counts again
// afterwards. Before that it is refused, with those verbs in the message.
func TestMemberIsReplaced(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.NewRegion(t, us, 3)
	c.StartAll()
	nodes := c.Nodes(us)
	nodes[0].Client().Register("orders", "o1", api.Registration{Address: "10.0.0.1", Port: 8080, TTL: long})
	lost := nodes[2]
	lost.Kill()
	lost.Wipe()

	lost.Launch()
	select {
	case <-lost.Ended():
	case <-time.After(cluster.StartPatience):
		t.Fatal("a node whose disk is lost came back under its old name")
	}
	if log, _ := os.ReadFile(lost.Log()); !strings.Contains(string(log), "region member remove "+lost.Name) {
		t.Errorf("the refusal does not say what to do:\n%s", log)
	}

	verb := func(want int, args ...string) string {
		t.Helper()
		exit, out := c.CLI(append([]string{"region", "member"}, append(args, "--addr", nodes[0].URL())...)...)
		t.Logf("nearside region member %s: exit %d\n%s", strings.Join(args, " "), exit, out)
		if exit != want {
			t.Fatalf("exit %d, want %d", exit, want)
		}
		return out
	}
	verb(10, "list")
	// One more would be the end of the quorum.
	if out := verb(7, "remove", nodes[1].Name); !strings.Contains(out, lost.Name) {
		t.Error("the refusal does not name who is missing")
	}
	verb(0, "remove", lost.Name)
	lost.Wipe()
	added := make(chan string, 1)
	go func() {
		_, out := c.CLI("region", "member", "add", lost.Name+"="+lost.Peer, "--wait", "1m", "--addr", nodes[1].URL())
		added <- out
	}()
	cluster.Within(t, 10*time.Second, "the member is added", func() error {
		list, err := nodes[0].Client().Members(us)
		if err == nil && len(list) != 3 {
			err = fmt.Errorf("%d members", len(list))
		}
		return err
	})
	if out := verb(7, "add", "us-east-4=127.0.0.1:1"); !strings.Contains(out, lost.Name) {
		t.Error("the refusal does not name the member that is pending")
	}
	begun := time.Now()
	lost.Start()
	t.Logf("%s is ready %s after its start\n%s", lost.Name, time.Since(begun).Round(time.Millisecond), <-added)
	verb(0, "list")

	// It counts: with another one gone there is a quorum still.
	leader := c.Leader(us)
	if leader == lost {
		leader = nodes[0]
	}
	leader.Kill()
	var other *cluster.HTTP
	for _, n := range nodes {
		if n != leader {
			other = n.Client()
		}
	}
	cluster.Within(t, 20*time.Second, "writes go on with the new member", func() error {
		_, err := other.Do(http.MethodPut, api.PathInstance("orders", "o2"), api.Registration{Address: "10.0.0.1", Port: 8080, TTL: long}, nil)
		return err
	})
}

// Failure 17, P4: two of three nodes are lost for good. The third becomes the region, in a new
// epoch and with everything it had; watchers are told; and it grows to three again.
func TestRecoverAfterQuorumLoss(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := cluster.NewRegion(t, us, 3)
	c.StartAll()
	nodes := c.Nodes(us)
	load := register(t, c, us, 4)
	load.since(t, time.Now())
	cluster.Within(t, time.Minute, "a few hundred registrations are acknowledged", func() error {
		load.mu.Lock()
		defer load.mu.Unlock()
		if len(load.acked) < 300 {
			return fmt.Errorf("%d", len(load.acked))
		}
		return nil
	})
	load.end()
	survivor := nodes[1]
	var before api.RegionInfo
	cluster.Within(t, 10*time.Second, "the survivor has what was acknowledged", func() error {
		if _, err := survivor.Client().Do(http.MethodGet, api.PathRegion(us), nil, &before); err != nil {
			return err
		}
		if before.Instances < len(load.acked) {
			return fmt.Errorf("%d of %d", before.Instances, len(load.acked))
		}
		return nil
	})
	nodes[0].Kill()
	nodes[2].Kill()

	args := []string{"region", "recover", "--region", string(us), "--node", survivor.Name, "--data-dir", survivor.DataDir}
	if exit, out := c.CLI(append(args, "--confirm", string(us))...); exit != 7 {
		t.Fatalf("recover of a node that runs: exit %d\n%s", exit, out)
	}
	survivor.Kill()
	for _, confirm := range []string{"", string(eu)} {
		exit, out := c.CLI(append(args, "--confirm", confirm)...)
		if exit != 2 || !strings.Contains(out, nodes[0].Name) || !strings.Contains(out, "--confirm "+string(us)) {
			t.Fatalf("recover with confirmation %q: exit %d\n%s", confirm, exit, out)
		}
	}
	begun := time.Now()
	exit, out := c.CLI(append(args, "--confirm", string(us))...)
	t.Logf("recover: exit %d after %s\n%s", exit, time.Since(begun).Round(time.Millisecond), out)
	if exit != 0 {
		t.FailNow()
	}
	if kept, _ := filepath.Glob(filepath.Join(survivor.DataDir, "etcd.before-recover-*")); len(kept) != 1 {
		t.Errorf("the old store is not kept: %v", kept)
	}
	if left, _ := filepath.Glob(filepath.Join(survivor.DataDir, ".recovering-*")); len(left) != 0 {
		t.Errorf("the recovery left %v", left)
	}
	survivor.Start()
	var after api.RegionInfo
	client := survivor.Client()
	if _, err := client.Do(http.MethodGet, api.PathRegion(us), nil, &after); err != nil {
		t.Fatal(err)
	}
	if after.Epoch.Generation <= before.Epoch.Generation {
		t.Errorf("epoch %s after %s", after.Epoch, before.Epoch)
	}
	load.keptBy(t, survivor)
	var log api.EventList
	if _, err := client.Do(http.MethodGet, api.PathEvents+"?kind=recover", nil, &log); err != nil || len(log.Events) != 1 {
		t.Errorf("the event log has %+v (%v)", log.Events, err)
	}
	from := api.Version{Region: us, Epoch: before.Epoch, Revision: before.Revision}
	if kind := firstFrame(t, survivor.URL()+api.PathWatch+"?service=orders&from="+from.String()); kind != "reset" {
		t.Errorf("a watcher that resumes from %s is told %q first, want reset", from, kind)
	}

	// It grows to three again: nodes with empty directories, one by one.
	for _, n := range []*cluster.Node{nodes[0], nodes[2]} {
		n.Wipe()
		if exit, out := c.CLI("region", "member", "add", n.Name+"="+n.Peer, "--addr", survivor.URL()); exit != 0 {
			t.Fatalf("add %s: exit %d\n%s", n.Name, exit, out)
		}
		n.Start()
		cluster.Within(t, time.Minute, n.Name+" votes", func() error {
			list, err := client.Members(us)
			if err != nil {
				return err
			}
			for _, m := range list {
				if m.Node == n.Name && m.Role == api.RoleVoter {
					return nil
				}
			}
			return fmt.Errorf("%+v", list)
		})
	}
	survivor.Kill()
	load.keptBy(t, nodes[0])
}

// firstFrame returns the name of the first event of a stream.
func firstFrame(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s := bufio.NewScanner(resp.Body)
	for s.Scan() {
		if kind, ok := strings.CutPrefix(s.Text(), "event:"); ok {
			return strings.TrimSpace(kind)
		}
	}
	t.Fatalf("%s: status %d, no event: %v", url, resp.StatusCode, s.Err())
	return ""
}
