// Package summary turns the instances of one service into what its region tells another
// region about it: counts, capacity, and a fail-over set of endpoints chosen for that
// reader. It also defines the hash of a row and the digest of a set of rows, by which a
// replica is compared with its origin.
//
// Everything here is pure: the same instances, revision and reader give the same summary,
// the same bytes and the same hash, on every node of the region.
package summary

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// Bounds of a summary beside api.MaxFailoverSet. They keep one row well below the largest
// frame that a peer accepts.
const (
	// MaxZones is how many zones a summary counts apart; those beyond it, by name, are in its totals only.
	MaxZones = 1_024
	// MaxVersions is how many distinct program versions a summary lists.
	MaxVersions = 16
	// MaxExtraBytes bounds tags and metadata of all endpoints of a summary together. Above
	// it the endpoints travel without them: they are still callable, and the full instances
	// can be read in their own region.
	MaxExtraBytes = 128 << 10
)

// Build summarises the instances of the service named key for a reader region. revision is
// the region's revision of the last change of the service. Instances may come in any order;
// they are not changed and not kept, but tags, ports and metadata are shared with them.
func Build(key api.ServiceKey, instances []*api.Instance, revision uint64, reader api.Region) *api.Summary {
	s := &api.Summary{
		Namespace: key.Namespace, Service: key.Service, Total: len(instances), Revision: revision,
		Zones: make(map[api.Zone]api.ZoneCount),
	}
	versions := make(map[string]struct{})
	for _, i := range instances {
		z := s.Zones[i.Zone]
		z.Total++
		switch {
		case i.Status.Usable():
			s.Passing++
			s.Capacity += Units(i.Capacity, i.Weight)
			z.Passing++
		case i.Status == api.StatusDraining:
			s.Draining++
		}
		s.Zones[i.Zone] = z
		if i.Version != "" {
			versions[i.Version] = struct{}{}
		}
	}
	if len(s.Zones) > MaxZones {
		for _, z := range slices.Sorted(maps.Keys(s.Zones))[MaxZones:] {
			delete(s.Zones, z)
		}
	}
	for v := range versions {
		s.Versions = append(s.Versions, v)
	}
	slices.Sort(s.Versions)
	if len(s.Versions) > MaxVersions {
		s.Versions = s.Versions[:MaxVersions]
	}
	s.SpecHash, s.Flags = specHash(instances), flags(s, instances)
	chosen := failoverSet(key, instances, reader, s.Passing > 0)
	s.Complete = s.Passing == 0 || len(chosen) == s.Passing
	s.Endpoints = make([]api.Endpoint, len(chosen))
	extra := 0
	for n, i := range chosen {
		s.Endpoints[n] = i.Endpoint()
		extra += extraBytes(i)
	}
	if extra > MaxExtraBytes {
		for n := range s.Endpoints {
			s.Endpoints[n].Tags, s.Endpoints[n].Metadata = nil, nil
		}
	}
	return s
}

// Units is what an instance takes of its service's requests: of what it declares that it can take, the share by
// its weight. One of weight 0 gets none.
func Units(capacity, weight int) int { return capacity * max(weight, 0) / api.DefaultWeight }

// flags says what a caller should know of the service as a whole. Instances say that they are
// deprecated by a tag: it needs no field of its own, and filters and doors have it already.
func flags(s *api.Summary, instances []*api.Instance) (out []string) {
	deprecated := len(instances) > 0
	for _, i := range instances {
		if (s.Passing == 0 || i.Status.Usable()) && !slices.Contains(i.Tags, api.TagDeprecated) {
			deprecated = false
		}
	}
	if deprecated {
		out = append(out, api.FlagDeprecated)
	}
	if s.Passing == 0 && s.Draining > 0 {
		out = append(out, api.FlagDraining)
	}
	return out
}

func extraBytes(i *api.Instance) int {
	n := 0
	for _, t := range i.Tags {
		n += len(t)
	}
	for k, v := range i.Metadata {
		n += len(k) + len(v)
	}
	return n
}

// candidate is an instance with its place in the choice: class first, then score.
type candidate struct {
	*api.Instance
	class int
	score uint64
}

// class grades an instance for the fail-over set, best 0.
func class(i *api.Instance) int {
	c := slices.Index(api.Statuses, i.Status)
	if c < 0 {
		c = len(api.Statuses)
	}
	c *= 2
	if i.Overdue {
		c++
	}
	return c
}

// failoverSet chooses at most api.MaxFailoverSet instances: only usable ones when there are
// any, the others otherwise, worst class last. Inside a class the zones take turns, and
// inside a zone rendezvous hashing by reader decides, so that different readers lean on
// different instances and one instance more or less changes one place only.
func failoverSet(key api.ServiceKey, instances []*api.Instance, reader api.Region, usable bool) []*api.Instance {
	all := make([]candidate, 0, len(instances))
	for _, i := range instances {
		if usable && !i.Status.Usable() {
			continue
		}
		all = append(all, candidate{i, class(i), score(key, reader, i.ID)})
	}
	slices.SortFunc(all, func(a, b candidate) int {
		switch {
		case a.class != b.class:
			return a.class - b.class
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	chosen := make([]*api.Instance, 0, min(len(all), api.MaxFailoverSet))
	perZone := make(map[api.Zone]int)
	for start := 0; start < len(all) && len(chosen) < api.MaxFailoverSet; {
		end := start
		for end < len(all) && all[end].class == all[start].class {
			end++
		}
		chosen = spread(chosen, all[start:end], perZone)
		start = end
	}
	// Who was chosen hangs on the reader, in which order they are told does not: so the row of a
	// service that is told whole is the same for all readers, and a reader that takes it from
	// another one, because its own link is cut, gets no row anew.
	slices.SortFunc(chosen, func(a, b *api.Instance) int {
		return cmp.Or(class(a)-class(b), strings.Compare(string(a.ID), string(b.ID)))
	})
	return chosen
}

// spread appends members of one class to chosen: always the best of the zone that has the
// fewest so far; between equal zones the better score wins.
func spread(chosen []*api.Instance, members []candidate, perZone map[api.Zone]int) []*api.Instance {
	queues := make(map[api.Zone][]candidate)
	var zones []api.Zone
	for _, m := range members {
		if _, ok := queues[m.Zone]; !ok {
			zones = append(zones, m.Zone)
		}
		queues[m.Zone] = append(queues[m.Zone], m)
	}
	for left := len(members); left > 0 && len(chosen) < api.MaxFailoverSet; left-- {
		best, found := api.Zone(""), false
		for _, z := range zones {
			switch q := queues[z]; {
			case len(q) == 0:
			case !found, perZone[z] < perZone[best],
				perZone[z] == perZone[best] && q[0].score > queues[best][0].score:
				best, found = z, true
			}
		}
		chosen = append(chosen, queues[best][0].Instance)
		queues[best] = queues[best][1:]
		perZone[best]++
	}
	return chosen
}
