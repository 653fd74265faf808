package catalog

import "github.com/nearside/nearside/sdk/api"

// Snapshot is the catalogue at one version.
type Snapshot struct {
	version api.Version
}

// Version returns the version the snapshot stands at.
func (s *Snapshot) Version() api.Version { return s.version }

// Services returns the keys of all services, sorted.
func (s *Snapshot) Services() []api.ServiceKey { return nil }

// Service returns the instances of a service by id and the revision of its last change.
func (s *Snapshot) Service(key api.ServiceKey) ([]*api.Instance, uint64) { return nil, 0 }
