package httpapi

import (
	"context"
	"net/http"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// Beside is a federation that runs as its own process, beside the region's nodes. It has no
// catalogue to ask: this is what its door shows of it. All methods are called concurrently.
type Beside interface {
	// Stamp says where the federation's picture of the region stands.
	Stamp() registry.Stamp
	Federation(ctx context.Context) (api.FederationInfo, registry.Stamp, error)
	Readiness() api.Readiness
	VerifyRegion(ctx context.Context, region api.Region) (api.Verification, error)
	ResyncRegion(ctx context.Context, region api.Region) (api.ResyncInfo, error)
}

// besidePaths are those of the routes that such a process has.
var besidePaths = map[string]bool{
	api.PathFederation: true, api.PathVerify: true, api.PathResync: true, api.PathOpenAPI: true, api.PathLivez: true, api.PathReadyz: true, api.PathMetrics: true,
}

// NewBeside returns the handler of the process's part of HTTP v1: the same routes, guard and problems
// as at a node. cfg.Registry and cfg.KV are not used.
func NewBeside(cfg Config, b Beside) (http.Handler, error) {
	cfg.Registry, cfg.KV = besideRegistry{Beside: b}, nil
	return newHandler(cfg, true)
}

// besideRegistry is a Registry for those routes alone: no other of its methods is ever called.
type besideRegistry struct {
	Registry
	Beside
}

func (b besideRegistry) Stamp() registry.Stamp { return b.Beside.Stamp() }

func (b besideRegistry) Federation(ctx context.Context) (api.FederationInfo, registry.Stamp, error) {
	return b.Beside.Federation(ctx)
}

func (b besideRegistry) VerifyRegion(ctx context.Context, region api.Region) (api.Verification, error) {
	return b.Beside.VerifyRegion(ctx, region)
}

func (b besideRegistry) ResyncRegion(ctx context.Context, region api.Region) (api.ResyncInfo, error) {
	return b.Beside.ResyncRegion(ctx, region)
}

func (b besideRegistry) Readiness() api.Readiness { return b.Beside.Readiness() }
