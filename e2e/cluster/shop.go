package cluster

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/child"
	"github.com/nearside/nearside/services/shop"
)

// Shop is one process with some of the shop's services.
type Shop struct {
	*child.Process
	Region api.Region

	c        *Cluster
	copyName string
	services []string
	base     int // its first port, the same at each start; 0 = free ones
}

// StartShop starts a copy of the shop's services in a region and waits until it serves.
func (c *Cluster) StartShop(r api.Region, copyName string, services ...string) *Shop {
	c.t.Helper()
	s := &Shop{Region: r, c: c, copyName: copyName, services: services}
	s.Launch()
	s.AwaitReady()
	return s
}

// SettledShop allocates a copy of the shop's services that has the same ports at each start, as a
// program on a machine of its own has; nothing runs yet.
func (c *Cluster) SettledShop(r api.Region, copyName string, services ...string) *Shop {
	c.t.Helper()
	return &Shop{Region: r, c: c, copyName: copyName, services: services, base: stablePorts(c.t, len(shop.Services()))}
}

// Launch starts the copy without waiting for it.
func (s *Shop) Launch() {
	s.c.t.Helper()
	n, name := s.c.Node(s.Region), "shop-"+s.copyName
	_ = os.Remove(s.readyFile())
	s.Process = s.c.spawn(s.c.nursery, s.Region, name,
		"shop", "run", "--region", string(s.Region), "--zone", string(s.Region)+"-"+s.copyName, "--registry", n.URL(),
		"--services", strings.Join(s.services, ","), "--instance", s.copyName, "--host", "127.0.0.1", "--ttl", "5s",
		"--port-base", strconv.Itoa(s.base), "--snapshot-dir", filepath.Join(s.c.Dir, string(s.Region), name), "--ready-file", s.readyFile(),
	)
}

// AwaitReady waits until the copy serves.
func (s *Shop) AwaitReady() {
	s.c.t.Helper()
	s.c.awaitFile(s.Process, s.readyFile())
}

// Addr returns host:port of a service of a copy from SettledShop.
func (s *Shop) Addr(service string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.base+slices.Index(shop.Services(), service)))
}

// ID returns the instance id of a service of the copy.
func (s *Shop) ID(service string) api.InstanceID {
	return api.InstanceID(service + "-" + s.copyName + "-" + string(s.Region))
}

func (s *Shop) readyFile() string {
	return filepath.Join(s.c.Dir, string(s.Region), "shop-"+s.copyName+".ready")
}

// Load is one load generator and what it reported so far.
type Load struct {
	*child.Process
	Region api.Region
	mu     sync.Mutex
	ticks  []shop.Tick
}

// StartLoad starts shoppers in a region.
func (c *Cluster) StartLoad(r api.Region, rate int) *Load {
	c.t.Helper()
	l := &Load{Region: r}
	p, err := c.nursery.Spawn(
		string(r)+"/load", filepath.Join(c.Dir, string(r), "load.log"), l.read,
		"shop", "load", "--region", string(r), "--zone", string(r)+"-a", "--registry", c.Node(r).URL(), "--rate", strconv.Itoa(rate),
		"--snapshot-dir", filepath.Join(c.Dir, string(r), "load"), "--report", "-",
	)
	if err != nil {
		c.t.Fatal(err)
	}
	l.Process = p
	c.mu.Lock()
	c.procs = append(c.procs, p)
	c.mu.Unlock()
	return l
}

func (l *Load) read(r io.Reader) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		var t shop.Tick
		if json.Unmarshal(s.Bytes(), &t) == nil {
			l.mu.Lock()
			l.ticks = append(l.ticks, t)
			l.mu.Unlock()
		}
	}
}

// Finish asks the load generator to end and returns every tick, the final one last.
func (l *Load) Finish() []shop.Tick {
	l.Stop(5 * time.Second)
	return l.Ticks()
}

// Ticks returns what was reported so far.
func (l *Load) Ticks() []shop.Tick {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]shop.Tick(nil), l.ticks...)
}

// Last returns the newest tick, or a zero one.
func (l *Load) Last() shop.Tick {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ticks) == 0 {
		return shop.Tick{}
	}
	return l.ticks[len(l.ticks)-1]
}

// Sum adds the seconds of ticks up.
func Sum(ticks []shop.Tick) (requests, failed, safe, safeFailed int64, longestGap time.Duration, errors []string) {
	for _, t := range ticks {
		if t.Summary != nil { // the last line sums up the others
			longestGap = max(longestGap, time.Duration(t.LongestGapMS*float64(time.Millisecond)))
			continue
		}
		requests += t.Requests
		failed += t.Failed
		safe += t.Safe
		safeFailed += t.SafeFailed
		errors = append(errors, t.Errors...)
	}
	return requests, failed, safe, safeFailed, longestGap, errors
}
