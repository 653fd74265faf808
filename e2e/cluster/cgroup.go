package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Group is a control group of this machine, of version 1 or 2, that a test made for the
// processes of one node. It is removed when the test ends.
type Group struct {
	dir string
	v2  bool
}

// NewGroup makes a group of a controller: cpu or memory. The test is skipped, and says why,
// where the machine does not allow it.
func NewGroup(t testing.TB, controller string) *Group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a control group")
	}
	name := "nearside-test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	var g *Group
	var why []error
	for _, at := range []struct {
		root string
		v2   bool
	}{{"/sys/fs/cgroup/" + controller, false}, {"/sys/fs/cgroup", true}} {
		if at.v2 {
			has, err := os.ReadFile(filepath.Join(at.root, "cgroup.subtree_control"))
			if err != nil || !strings.Contains(" "+string(has)+" ", controller) {
				why = append(why, fmt.Errorf("version 2 without the controller %s (%v)", controller, err))
				continue
			}
		} else if _, err := os.Stat(filepath.Join(at.root, "tasks")); err != nil {
			why = append(why, err)
			continue
		}
		made := &Group{dir: filepath.Join(at.root, name), v2: at.v2}
		if err := os.Mkdir(made.dir, 0o755); err != nil {
			why = append(why, err)
			continue
		}
		g = made
		break
	}
	if g == nil {
		t.Skipf("needs a control group for %s: %v", controller, errors.Join(why...))
	}
	t.Cleanup(func() {
		// The kernel takes a moment to let go of processes that ended.
		Within(t, 10*time.Second, "the control group is removed", func() error { return os.Remove(g.dir) })
	})
	return g
}

// Version says which control groups these are, for the test's own report.
func (g *Group) Version() string {
	if g.v2 {
		return "cgroup v2"
	}
	return "cgroup v1"
}

// Add puts a process, all its threads and what it will start into the group.
func (g *Group) Add(pid int) error { return g.write("cgroup.procs", strconv.Itoa(pid)) }

// CPU limits the group to a share of one processor, 0.05 = 5 %; 0 = no limit.
func (g *Group) CPU(share float64) error {
	const period = 100_000 // microseconds
	quota := strconv.Itoa(int(share * period))
	switch {
	case g.v2 && share == 0:
		return g.write("cpu.max", "max "+strconv.Itoa(period))
	case g.v2:
		return g.write("cpu.max", quota+" "+strconv.Itoa(period))
	case share == 0:
		return g.write("cpu.cfs_quota_us", "-1")
	}
	return errors.Join(g.write("cpu.cfs_period_us", strconv.Itoa(period)), g.write("cpu.cfs_quota_us", quota))
}

// Memory limits the group's memory; more ends a process of it.
func (g *Group) Memory(bytes int64) error {
	if g.v2 {
		return errors.Join(g.write("memory.max", strconv.FormatInt(bytes, 10)), g.write("memory.oom.group", "1"))
	}
	return g.write("memory.limit_in_bytes", strconv.FormatInt(bytes, 10))
}

// MemoryUsed is how much memory the group uses, the page cache that is charged to it included.
func (g *Group) MemoryUsed() (int64, error) {
	name := "memory.usage_in_bytes"
	if g.v2 {
		name = "memory.current"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// OOMKills is how often the kernel ended a process of the group for want of memory.
func (g *Group) OOMKills() (int, error) {
	name := "memory.oom_control"
	if g.v2 {
		name = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, fmt.Errorf("%s does not count kills", name)
}

func (g *Group) write(name, value string) error {
	return os.WriteFile(filepath.Join(g.dir, name), []byte(value), 0o644)
}
