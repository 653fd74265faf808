package scenarios

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// P8, catalogue row 33: ten watchers vanish behind a network that drops their packets: no end
// of the connection reaches the node. It notices by what they do not acknowledge, and frees
// them within half a minute; a watcher that is reached is told bookmarks all the while. (That
// the SDK dials again when bookmarks stay away is sdk.TestSilentWatchIsOpenedAgainAndResumes,
// a reader that does not read is httpapi.TestSlowClientLosesItsWatch.)
func TestHalfOpenWatch(t *testing.T) {
	t.Parallel() // it waits more than it works
	const watchers = 10
	far := newFarHost(t)
	c := cluster.New(t, us)
	n := c.Node(us)
	_, port, err := net.SplitHostPort(n.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	n.HTTP = net.JoinHostPort(far.here, port)
	n.Extra = []string{"--dev-allow-remote"}
	c.StartAll()
	h := n.Client()
	h.Register("web", "w-1", api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour)})
	open := func() (float64, error) { return n.Metric("nearside_registry_watches") }
	fdsBefore, err := fdsOf(n.PID())
	if err != nil {
		t.Fatal(err)
	}
	for range watchers {
		far.start(t, cluster.Binary(t), "watch", "web", "--addr", n.URL(), "-o", "jsonl")
	}
	near, err := http.Get(n.URL() + api.PathWatch + "?service=web")
	if err != nil {
		t.Fatal(err)
	}
	defer near.Body.Close()
	cluster.Within(t, 10*time.Second, "all watch", func() error {
		w, err := open()
		if err == nil && w != watchers+1 {
			err = fmt.Errorf("%.0f do", w)
		}
		return err
	})
	far.vanish(t)
	vanished := time.Now()
	cluster.Within(t, 40*time.Second, "the node has freed the watchers that vanished", func() error {
		w, err := open()
		if err == nil && w > 1 {
			err = fmt.Errorf("%.0f watches are open", w)
		}
		return err
	})
	freed := time.Since(vanished)
	cluster.Within(t, 10*time.Second, "their descriptors are free", func() error {
		f, err := fdsOf(n.PID())
		if err == nil && f > fdsBefore+4 {
			err = fmt.Errorf("%d, were %d", f, fdsBefore)
		}
		return err
	})
	bookmarks := 0
	for lines := bufio.NewScanner(near.Body); bookmarks < 2 && lines.Scan(); {
		if lines.Text() == "event: bookmark" {
			bookmarks++
		}
	}
	if bookmarks < 2 {
		t.Error("P5: the watcher that is reached has no bookmarks")
	}
	t.Logf("%d watchers freed %s after their network dropped everything", watchers, freed.Round(100*time.Millisecond))
}

// farHost is a network namespace with one link to this one.
type farHost struct {
	name, here, there string
}

// newFarHost makes one. The test is skipped, and says why, where the machine does not allow it.
func newFarHost(t *testing.T) *farHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a network namespace")
	}
	id := os.Getpid()
	f := &farHost{
		name: fmt.Sprintf("nearside-%d", id),
		here: fmt.Sprintf("10.%d.%d.1", 200+id%50, id/50%250), there: fmt.Sprintf("10.%d.%d.2", 200+id%50, id/50%250),
	}
	link, peer := fmt.Sprintf("ns%da", id), fmt.Sprintf("ns%db", id)
	t.Cleanup(func() {
		_ = exec.Command("ip", "link", "del", link).Run()
		_ = exec.Command("ip", "netns", "del", f.name).Run()
	})
	for _, step := range []string{
		"netns add " + f.name,
		"link add " + link + " type veth peer name " + peer + " netns " + f.name,
		"addr add " + f.here + "/24 dev " + link,
		"link set " + link + " up",
		"netns exec " + f.name + " ip addr add " + f.there + "/24 dev " + peer,
		"netns exec " + f.name + " ip link set " + peer + " up",
	} {
		out, err := exec.Command("ip", strings.Fields(step)...).CombinedOutput()
		if err != nil {
			t.Skipf("needs network namespaces: ip %s: %v: %s", step, err, strings.TrimSpace(string(out)))
		}
	}
	return f
}

// start runs a program there until the test ends.
func (f *farHost) start(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", f.name, program}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// vanish drops whatever is sent from there.
func (f *farHost) vanish(t *testing.T) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", f.name, "ip", "route", "add", "blackhole", f.here+"/32").CombinedOutput()
	if err != nil {
		t.Fatalf("ip route: %v: %s", err, out)
	}
}
