package check

import (
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Target is what one run of a check asks.
type Target struct {
	Kind    api.CheckKind
	Address string // the instance's own: an IP address or a host name
	Port    int
	Path    string // http, https
	Service string // grpc
	Timeout time.Duration
}

// TargetOf returns what c asks of the instance.
func TargetOf(in *api.Instance, c *api.Check) Target {
	return Target{Kind: c.Kind, Address: in.Address, Port: in.PortOf(c), Path: c.Path, Service: c.Service, Timeout: c.Timeout.D()}
}
