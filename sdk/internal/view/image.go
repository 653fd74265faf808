package view

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Image is a Book as it is written to disk.
type Image struct {
	Home     api.Region     `json:"home,omitempty"`
	SavedAt  time.Time      `json:"saved_at"`
	Regions  []api.Origin   `json:"regions"`
	Services []ServiceImage `json:"services"`
}

// ServiceImage is one service of an Image.
type ServiceImage struct {
	Namespace api.Namespace   `json:"ns"`
	Service   api.ServiceName `json:"service"`
	Regions   []ContentImage  `json:"regions"`
}

// ContentImage is one service in one region.
type ContentImage struct {
	Version   api.Version    `json:"version"`
	Full      bool           `json:"full,omitempty"`
	Total     int            `json:"total,omitempty"`
	Passing   int            `json:"passing,omitempty"`
	Endpoints []api.Endpoint `json:"endpoints"`
}

// Image returns what is known, for the disk. Instances that are only held are not in it.
func (b *Book) Image(now time.Time) Image {
	img := Image{Home: b.home, SavedAt: now.Round(0), Regions: b.Origins(now)}
	for _, key := range b.Wanted() {
		s := b.services[key]
		if len(s.content) == 0 {
			continue
		}
		si := ServiceImage{Namespace: key.Namespace, Service: key.Service}
		for name, c := range s.content {
			ci := ContentImage{Version: c.version, Full: c.full, Total: c.total, Passing: c.passing}
			ci.Version.Region = name
			for _, h := range c.endpoints {
				if h.until.IsZero() {
					ci.Endpoints = append(ci.Endpoints, h.Endpoint)
				}
			}
			si.Regions = append(si.Regions, ci)
		}
		img.Services = append(img.Services, si)
	}
	return img
}

// Load fills an empty Book from an Image read from disk. Nothing of it counts as synced.
// What it says is at least as old as the file, by the wall clock, and never fresh.
func (b *Book) Load(img Image, now time.Time) {
	if b.home == "" {
		b.home = img.Home
	}
	// A clock that went backwards must not make old knowledge young.
	since := max(0, now.Round(0).Sub(img.SavedAt))
	for _, o := range img.Regions {
		age := since + time.Duration(max(0, o.AgeMS))*time.Millisecond
		age = max(age, 30*time.Second) // suspect at best
		b.regions[o.Region] = &region{
			version: o.Version(), confirmed: now.Add(-age), complete: o.Complete,
			source: api.SourceSnapshot, rtt: o.RTTMS, addresses: o.Addresses, rank: rankOf(StateOf(age)),
		}
	}
}

// LoadService fills a service that nobody answered for yet from its part of an Image.
func (b *Book) LoadService(si ServiceImage) {
	s := b.services[api.ServiceKey{Namespace: si.Namespace, Service: si.Service}]
	if s == nil || s.synced || len(s.content) > 0 {
		return
	}
	for _, ci := range si.Regions {
		c := &content{
			version: ci.Version, full: ci.Full, total: ci.Total, passing: ci.Passing,
			endpoints: make(map[api.InstanceID]*held, len(ci.Endpoints)),
		}
		for _, e := range ci.Endpoints {
			c.endpoints[e.ID] = &held{Endpoint: e}
		}
		s.content[ci.Version.Region] = c
	}
}
