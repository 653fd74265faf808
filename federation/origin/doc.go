// Package origin is the other half of package replica: what a region tells ONE reader
// region, decided without sending anything. A [Book] knows what the reader region's rows
// look like at the newest version; a [Session] is one stream, and says frame by frame what
// to send; [Settle] says whether our version may be shown to a reader at all. The package
// does no I/O, starts nothing and reads no clock.
//
// What a session sends, in this order of preference:
//
//   - nothing, when only versions passed that changed none of the rows: the next heartbeat
//     tells the new version with the digest;
//   - a delta, when the history of the catalogue reaches back to what the reader holds, or
//     when the reader holds what this book knew last;
//   - the buckets that differ, when the reader told the digests of its own, or when a large
//     part changed at once;
//   - a request for those digests;
//   - everything, to a reader that holds nothing or asks for it.
package origin

import (
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Image is an immutable picture of the region's catalogue. Safe for concurrent use.
type Image interface {
	// Version the picture stands at; zero while the catalogue is not loaded.
	Version() api.Version
	// Services returns the keys of all services, sorted by namespace and name.
	Services() []api.ServiceKey
	// Service returns a service's instances and the revision of its last change.
	Service(api.ServiceKey) (instances []*api.Instance, revision uint64)
}

// Source is the region's catalogue. Safe for concurrent use.
type Source interface {
	// Image returns the newest picture; later calls never return an older one.
	Image() Image
	// ChangedSince returns the services that changed after a version, at least up to the
	// newest picture made before the call. ok is false when that history is gone or of
	// another epoch.
	ChangedSince(after api.Version) (keys []api.ServiceKey, ok bool)
}

// Loader is a Source that knows how much its services are used. Safe for concurrent use.
type Loader interface {
	// Loads returns the utilisation of services in percent of what their usable instances can
	// take, as they report it; of those of which it is known. The map is the caller's.
	Loads() map[api.ServiceKey]float64
}

// Planner is a Source that knows which removals were meant: readers do not hold those back,
// however many there are at once (I7). Safe for concurrent use.
type Planner interface {
	// PlannedSince returns the services that lost instances after a version, all of them because
	// an operator said so; none when that is not known.
	PlannedSince(after api.Version) map[api.ServiceKey]struct{}
}

// Relay is an Image of another region's rows, which are passed on as they came: a [Book] does
// not make them, and a hello says what their own region said of itself.
type Relay interface {
	Image
	// Row returns the row of a service, its hash, and false when there is none.
	Row(api.ServiceKey) (replica.Row, summary.Hash, bool)
	// Says is the last word of the rows' own region, signed where regions sign; of the
	// picture's version.
	Says() replica.Statement
	// Depth is how many relays the rows have passed until us.
	Depth() int
}
