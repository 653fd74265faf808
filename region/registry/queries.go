package registry

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// ReadOptions says how fresh a read must be. The zero value reads memory as it is.
type ReadOptions struct {
	// Strong confirms with the store that nothing acknowledged earlier is missing. Without
	// the store it fails with CodeUnavailable within two seconds.
	Strong bool
	// MinRevision waits up to two seconds for this revision (read your writes on another
	// node), then fails with CodeRevisionNotReached. 0 = do not wait.
	MinRevision uint64
}

// Stamp says where an answer comes from and how old it is.
type Stamp struct {
	Version api.Version
	Age     time.Duration // since the origin, or the own store, last confirmed it; 0 = now
	Source  string        // one of api's Source values
	Region  api.Region    // whose data it is
}

// ServicesQuery asks for the services of a namespace. An empty Namespace is the default one.
type ServicesQuery struct {
	Namespace api.Namespace
	Limit     int    // 0 = api.DefaultServiceLimit; more than api.MaxListLimit is cut to it
	Cursor    string // of the page before
	ReadOptions
}

// InstancesQuery asks for the instances of a service. Empty filters match everything.
type InstancesQuery struct {
	Namespace api.Namespace
	Service   api.ServiceName
	Statuses  []api.Status // any of
	Zone      api.Zone
	Tag       string
	Filter    string     // an expression: see package filter
	Region    api.Region // empty = the own one
	Limit     int        // 0 = api.DefaultListLimit; more than api.MaxListLimit is cut to it
	Cursor    string     // of the page before
	ReadOptions

	filter func(*api.Instance) bool // made of Filter; nil = everything
}

// ResolveQuery asks where a caller should send its calls.
type ResolveQuery struct {
	Namespace  api.Namespace
	Service    api.ServiceName
	Zone       api.Zone   // of the caller; may be empty
	FromRegion api.Region // of the caller; empty = the own one
	Limit      int        // endpoints of the answer; 0 = api.MaxListLimit
	ReadOptions
}

// WatchQuery asks for a stream of changes.
type WatchQuery struct {
	Namespace api.Namespace     // api.AllNamespaces = every one, without Services
	Services  []api.ServiceName // empty = every service of the namespace
	From      api.Version       // resume after this version; zero = start with items
	Far       bool              // also tell what is known of other regions
	Bookmark  time.Duration     // between bookmarks, 1 to 5 s; 0 = 5 s
}
