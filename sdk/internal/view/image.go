package view

import (
	"slices"
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
	Policy    *api.Policy     `json:"policy,omitempty"`
	Regions   []ContentImage  `json:"regions"`
	// Unused tells that the run that wrote it did not watch the service. It is not written.
	Unused bool `json:"-"`
}

// ContentImage is one service in one region.
type ContentImage struct {
	Version   api.Version    `json:"version"`
	Full      bool           `json:"full,omitempty"`
	Total     int            `json:"total,omitempty"`
	Passing   int            `json:"passing,omitempty"`
	Draining  int            `json:"draining,omitempty"`
	Endpoints []api.Endpoint `json:"endpoints"`
	// At is when it was true by the wall clock, if that is not what the Image says of the
	// region: it was in an older Image, and nobody told of it since, or the service was let go.
	At time.Time `json:"at,omitzero"`
}

// youngest is how old what comes from an Image is at least: suspect at best. oldest bounds
// what a clock or a hostile file may say, far from overflow.
const (
	youngest = 30 * time.Second
	oldest   = 365 * 24 * time.Hour
)

// age returns the time since at by the wall clock. A clock that went backwards must not make
// old knowledge young.
func age(at, now time.Time) time.Duration { return min(max(now.Round(0).Sub(at), youngest), oldest) }

// Stamp writes into each service when it was true, so that it can be taken over into a later
// Image without becoming younger.
func (img *Image) Stamp() {
	ages := map[api.Region]time.Duration{}
	for _, o := range img.Regions {
		ages[o.Region] = min(time.Duration(o.AgeMS)*time.Millisecond, oldest)
	}
	for _, si := range img.Services {
		for i := range si.Regions {
			if c := &si.Regions[i]; c.At.IsZero() || c.At.After(img.SavedAt) {
				c.At = img.SavedAt.Add(-ages[c.Version.Region])
			}
		}
	}
}

// Image returns what is known, for the disk. Instances that are only held are not in it.
func (b *Book) Image(now time.Time) Image {
	img := Image{Home: b.home, SavedAt: now.Round(0), Regions: b.Origins(api.ServiceKey{}, now)}
	for _, key := range b.Wanted() {
		s := b.services[key]
		if len(s.content) == 0 && s.policy == nil {
			continue
		}
		img.Services = append(img.Services, s.image(key, now))
	}
	return img
}

// ServiceImage returns what is known of one service, stamped: it outlives what the Book knows of
// its regions. ok is false when nothing is known.
func (b *Book) ServiceImage(key api.ServiceKey, now time.Time) (si ServiceImage, ok bool) {
	s := b.services[key]
	if s == nil || len(s.content) == 0 && s.policy == nil {
		return si, false
	}
	si = s.image(key, now)
	for i := range si.Regions {
		c := &si.Regions[i]
		if r := b.regions[c.Version.Region]; r != nil && c.At.IsZero() {
			c.At = now.Round(0).Add(-r.age(now))
		}
	}
	return si, true
}

func (s *service) image(key api.ServiceKey, now time.Time) ServiceImage {
	si := ServiceImage{Namespace: key.Namespace, Service: key.Service, Policy: s.policy}
	for name, c := range s.content {
		ci := ContentImage{Version: c.version, Full: c.full, Total: c.total, Passing: c.passing, Draining: c.draining}
		ci.Version.Region = name
		if !c.read.IsZero() {
			ci.At = now.Round(0).Add(-now.Sub(c.read))
		}
		for _, h := range c.endpoints {
			if h.until.IsZero() {
				ci.Endpoints = append(ci.Endpoints, h.Endpoint)
			}
		}
		si.Regions = append(si.Regions, ci)
	}
	return si
}

// Load fills an empty Book from an Image read from disk. Nothing of it counts as synced.
// What it says is at least as old as the file, by the wall clock, and never fresh. A drain
// holds until somebody says otherwise; that a region was down then says nothing of now.
func (b *Book) Load(img Image, now time.Time) {
	if b.home == "" {
		b.home = img.Home
	}
	for _, o := range img.Regions {
		known := min(time.Duration(max(0, o.AgeMS))*time.Millisecond, oldest)
		b.regions[o.Region] = &region{
			version: o.Version(), confirmed: now.Add(-age(img.SavedAt.Add(-known), now)), complete: o.Complete,
			source: api.SourceSnapshot, rtt: o.RTTMS, addresses: o.Addresses, drained: o.Drained,
		}
	}
}

// Newest takes over from a later Image what it says of regions, except of those of which a newer
// version is known. Services are left alone.
func (img *Image) Newest(later Image) {
	passed := max(0, later.SavedAt.Sub(img.SavedAt))
	list := slices.Clone(later.Regions)
	for _, o := range img.Regions {
		o.AgeMS = (min(time.Duration(o.AgeMS)*time.Millisecond, oldest) + min(passed, oldest)).Milliseconds()
		i := slices.IndexFunc(list, func(l api.Origin) bool { return l.Region == o.Region })
		switch {
		case i < 0:
			list = append(list, o)
		case list[i].Version().Compare(o.Version()) == api.Older:
			list[i] = o
		}
	}
	img.SavedAt, img.Regions = later.SavedAt, list
}

// Youngest returns when the newest part of a stamped service was true, by the wall clock.
func (si ServiceImage) Youngest() time.Time {
	var at time.Time
	for i := range si.Regions {
		if c := &si.Regions[i]; c.At.After(at) {
			at = c.At
		}
	}
	return at
}

// LoadService fills a service that nobody answered for yet from its part of an Image, stamped.
func (b *Book) LoadService(si ServiceImage, now time.Time) {
	s := b.services[api.ServiceKey{Namespace: si.Namespace, Service: si.Service}]
	if s == nil || s.synced || len(s.content) > 0 {
		return
	}
	s.policy = si.Policy
	for _, ci := range si.Regions {
		c := &content{
			version: ci.Version, read: now.Add(-age(ci.At, now)), full: ci.Full, total: ci.Total, passing: ci.Passing, draining: ci.Draining,
			endpoints: make(map[api.InstanceID]*held, len(ci.Endpoints)),
		}
		for _, e := range ci.Endpoints {
			c.endpoints[e.ID] = &held{Endpoint: e}
		}
		s.content[ci.Version.Region] = c
	}
}
