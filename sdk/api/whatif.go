package api

import (
	"fmt"
	"slices"
	"strings"
)

// Bounds of GET /v1/whatif.
const (
	// MaxWhatIfLosses bounds what one question takes away: regions, zones and links together.
	MaxWhatIfLosses = 64
	// MaxWhatIfServices bounds the services that one question names; without names all are looked at.
	MaxWhatIfServices = 256
)

// Effect is what a loss does to the callers of a service: a closed list.
type Effect string

// The effects, the worst first.
const (
	// EffectDown: nothing that is known to be usable is left. Callers get nothing, only what nobody should be sent to
	// (panic), or what was known of a region too long ago.
	EffectDown Effect = "down"
	// EffectOver: it goes on, but a region gets more of it than its instances carry.
	EffectOver Effect = "over"
	// EffectMoved: calls go elsewhere than before, and those who get them can carry them.
	EffectMoved Effect = "moved"
	// EffectWasDown: it was down before, so the loss does not change that.
	EffectWasDown Effect = "was_down"
	// EffectNone: every call goes where it went before.
	EffectNone Effect = "unaffected"
)

// Effects lists all effects, the worst first.
var Effects = []Effect{EffectDown, EffectOver, EffectMoved, EffectWasDown, EffectNone}

// Rank orders effects: 0 is the worst.
func (e Effect) Rank() int {
	if i := slices.Index(Effects, e); i >= 0 {
		return i
	}
	return len(Effects)
}

// Loss is one thing that a what-if takes away. Exactly one of Region alone, Region with Zone, and Link is set.
type Loss struct {
	Region Region `json:"region,omitempty"`
	Zone   Zone   `json:"zone,omitempty"`
	// Link holds two regions whose callers do not reach the instances of the other any more.
	Link []Region `json:"link,omitempty"`
}

// String returns the loss as a query says it: "eu-west", "eu-west/a" or "eu-west~us-east".
func (l Loss) String() string {
	switch {
	case len(l.Link) == 2:
		return string(l.Link[0]) + "~" + string(l.Link[1])
	case l.Zone != "":
		return string(l.Region) + "/" + string(l.Zone)
	}
	return string(l.Region)
}

// ParseLostZone reads REGION/ZONE, the value of ?lose_zone=.
func ParseLostZone(s string) (Loss, error) {
	region, zone, ok := strings.Cut(s, "/")
	if !ok || !ValidLabel(region) || !ValidLabel(zone) {
		return Loss{}, FieldError("lose_zone", fmt.Sprintf("%s does not name a zone", Quote(s)), "write REGION/ZONE, such as eu-west/a")
	}
	return Loss{Region: Region(region), Zone: Zone(zone)}, nil
}

// ParseLostLink reads REGION~REGION, the value of ?lose_link=. The order does not matter.
func ParseLostLink(s string) (Loss, error) {
	a, b, ok := strings.Cut(s, "~")
	if !ok || !ValidLabel(a) || !ValidLabel(b) || a == b {
		return Loss{}, FieldError("lose_link", fmt.Sprintf("%s does not name a link between two regions", Quote(s)), "write REGION~REGION, such as eu-west~us-east")
	}
	return Loss{Link: []Region{Region(a), Region(b)}}, nil
}

// WhatIf is the body of GET /v1/whatif: what losing a region, a zone or a link would do to
// the callers of services, by the function that routes them.
type WhatIf struct {
	Region    Region    `json:"region"`       // that answers, from what it knows
	Namespace Namespace `json:"ns,omitempty"` // that was looked at; empty = all
	Lost      []Loss    `json:"lost"`
	// Callers are those whose calls were looked at, as REGION or REGION/ZONE.
	Callers []string `json:"callers"`
	Effect  Effect   `json:"effect"` // the worst of all services
	Detail  string   `json:"detail"` // one sentence
	// Counts are of the services that were looked at, each by its worst effect.
	Counts  EffectCounts   `json:"counts"`
	Regions []WhatIfRegion `json:"regions"` // by name
	// Services are those that are hit, the worst first, then by namespace, name and caller; of
	// services that the question names, all.
	Services []WhatIfService `json:"services"`
	// Omitted counts the entries of Services that the limit left out, the least bad.
	Omitted int `json:"omitted,omitempty"`
	// Cursor is set when the time was not enough for all services: give it back as ?cursor= for those that
	// follow, and add up. Counts, Regions and Services are of this answer alone.
	Cursor string `json:"cursor,omitempty"`
	// Notes say what this answer cannot know.
	Notes []string `json:"notes,omitempty"`
	Views []Origin `json:"views"` // what the answer was made from
}

// Summary is one sentence of what was lost and what that does, for Detail.
func (w *WhatIf) Summary() string {
	var lost []string
	for _, l := range w.Lost {
		lost = append(lost, l.String())
	}
	c := w.Counts
	s := fmt.Sprintf("without %s, of %d services %d would be down, %d would get more than a region carries, %d would move, %d would stay as they are",
		strings.Join(lost, ", "), c.Services, c.Down, c.Over, c.Moved, c.Unaffected+c.WasDown)
	if c.WasDown > 0 {
		s += fmt.Sprintf(" (%d of them down as it is)", c.WasDown)
	}
	if w.Cursor != "" {
		s += "; there are more, for which there was no time"
	}
	return s
}

// Add adds next, the answer that follows by w's cursor; of the entries of Services at most limit are kept, the
// worst.
func (w *WhatIf) Add(next WhatIf, limit int) {
	w.Counts.Services += next.Counts.Services
	w.Counts.Down += next.Counts.Down
	w.Counts.Over += next.Counts.Over
	w.Counts.Moved += next.Counts.Moved
	w.Counts.WasDown += next.Counts.WasDown
	w.Counts.Unaffected += next.Counts.Unaffected
	for _, r := range next.Regions {
		i := slices.IndexFunc(w.Regions, func(have WhatIfRegion) bool { return have.Region == r.Region })
		if i < 0 {
			w.Regions = append(w.Regions, r)
			continue
		}
		w.Regions[i].More += r.More
		w.Regions[i].Services += r.Services
		w.Regions[i].Over += r.Over
	}
	w.Services = append(w.Services, next.Services...)
	slices.SortStableFunc(w.Services, func(a, b WhatIfService) int { return a.Effect.Rank() - b.Effect.Rank() })
	w.Omitted += next.Omitted + max(0, len(w.Services)-limit)
	w.Services = w.Services[:min(len(w.Services), limit)]
	w.Cursor, w.Effect = next.Cursor, w.Counts.Worst()
	w.Detail = w.Summary()
}

// EffectCounts counts services.
type EffectCounts struct {
	Services   int `json:"services"`
	Down       int `json:"down"`
	Over       int `json:"over"`
	Moved      int `json:"moved"`
	WasDown    int `json:"was_down"`
	Unaffected int `json:"unaffected"`
}

// Add counts n services with an effect.
func (c *EffectCounts) Add(e Effect, n int) {
	c.Services += n
	switch e {
	case EffectDown:
		c.Down += n
	case EffectOver:
		c.Over += n
	case EffectMoved:
		c.Moved += n
	case EffectWasDown:
		c.WasDown += n
	default:
		c.Unaffected += n
	}
}

// Worst returns the worst effect that is counted.
func (c EffectCounts) Worst() Effect {
	switch {
	case c.Down > 0:
		return EffectDown
	case c.Over > 0:
		return EffectOver
	case c.Moved > 0:
		return EffectMoved
	case c.WasDown > 0:
		return EffectWasDown
	}
	return EffectNone
}

// WhatIfRegion sums up what one region would get.
type WhatIfRegion struct {
	Region Region `json:"region"`
	Lost   bool   `json:"lost,omitempty"` // wholly
	// More is the traffic that it would get on top of today's, over all services that were looked at, in the work of
	// instances: 2.5 is what two and a half instances do where that traffic belongs.
	More     float64 `json:"more"`
	Services int     `json:"services"` // of which it would get more
	Over     int     `json:"over"`     // of which it would get more than it carries
}

// WhatIfService is what happens to one service for the callers of one place.
type WhatIfService struct {
	Service   ServiceName `json:"service"`
	Namespace Namespace   `json:"ns"`
	From      string      `json:"from"` // of the callers: REGION or REGION/ZONE
	Effect    Effect      `json:"effect"`
	Detail    string      `json:"detail"` // one sentence
	// Moved is the share of the calls that do not go to the region that gets them today, 0 to 1.
	Moved float64 `json:"moved"`
	// AddedRTTMS is by how much the mean round-trip time to the instances grows, in milliseconds, weighted by the
	// shares; left out where it is not known, or nothing is left.
	AddedRTTMS *float64      `json:"added_rtt_ms,omitempty"`
	Before     WhatIfAnswer  `json:"before"`
	After      WhatIfAnswer  `json:"after"`
	Regions    []WhatIfShare `json:"regions"` // that get calls before or after, near to far
}

// WhatIfAnswer is a decision in brief.
type WhatIfAnswer struct {
	Reason Reason `json:"reason"`
	Detail string `json:"detail"`
	Panic  bool   `json:"panic,omitempty"`
	// RTTMS is the mean round-trip time to the regions that get the calls; left out where it is not known.
	RTTMS *float64 `json:"rtt_ms,omitempty"`
}

// WhatIfShare is what one region gets of a service's calls, before and after.
type WhatIfShare struct {
	Region Region  `json:"region"`
	Before float64 `json:"before"` // 0 to 1
	After  float64 `json:"after"`
	Over   bool    `json:"over,omitempty"`
	// Gets and Carries say how much that is after the loss, and how much the region's usable instances can take,
	// in instances or, where Unit is "capacity", in the unit of the declared capacities. 0 = not known.
	Gets    float64 `json:"gets"`
	Carries float64 `json:"carries"`
	Unit    string  `json:"unit,omitempty"`
	// LoadBefore is how much the instances are used, in percent of what they can take, as far as they tell it, and
	// LoadAfter what that becomes; 0 = not known.
	LoadBefore float64 `json:"load_before,omitempty"`
	LoadAfter  float64 `json:"load_after,omitempty"`
}

// The units of WhatIfShare.
const (
	UnitInstances = "instances"
	UnitCapacity  = "capacity"
)
