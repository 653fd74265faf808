package scale

import (
	"fmt"
	"slices"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// catalog is a region's catalogue that is worked out when it is asked for: only what changed is
// remembered. It implements origin.Source.
type catalog struct {
	region   api.Region
	keys     []api.ServiceKey
	index    map[api.ServiceKey]int
	revision uint64
	floor    uint64
	changed  map[api.ServiceKey]uint64
}

func newCatalog(region api.Region, keys []api.ServiceKey, index map[api.ServiceKey]int) *catalog {
	return &catalog{region: region, keys: keys, index: index, revision: 1, changed: map[api.ServiceKey]uint64{}}
}

// serviceKeys returns the keys of n services, with names of about 20 letters.
func serviceKeys(n int) ([]api.ServiceKey, map[api.ServiceKey]int) {
	keys, index := make([]api.ServiceKey, n), make(map[api.ServiceKey]int, n)
	for i := range keys {
		keys[i] = api.ServiceKey{Namespace: "default", Service: api.ServiceName(fmt.Sprintf("%s-service-%06d", []string{"orders", "users", "search", "media", "billing"}[i%5], i))}
	}
	slices.SortFunc(keys, replica.CompareKeys)
	for i, k := range keys {
		index[k] = i
	}
	return keys, index
}

// touch changes services, in one revision.
func (c *catalog) touch(indices ...int) {
	c.revision++
	for _, i := range indices {
		c.changed[c.keys[i]] = c.revision
	}
}

// forget loses the history, as a restart does.
func (c *catalog) forget() { c.revision++; c.floor = c.revision }

func (c *catalog) Version() api.Version {
	return api.Version{Region: c.region, Epoch: api.Epoch{Generation: 1, Nonce: 0xabcdef}, Revision: c.revision}
}

func (c *catalog) Image() origin.Image { return c.at() }

func (c *catalog) at() image { return image{c, c.Version()} }

func (c *catalog) ChangedSince(after api.Version) (keys []api.ServiceKey, ok bool) {
	if after.Epoch != c.Version().Epoch || after.Revision < c.floor {
		return nil, false
	}
	for k, r := range c.changed {
		if r > after.Revision {
			keys = append(keys, k)
		}
	}
	return keys, true
}

func (c *catalog) Loads() map[api.ServiceKey]float64 {
	out := make(map[api.ServiceKey]float64, len(c.keys))
	for i, k := range c.keys {
		out[k] = float64((uint32(i)*2654435761 + uint32(c.revision)) >> 16 % 100)
	}
	return out
}

// image is the catalogue at a version; nothing changes while one is in use.
type image struct {
	*catalog
	version api.Version
}

func (m image) Version() api.Version { return m.version }

func (m image) Services() []api.ServiceKey { return m.keys }

// Service makes three instances, with addresses, ports and versions that differ as they do in life.
func (m image) Service(k api.ServiceKey) ([]*api.Instance, uint64) {
	i, ok := m.index[k]
	if !ok {
		return nil, 0
	}
	revision := max(m.changed[k], 1)
	out := make([]*api.Instance, 3)
	for j := range out {
		h := uint32(i*3+j)*2654435761 + uint32(revision)
		out[j] = &api.Instance{
			Namespace: k.Namespace, Service: k.Service, ID: api.InstanceID(fmt.Sprintf("%s-%08x", k.Service, h)), Region: m.region,
			Zone: api.Zone([]string{"zone-a", "zone-b"}[j%2]), Address: fmt.Sprintf("10.%d.%d.%d", h>>16&255, h>>8&255, h&255), Port: 8000 + int(h>>24),
			Weight: 100, Capacity: 200, Version: fmt.Sprintf("1.%d.%d", h%7, h%3), Status: api.StatusPassing, Revision: revision,
		}
	}
	return out, revision
}
