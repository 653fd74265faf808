package scenarios

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/e2e/cluster"
	"github.com/nearside/nearside/sdk/api"
)

// freezer is a file system of its own that can be frozen, as a disk that hangs: whoever
// writes to it waits, uninterruptibly, until it is thawed. So nothing of the test itself may
// touch it while it is frozen.
type freezer struct {
	dir      string
	watchdog *exec.Cmd
}

// newFreezer makes and mounts one. The test is skipped, and says why, where the machine does
// not allow it. Its unmounting comes after everything that is registered later.
func newFreezer(t *testing.T, mib int) *freezer {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system that can be frozen")
	}
	base := t.TempDir()
	f := &freezer{dir: filepath.Join(base, "disk")}
	image := filepath.Join(base, "image")
	for _, step := range [][]string{
		{"mkdir", f.dir},
		{"truncate", "-s", fmt.Sprintf("%dM", mib), image},
		{"mkfs.ext4", "-q", "-F", image},
		{"mount", "-o", "loop", image, f.dir},
		{"fsfreeze", "-f", f.dir},
		{"fsfreeze", "-u", f.dir},
	} {
		out, err := exec.Command(step[0], step[1:]...).CombinedOutput()
		if err != nil {
			_ = exec.Command("umount", f.dir).Run()
			t.Skipf("needs loop devices, ext4 and fsfreeze: %s: %v: %s", strings.Join(step, " "), err, strings.TrimSpace(string(out)))
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", f.dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return f
}

// freeze stops all writing. Another process thaws the file system in time, should this one
// not come to it.
func (f *freezer) freeze(t *testing.T, atMost time.Duration) {
	t.Helper()
	f.watchdog = exec.Command("sh", "-c", `sleep "$1"; exec fsfreeze -u "$2"`, "sh", fmt.Sprintf("%.0f", atMost.Seconds()), f.dir)
	if err := f.watchdog.Start(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("fsfreeze", "-f", f.dir).CombinedOutput(); err != nil {
		f.thaw()
		t.Fatalf("fsfreeze: %v: %s", err, out)
	}
}

// thaw may be called again, and when nothing is frozen.
func (f *freezer) thaw() {
	_ = exec.Command("fsfreeze", "-u", f.dir).Run()
	if f.watchdog != nil {
		_ = f.watchdog.Process.Kill() // its sleep ends by itself and thaws nothing
		_ = f.watchdog.Wait()
		f.watchdog = nil
	}
}

// P2, P10, test 5 and catalogue row 4: the disk hangs for two TTLs while registrations come
// in and 200 instances live. Reads and heartbeats go on; writes are refused in time, with a
// code; /readyz and the event log say why; nobody is evicted, then or at the thaw; writes
// return by themselves, and nothing acknowledged is lost.
func TestDiskStallWithWriter(t *testing.T) {
	t.Parallel() // it waits more than it works
	const instances, writers, ttl = 200, 8, 4 * time.Second
	const deadline = 5*time.Second + 1500*time.Millisecond // of a write, and what a loaded machine adds
	r := rand.New(rand.NewPCG(cluster.Seed(t), 5))
	disk := newFreezer(t, 512)
	c := cluster.New(t, us)
	t.Cleanup(disk.thaw) // before the node is ended: it could not end
	n := c.Node(us)
	n.DataDir = filepath.Join(disk.dir, "data")
	n.Start()
	h := n.Client()
	live := newFleet(t, n, "live", instances, ttl)
	soak := cluster.SoakFor(t, 0)
	begun := time.Now()
	for round := 0; round == 0 || time.Since(begun) < soak; round++ {
		stall := 2 * ttl
		if round > 0 {
			stall = ttl/2 + time.Duration(r.Int64N(int64(4*ttl)))
		}
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var mu sync.Mutex
		var reads, refusals []time.Duration
		acked := map[api.InstanceID]bool{}
		codes := map[api.Code]int{}
		for w := range writers {
			writer := n.Client()
			all.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					id := api.InstanceID(fmt.Sprintf("w-%d-%d-%d", round, w, i))
					sent := time.Now()
					_, err := writer.Do(http.MethodPut, api.PathInstance("ledger", id), api.Registration{Address: "127.0.0.1", Port: 80, TTL: api.Duration(time.Hour)}, nil)
					took := time.Since(sent)
					mu.Lock()
					if err == nil {
						acked[id] = true
					} else {
						codes[api.CodeOf(err)]++
						refusals = append(refusals, took)
						if e := (*api.Error)(nil); !errors.As(err, &e) {
							t.Errorf("P10: a write was refused without a code: %v", err)
						}
					}
					mu.Unlock()
					pass(20 * time.Millisecond)
				}
			})
		}
		all.Go(func() {
			reader := n.Client()
			for ctx.Err() == nil {
				sent := time.Now()
				l, err := reader.Instances("live")
				took := time.Since(sent)
				if err != nil || len(l.Instances) != instances {
					t.Errorf("P10: a read during the stall has %d of %d instances: %v", len(l.Instances), instances, err)
					return
				}
				mu.Lock()
				reads = append(reads, took)
				mu.Unlock()
				pass(10 * time.Millisecond)
			}
		})
		pass(500 * time.Millisecond)
		disk.freeze(t, stall+30*time.Second)
		frozen := time.Now()
		if stall >= 2*ttl {
			cluster.Within(t, stall-time.Second, "/readyz says why", func() error {
				ready, err := h.Readiness()
				if err != nil {
					return err
				}
				for _, check := range ready.Checks {
					if check.Name == "store" && !check.OK && check.Cause != "" {
						t.Logf("/readyz after %s: %s", time.Since(frozen).Round(100*time.Millisecond), check.Cause)
						return nil
					}
				}
				return fmt.Errorf("%+v", ready.Checks)
			})
		}
		pass(stall - time.Since(frozen))
		disk.thaw()
		thawed := time.Now()
		stop()
		all.Wait()
		cluster.Within(t, 20*time.Second, "writes are taken again", func() error {
			_, err := h.Do(http.MethodPut, api.PathInstance("ledger", "after"), api.Registration{Address: "127.0.0.1", Port: 80}, nil)
			return err
		})
		back := time.Since(thawed)
		for time.Since(thawed) < ttl+2*time.Second {
			l, err := h.Instances("live")
			if err != nil || len(l.Instances) != instances {
				t.Fatalf("P2: after the thaw %d of %d instances are listed: %v", len(l.Instances), instances, err)
			}
			pass(50 * time.Millisecond)
		}
		slowest := cluster.Percentile(refusals, 1)
		t.Logf("frozen %s: lost 0 of %d; %d reads, slowest %s; %d writes refused %v, p99 %s, slowest %s; writes back %s after the thaw",
			stall.Round(time.Millisecond), instances, len(reads), cluster.Percentile(reads, 1).Round(time.Millisecond), len(refusals), codes,
			cluster.Percentile(refusals, 0.99).Round(time.Millisecond), slowest.Round(time.Millisecond), back.Round(time.Millisecond))
		if slowest > deadline {
			t.Errorf("P10: a write was refused only after %s", slowest)
		}
		if stall >= 2*ttl && len(refusals) == 0 {
			t.Error("no write noticed the stall: the test shows nothing")
		}
		if slow := cluster.Percentile(reads, 1); slow > time.Second {
			t.Errorf("P10: a read took %s while the disk hung", slow)
		}
		for id := range acked {
			if _, err := h.Do(http.MethodGet, api.PathInstance("ledger", id), nil, nil); err != nil {
				t.Errorf("P1: %s was acknowledged and is not there: %v", id, err)
			}
		}
	}
	if u := live.unknown(); u > 0 {
		t.Errorf("P2: %d heartbeats were told that the instance is unknown", u)
	}
	cluster.Within(t, 10*time.Second, "the event log tells of the store", func() error {
		events, err := h.Events(api.EventStoreAway, api.EventStoreBack)
		if err != nil {
			return err
		}
		if len(events) < 2 || events[0].Kind != api.EventStoreAway {
			return fmt.Errorf("%+v", events)
		}
		return nil
	})
}
