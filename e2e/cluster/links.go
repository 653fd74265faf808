package cluster

import (
	"slices"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/wan"
)

// Links are emulated lines between the regions of a cluster: everything that one region's federation
// says to another's passes through one. Safe for concurrent use.
type Links struct {
	t      testing.TB
	relays map[road]*Relay
}

// road leads from a reader's region to the federation port of another.
type road struct{ reader, origin api.Region }

// Link puts lines between all regions of the cluster. Nodes that start from then on use them.
func (c *Cluster) Link() *Links {
	c.t.Helper()
	l := &Links{t: c.t, relays: map[road]*Relay{}}
	for _, reader := range c.nodes {
		for _, origin := range c.nodes {
			if reader.Region != origin.Region {
				r := road{reader.Region, origin.Region}
				if l.relays[r] == nil {
					l.relays[r] = NewRelay(c.t, origin.Federation)
				}
			}
		}
	}
	c.links = l
	return l
}

// Set changes what happens to whatever region from sends to region to: its questions to
// it, and its answers.
func (l *Links) Set(from, to api.Region, change func(*wan.Direction)) {
	l.t.Helper()
	asks, answers := l.relays[road{from, to}], l.relays[road{to, from}]
	if asks == nil || answers == nil {
		l.t.Fatalf("there is no line from %s to %s", from, to)
	}
	asks.Update(func(p *wan.Profile) { change(&p.Up) })
	answers.Update(func(p *wan.Profile) { change(&p.Down) })
}

// SetAll changes all lines, in both directions.
func (l *Links) SetAll(change func(*wan.Direction)) {
	for _, r := range l.relays {
		r.Update(func(p *wan.Profile) {
			change(&p.Up)
			change(&p.Down)
		})
	}
}

// Clog makes everything that region from sends to region to wait, without a word to either;
// Unclog lets it through.
func (l *Links) Clog(from, to api.Region) {
	l.Set(from, to, func(d *wan.Direction) { d.Blackhole = true })
}

// Unclog ends what Clog began.
func (l *Links) Unclog(from, to api.Region) {
	l.Set(from, to, func(d *wan.Direction) { d.Blackhole = false })
}

// Pairs returns all ordered pairs of regions, in order.
func (l *Links) Pairs() [][2]api.Region {
	var out [][2]api.Region
	for r := range l.relays {
		out = append(out, [2]api.Region{r.reader, r.origin})
	}
	slices.SortFunc(out, func(a, b [2]api.Region) int {
		return strings.Compare(string(a[0])+"/"+string(a[1]), string(b[0])+"/"+string(b[1]))
	})
	return out
}

// Cut resets all connections between two regions.
func (l *Links) Cut(a, b api.Region) {
	l.relays[road{a, b}].Cut()
	l.relays[road{b, a}].Cut()
}

// Bytes returns what the line delivered from one region to another so far.
func (l *Links) Bytes(from, to api.Region) int64 {
	return l.relays[road{from, to}].Stats().Up.Bytes + l.relays[road{to, from}].Stats().Down.Bytes
}

// Into returns the bytes that all others delivered to a region so far.
func (l *Links) Into(to api.Region) (bytes int64) {
	for _, p := range l.Pairs() {
		if p[1] == to {
			bytes += l.Bytes(p[0], p[1])
		}
	}
	return bytes
}
