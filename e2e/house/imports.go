package house

import (
	"fmt"
	"slices"
	"strings"
)

// layer says what a part of the house may import from the rest of the house.
type layer struct {
	in   []string // the packages it is about
	from []string // what they may import, beside nothing
	why  string
}

// layers are tried in order; the first that a package is in counts. Tests are held to them
// too: what a test imports ends in the module's go.mod as well.
var layers = []layer{
	{
		[]string{"sdk/api/..."},
		[]string{"sdk/api/..."},
		"sdk/api is the language that everyone shares; if it needs anyone, everyone does",
	},
	{
		[]string{"sdk/route/..."},
		[]string{"sdk/api/...", "sdk/route/..."},
		"sdk/route decides from the values it is given; it must be the same function in the registry, the SDK and the tests",
	},
	{
		[]string{"sdk/grpcresolver/..."},
		[]string{"sdk", "sdk/api/...", "sdk/sdktest", "sdk/grpcresolver/..."},
		"the gRPC resolver is a guest of the SDK: what it needs of it every user could use too, and the decision is the SDK's alone",
	},
	{
		[]string{"sdk/..."},
		[]string{"sdk/..."},
		"the SDK is built into other people's programs; the server must not come along",
	},
	{
		[]string{"region/..."},
		[]string{"sdk/api/...", "sdk/route/...", "region/..."},
		"a region knows the shared language and the decision, not the federation and not the client; they meet in services/node through interfaces that the caller declares",
	},
	{
		[]string{"federation/..."},
		[]string{"sdk/api/...", "sdk/route/...", "federation/..."},
		"the federation knows the shared language and the decision, not the region and not the client; they meet in services/node through interfaces that the caller declares",
	},
	{
		[]string{"services/..."},
		[]string{"sdk/...", "region/...", "federation/...", "services/..."},
		"the programs are what e2e tests; they can not depend on their own tests",
	},
	{
		[]string{"e2e/..."},
		[]string{"sdk/...", "region/...", "federation/...", "services/...", "e2e/..."},
		"e2e tells stories about every part of the house",
	},
}

// Layers checks who imports whom inside the house, and that sdk/api and sdk/route need
// nothing outside it but the standard library.
func Layers(pkgs []*Package) []Violation {
	var vs []Violation
	for _, p := range pkgs {
		at := slices.IndexFunc(layers, func(l layer) bool { return Under(p.Rel(), l.in...) })
		if at < 0 {
			vs = append(vs, Violation{p.Rel(), "belongs to no part of the house", "every package lives in sdk, region, federation, services or e2e"})
			continue
		}
		l := layers[at]
		for _, imp := range p.AllImports() {
			if Ours(imp) && !Under(Rel(imp), l.from...) {
				vs = append(vs, Violation{p.Rel(), "imports " + Rel(imp), l.why})
			}
		}
		if !Under(p.Rel(), "sdk/api/...", "sdk/route/...") {
			continue
		}
		for _, imp := range p.Imports {
			if !Ours(imp) && !Standard(imp) {
				vs = append(vs, Violation{
					p.Rel(), "imports " + imp,
					"sdk/api and sdk/route use the standard library only, because whatever they import every program that knows a Nearside type imports too",
				})
			}
		}
	}
	return vs
}

// only confines a dependency to the packages that wrap it.
type only struct {
	name string   // for people
	deps []string // import paths and what is below them
	in   []string // packages that may import it, as patterns of Under
	but  []string // and among these, those that may not
	why  string
}

var onlies = []only{
	{
		"the etcd server",
		[]string{"go.etcd.io/etcd/server", "go.etcd.io/bbolt", "go.etcd.io/raft"},
		[]string{"region/store/etcdnode"},
		nil,
		"an etcd server in the process decides over that process's life, so one package, region/store/etcdnode, holds it and what may go wrong with it",
	},
	{
		"etcd",
		[]string{"go.etcd.io"},
		[]string{"region/store/..."},
		nil,
		"etcd is one way to store a region; only region/store/* knows it, everyone else knows the Store contract",
	},
	{
		"echo",
		[]string{"github.com/labstack/echo", "github.com/labstack/gommon"},
		[]string{"region/httpapi", "region/dns", "region/consul", "region/eureka", "region/xds", "federation/peer"},
		nil,
		"echo v4 stops getting fixes at the end of 2027, so it stays in thin adapters (httpapi, peer and the doors) that can be moved to something else in a day",
	},
	{
		"gobreaker",
		[]string{"github.com/sony/gobreaker"},
		[]string{"sdk/...", "federation/peer"},
		[]string{"sdk/api/...", "sdk/route/..."},
		"a breaker belongs to the one who calls over the network: the SDK, and the peers of a federation",
	},
	{
		"the OpenTelemetry SDK",
		[]string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "go.opentelemetry.io/contrib/exporters"},
		[]string{"services/..."},
		nil,
		"libraries use the OpenTelemetry API and leave it to the program where traces and metrics go; programs live in services",
	},
}

// Confined checks that etcd, echo, gobreaker and the OpenTelemetry SDK are imported only
// by the packages that wrap them. Tests are free: a test may measure us against plain etcd
// or a bare echo handler.
func Confined(pkgs []*Package) []Violation {
	var vs []Violation
	for _, p := range pkgs {
		for _, imp := range p.Imports {
			for _, o := range onlies {
				if !below(imp, o.deps) {
					continue
				}
				if !Under(p.Rel(), o.in...) || Under(p.Rel(), o.but...) {
					vs = append(vs, Violation{p.Rel(), fmt.Sprintf("imports %s (%s)", imp, o.name), o.why})
				}
				break // the narrower rule spoke for this import
			}
		}
	}
	return vs
}

// below reports whether an import path is one of the roots or lies below one.
func below(imp string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return imp == r || strings.HasPrefix(imp, r+"/") })
}

// sdkModules lists every module that the SDK may bring into a program, and what for.
var sdkModules = map[string]string{
	"github.com/sony/gobreaker/v2":    "circuit breakers",
	"github.com/cespare/xxhash/v2":    "hashing",
	"github.com/cenkalti/backoff/v5":  "retry delays",
	"github.com/google/renameio/v2":   "atomic snapshot files",
	"github.com/klauspost/compress":   "zstd for snapshots",
	"go.opentelemetry.io/otel":        "the OpenTelemetry API",
	"go.opentelemetry.io/otel/metric": "the OpenTelemetry API, metrics",
	"go.opentelemetry.io/otel/trace":  "the OpenTelemetry API, traces",
	"go.opentelemetry.io/otel/log":    "pulled by the OpenTelemetry API",
	"go.opentelemetry.io/auto/sdk":    "pulled by the OpenTelemetry API (trace hand-over to eBPF agents, not the SDK)",
	"github.com/go-logr/logr":         "pulled by the OpenTelemetry API",
	"github.com/go-logr/stdr":         "pulled by the OpenTelemetry API",
}

// sdkTestModules lists what the SDK's own tests may add; users never build it.
var sdkTestModules = map[string]string{
	"go.uber.org/goleak": "leak checks",
}

const sdkWhy = "the SDK lives inside other people's programs, so what it brings along is a promise: gobreaker, xxhash, backoff, renameio, zstd and the OpenTelemetry API at most"

// resolverModules lists every module that sdk/grpcresolver may bring into a program beside
// the SDK and what it brings, and what for.
var resolverModules = map[string]string{
	"google.golang.org/grpc":                    "what it is for",
	"google.golang.org/protobuf":                "pulled by gRPC",
	"google.golang.org/genproto/googleapis/rpc": "pulled by gRPC",
	"golang.org/x/net":                          "pulled by gRPC",
	"golang.org/x/sys":                          "pulled by gRPC",
	"golang.org/x/text":                         "pulled by gRPC",
	"github.com/nearside/nearside/sdk":          "the SDK",
}

const resolverWhy = "users of the SDK who call gRPC take this module for gRPC alone; whatever else it brought along they would have to answer for"

// ResolverDependencies checks the modules that sdk/grpcresolver brings along, as SDKDependencies
// does for the SDK.
func ResolverDependencies(deps []*Package) []Violation {
	var vs []Violation
	seen := map[string]bool{}
	for _, p := range deps {
		if p.Module == nil || Ours(p.ImportPath) || seen[p.Module.Path] {
			continue
		}
		seen[p.Module.Path] = true
		if sdkModules[p.Module.Path] == "" && resolverModules[p.Module.Path] == "" {
			vs = append(vs, Violation{"sdk/grpcresolver", fmt.Sprintf("needs module %s (for package %s)", p.Module.Path, p.ImportPath), resolverWhy})
		}
	}
	return vs
}

// ResolverRequirements checks what sdk/grpcresolver/go.mod asks for, as SDKRequirements does.
func ResolverRequirements(mod GoMod) []Violation {
	var vs []Violation
	for _, r := range mod.Require {
		if sdkModules[r.Path] == "" && sdkTestModules[r.Path] == "" && resolverModules[r.Path] == "" {
			vs = append(vs, Violation{"sdk/grpcresolver/go.mod", "requires " + r.Path, resolverWhy})
		}
	}
	return vs
}

// SDKDependencies checks the modules that the SDK brings along. deps is the list of all
// packages that the SDK's packages need, as `go list -deps` gives it.
func SDKDependencies(deps []*Package) []Violation {
	var vs []Violation
	seen := map[string]bool{}
	for _, p := range deps {
		if p.Module == nil || Ours(p.ImportPath) || seen[p.Module.Path] {
			continue
		}
		seen[p.Module.Path] = true
		if sdkModules[p.Module.Path] == "" {
			vs = append(vs, Violation{"sdk", fmt.Sprintf("needs module %s (for package %s)", p.Module.Path, p.ImportPath), sdkWhy})
		}
	}
	return vs
}

// SDKRequirements checks what sdk/go.mod asks for, tests included: users read that list,
// and their module graph carries it.
func SDKRequirements(mod GoMod) []Violation {
	var vs []Violation
	for _, r := range mod.Require {
		if sdkModules[r.Path] == "" && sdkTestModules[r.Path] == "" {
			vs = append(vs, Violation{"sdk/go.mod", "requires " + r.Path, sdkWhy})
		}
	}
	return vs
}
