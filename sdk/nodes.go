package nearside

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/nearside/nearside/sdk/api"
)

// maxLearned bounds the node addresses kept per region.
const maxLearned = 16

// directory knows the registry nodes of all regions. It is safe for concurrent use.
type directory struct {
	secure bool // never learn plain http: a token would go over it

	mu      sync.Mutex
	home    api.Region
	pinned  bool                  // home comes from the configuration
	config  []string              // the configured nodes of home
	foreign map[string]api.Region // configured nodes that turned out to be of another region
	own     map[string]bool       // configured nodes that said that they are of home
	byName  map[api.Region][]string
	rtt     map[api.Region]int64
	turn    int // which home node to ask first
}

func newDirectory(cfg Config) *directory {
	d := &directory{
		home: cfg.Region, pinned: cfg.Region != "", config: cfg.Addresses,
		foreign: map[string]api.Region{}, own: map[string]bool{}, byName: map[api.Region][]string{}, rtt: map[api.Region]int64{},
	}
	if n := len(cfg.Addresses); n > 0 {
		d.turn = rand.IntN(n) // programs spread over the nodes
		d.secure = cfg.Token != "" && strings.HasPrefix(cfg.Addresses[0], "https://")
	}
	return d
}

// homeRegion returns the home region, "" while it is not known.
func (d *directory) homeRegion() api.Region {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.home
}

// homeNodes returns the nodes of home, those that answered last first.
func (d *directory) homeNodes() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]string, 0, len(d.config)+4)
	for _, a := range d.config {
		if d.foreign[a] == "" {
			list = append(list, a)
		}
	}
	if d.home != "" {
		for _, a := range d.byName[d.home] {
			if !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	if len(list) > 1 {
		t := d.turn % len(list)
		list = append(list[t:len(list):len(list)], list[:t]...)
	}
	return list
}

// failed moves on to the next home node, if base is the one asked first.
func (d *directory) failed(base string) {
	if nodes := d.homeNodes(); len(nodes) > 1 && nodes[0] == base {
		d.mu.Lock()
		d.turn++
		d.mu.Unlock()
	}
}

// farNode is a node of another region.
type farNode struct {
	region api.Region
	base   string
}

// farNodes returns the nodes of other regions, nearest region first.
func (d *directory) farNodes() []farNode {
	d.mu.Lock()
	defer d.mu.Unlock()
	regions := make([]api.Region, 0, len(d.byName))
	for r := range d.byName {
		if r != d.home {
			regions = append(regions, r)
		}
	}
	far := func(r api.Region) int64 {
		if ms := d.rtt[r]; ms > 0 {
			return ms
		}
		return 1 << 40
	}
	slices.SortFunc(regions, func(a, b api.Region) int {
		if x, y := far(a), far(b); x != y {
			return int(min(max(x-y, -1), 1))
		}
		return strings.Compare(string(a), string(b))
	})
	var list []farNode
	for _, r := range regions {
		for _, a := range d.byName[r] {
			list = append(list, farNode{region: r, base: a})
		}
	}
	return list
}

// claim settles whose node a configured or learned home address is, by what it said. It
// returns false when the node is not of the home region.
func (d *directory) claim(base string, said api.Region) bool {
	if said == "" {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.home == "" || (!d.pinned && slices.Contains(d.config, base)) {
		// What the configured nodes say counts more than an old snapshot.
		d.home, d.pinned = said, true
	}
	if d.home == said {
		if slices.Contains(d.config, base) {
			d.own[base] = true
		}
		return true
	}
	d.foreign[base] = said
	d.byName[d.home] = slices.DeleteFunc(d.byName[d.home], func(a string) bool { return a == base })
	d.addLocked(said, base)
	return false
}

// unsure reports whether a node is believed to be of home by the configuration alone.
func (d *directory) unsure(base string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.home != "" && slices.Contains(d.config, base) && !d.own[base]
}

// nobody returns why no node of home can be asked: ErrUnreachable, with a configured node
// that is of another region if there is one.
func (d *directory) nobody() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, base := range d.config {
		if said := d.foreign[base]; said != "" {
			return fmt.Errorf("%w: %w", ErrUnreachable, errNotHome(base, said, d.home))
		}
	}
	return ErrUnreachable
}

// errNotHome says that a node is of another region than the program says.
func errNotHome(base string, said, home api.Region) error {
	return fmt.Errorf("registry %s is of region %s, and home is %s: correct Config.Addresses or Config.Region", base, said, home)
}

// setHome takes over a home region read from a snapshot.
func (d *directory) setHome(r api.Region) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.home == "" {
		d.home = r
	}
}

// learn replaces the known nodes of a region. Addresses that are no base URLs are left out.
func (d *directory) learn(r api.Region, addresses []string, rtt int64) {
	if r == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if rtt > 0 {
		d.rtt[r] = rtt
	}
	if len(addresses) == 0 {
		return
	}
	list := make([]string, 0, min(len(addresses), maxLearned))
	for _, a := range addresses {
		base, err := cleanBase(a)
		if err != nil || slices.Contains(list, base) || len(list) == maxLearned {
			continue
		}
		if d.secure && !strings.HasPrefix(base, "https://") {
			continue
		}
		list = append(list, base)
	}
	if len(list) > 0 {
		d.byName[r] = list
	}
}

func (d *directory) addLocked(r api.Region, base string) {
	if !slices.Contains(d.byName[r], base) && len(d.byName[r]) < maxLearned {
		d.byName[r] = append(d.byName[r], base)
	}
}
