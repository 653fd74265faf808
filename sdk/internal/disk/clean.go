package disk

import (
	"net/url"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/internal/view"
)

// clean removes whatever a registry would not have said. A file with a good checksum can
// still have been made by anybody.
func clean(img *view.Image) {
	if !api.ValidLabel(string(img.Home)) {
		img.Home = ""
	}
	seen := map[api.Region]bool{}
	img.Regions = filter(img.Regions, func(o *api.Origin) bool {
		if !api.ValidLabel(string(o.Region)) || seen[o.Region] {
			return false
		}
		seen[o.Region] = true
		o.AgeMS = min(max(o.AgeMS, 0), maxAgeMS)
		o.RTTMS = max(o.RTTMS, 0)
		o.Drained = min(max(o.Drained, 0), 100)
		o.Addresses = filter(o.Addresses, func(a *string) bool { return validBase(*a) })
		return true
	})
	img.Services = filter(img.Services, func(s *view.ServiceImage) bool {
		if s.Namespace == "" {
			s.Namespace = api.DefaultNamespace
		}
		s.Regions = filter(s.Regions, func(c *view.ContentImage) bool {
			c.Total, c.Passing, c.Draining = max(c.Total, 0), max(c.Passing, 0), max(c.Draining, 0)
			c.Endpoints = filter(c.Endpoints, func(e *api.Endpoint) bool { return validEndpoint(e, c.Version.Region) })
			return api.ValidLabel(string(c.Version.Region))
		})
		return api.ValidLabel(string(s.Namespace)) && api.ValidLabel(string(s.Service))
	})
}

// maxAgeMS is a year: enough to be expired, and far from overflow.
const maxAgeMS = 365 * 24 * 3600 * 1000

func validEndpoint(e *api.Endpoint, r api.Region) bool {
	if !api.ValidInstanceID(string(e.ID)) || !e.Status.Valid() {
		return false
	}
	e.Region, e.Tier = r, 0
	w := e.Weight
	reg := api.Registration{
		Address: e.Address, Port: e.Port, Ports: e.Ports, Zone: e.Zone, Weight: &w, Capacity: e.Capacity,
		Version: e.Version, Tags: e.Tags, Metadata: e.Metadata,
	}
	_, err := reg.Normalize()
	return err == nil
}

func validBase(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && len(s) <= 512
}

func filter[T any](list []T, keep func(*T) bool) []T {
	out := list[:0]
	for i := range list {
		if keep(&list[i]) {
			out = append(out, list[i])
		}
	}
	return out
}
