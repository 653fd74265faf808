package replica

import "github.com/nearside/nearside/sdk/api"

// Standing is where the sender of a heartbeat stands with one region, the reader's own
// among them: what it holds of it and whether it reaches it. It is how a region learns that its words
// do not arrive somewhere, and what others say of a region that it cannot reach itself. It
// is hearsay: it moves no row, no version and no age.
type Standing struct {
	Region api.Region `json:"region"`
	// What the sender holds of the region, and the upper bound of its age.
	Epoch    api.Epoch `json:"epoch,omitzero"`
	Revision uint64    `json:"revision"`
	AgeMS    int64     `json:"age_ms"`
	// Link is "up" or "down": whether the sender reaches the region's federation by itself;
	// "" while it has not tried for long enough to say.
	Link string `json:"link"`
	// Probes is "answer" or "silent": what the endpoints of the region did when the sender,
	// for want of a link, tried to connect to some; "" while it did not.
	Probes string `json:"probes"`
	// Relay is through how many relays the region's rows would come to a reader that took them
	// from the sender, the sender included: 1 to MaxDepth; 0 = it does not pass them on now.
	Relay int `json:"relay"`
	// Via is the region from which the sender has them now; "" = from the region itself.
	Via api.Region `json:"via,omitempty"`
}

// MaxDepth is how many relays there may be between an origin and a reader.
const MaxDepth = 2

// MaxStandings bounds the list of one heartbeat; what is beyond it is ignored.
const MaxStandings = 128

// PlausibleStandings returns what of a peer's list can be meant: each region once, with words
// of this version; what a newer one may say counts as not known.
func PlausibleStandings(list []Standing) []Standing {
	list = list[:min(len(list), MaxStandings)]
	out := make([]Standing, 0, len(list))
	seen := make(map[api.Region]struct{}, len(list))
	for _, s := range list {
		if _, twice := seen[s.Region]; twice || !api.ValidLabel(string(s.Region)) {
			continue
		}
		seen[s.Region] = struct{}{}
		s.AgeMS = min(max(s.AgeMS, 0), maxStreamMS)
		if s.Link != api.LinkUp && s.Link != api.LinkDown {
			s.Link = ""
		}
		if s.Probes != api.ProbesAnswer && s.Probes != api.ProbesSilent {
			s.Probes = ""
		}
		out = append(out, s)
	}
	return out
}
