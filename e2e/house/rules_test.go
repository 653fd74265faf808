package house

import (
	"strings"
	"testing"
)

// The tests of this file prove that each rule can fail: a bad example is found and its
// sentence says what and why, and a good one beside it passes.

// pkg makes a package of the house that imports imps.
func pkg(rel string, imps ...string) *Package {
	return &Package{ImportPath: Prefix + rel, Name: rel[strings.LastIndex(rel, "/")+1:], Imports: imps}
}

// found checks that vs are exactly as many violations as want has entries, and that each
// sentence holds the words of its entry.
func found(t *testing.T, vs []Violation, want ...string) {
	t.Helper()
	if len(vs) != len(want) {
		t.Fatalf("found %d violations, want %d: %v", len(vs), len(want), vs)
	}
	for i, w := range want {
		if s := vs[i].String(); !strings.Contains(s, w) {
			t.Errorf("the sentence %q does not say %q", s, w)
		}
		if vs[i].Why == "" {
			t.Errorf("%v gives no reason", vs[i])
		}
	}
}

func TestLayersFindsForbiddenImports(t *testing.T) {
	for _, tc := range []struct {
		name string
		pkg  *Package
		want []string
	}{
		{"api is alone", pkg("sdk/api", "fmt", "net/url"), nil},
		{"api imports a sibling", pkg("sdk/api", Prefix+"sdk/route"), []string{"sdk/api imports sdk/route: "}},
		{"api imports a library", pkg("sdk/api", "github.com/cespare/xxhash/v2"), []string{"standard library only"}},
		{"route imports api", pkg("sdk/route", Prefix+"sdk/api", "slices"), nil},
		{"route imports the client", pkg("sdk/route", Prefix+"sdk"), []string{"sdk/route imports sdk: "}},
		{"route imports a library", pkg("sdk/route", "go.opentelemetry.io/otel"), []string{"standard library only"}},
		{"the SDK imports the server", pkg("sdk/internal/cache", Prefix+"region/catalog"), []string{"other people's programs"}},
		{"region imports federation", pkg("region/registry", Prefix+"federation/mesh"), []string{"region/registry imports federation/mesh: "}},
		{"region imports the client", pkg("region/registry", Prefix+"sdk"), []string{"region/registry imports sdk: "}},
		{"region imports the client's insides", pkg("region/dns", Prefix+"sdk/internal/cache"), []string{"region/dns imports sdk/internal/cache: "}},
		{"region imports the language", pkg("region/registry", Prefix+"sdk/api", Prefix+"sdk/route", Prefix+"region/catalog"), nil},
		{"federation imports region", pkg("federation/mesh", Prefix+"region/registry"), []string{"federation/mesh imports region/registry: "}},
		{"services imports everyone", pkg("services/node", Prefix+"sdk", Prefix+"region/registry", Prefix+"federation/mesh"), nil},
		{"services imports e2e", pkg("services/node", Prefix+"e2e/cluster"), []string{"services/node imports e2e/cluster: "}},
		{"a seventh part", pkg("pkg/stuff"), []string{"pkg/stuff belongs to no part"}},
		{
			"a test crosses the line",
			&Package{ImportPath: Prefix + "region/httpapi", XTestImports: []string{Prefix + "sdk"}},
			[]string{"region/httpapi imports sdk: "},
		},
	} {
		t.Run(tc.name, func(t *testing.T) { found(t, Layers([]*Package{tc.pkg}), tc.want...) })
	}
}

func TestConfinedFindsLeaks(t *testing.T) {
	const (
		etcdClient = "go.etcd.io/etcd/client/v3"
		etcdServer = "go.etcd.io/etcd/server/v3/embed"
		echo       = "github.com/labstack/echo/v4"
		breaker    = "github.com/sony/gobreaker/v2"
		otelAPI    = "go.opentelemetry.io/otel/metric"
		otelSDK    = "go.opentelemetry.io/otel/sdk/metric"
	)
	for _, tc := range []struct {
		name string
		pkg  *Package
		want []string
	}{
		{"the store has the client", pkg("region/store/etcdstore", etcdClient), nil},
		{"the node has the server", pkg("region/store/etcdnode", etcdServer, etcdClient), nil},
		{"the store has the server", pkg("region/store/etcdstore", etcdServer), []string{"(the etcd server)"}},
		{"the registry has the client", pkg("region/registry", etcdClient), []string{"only region/store/*"}},
		{"the federation has the client", pkg("federation/mesh", etcdClient), []string{"only region/store/*"}},
		{"the API has echo", pkg("region/httpapi", echo), nil},
		{"the registry has echo", pkg("region/registry", echo), []string{"thin adapters"}},
		{"the SDK has breakers", pkg("sdk/internal/call", breaker), nil},
		{"route has breakers", pkg("sdk/route", breaker), []string{"(gobreaker)"}},
		{"the region has breakers", pkg("region/registry", breaker), []string{"(gobreaker)"}},
		{"a library has the otel API", pkg("region/registry", otelAPI), nil},
		{"a library has the otel SDK", pkg("region/registry", otelSDK), []string{"leave it to the program"}},
		{"a program has the otel SDK", pkg("services/node", otelSDK, "go.opentelemetry.io/otel/exporters/prometheus"), nil},
		{"a test measures against etcd", &Package{ImportPath: Prefix + "e2e/bench", TestImports: []string{etcdClient}}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) { found(t, Confined([]*Package{tc.pkg}), tc.want...) })
	}
}

func TestSDKDependenciesFindsAStranger(t *testing.T) {
	dep := func(path, module string) *Package {
		p := &Package{ImportPath: path}
		if module != "" {
			p.Module = &Module{module}
		}
		return p
	}
	good := []*Package{
		dep("net/http", ""),
		dep(Prefix+"sdk/api", Prefix+"sdk"),
		dep("github.com/sony/gobreaker/v2", "github.com/sony/gobreaker/v2"),
		dep("go.opentelemetry.io/otel/trace", "go.opentelemetry.io/otel/trace"),
	}
	found(t, SDKDependencies(good))
	found(t, SDKDependencies(append(good,
		dep("google.golang.org/grpc", "google.golang.org/grpc"),
		dep("google.golang.org/grpc/codes", "google.golang.org/grpc"),
	)), "sdk needs module google.golang.org/grpc")
}

func TestSDKRequirementsFindsAStranger(t *testing.T) {
	found(t, SDKRequirements(GoMod{Require: []ModPath{{"go.uber.org/goleak"}, {"github.com/stretchr/testify"}}}),
		"sdk/go.mod requires github.com/stretchr/testify")
}

func TestResolverRulesFindAStranger(t *testing.T) {
	grpc := &Package{ImportPath: "google.golang.org/grpc", Module: &Module{"google.golang.org/grpc"}}
	xds := &Package{ImportPath: "github.com/envoyproxy/go-control-plane/pkg", Module: &Module{"github.com/envoyproxy/go-control-plane"}}
	found(t, ResolverDependencies([]*Package{grpc}))
	found(t, ResolverDependencies([]*Package{grpc, xds}), "sdk/grpcresolver needs module github.com/envoyproxy/go-control-plane")
	found(t, ResolverRequirements(GoMod{Require: []ModPath{{"google.golang.org/grpc"}, {Prefix + "sdk"}, {"go.uber.org/goleak"}}}))
	found(t, ResolverRequirements(GoMod{Require: []ModPath{{"go.etcd.io/etcd/client/v3"}}}), "requires go.etcd.io/etcd/client/v3")
	found(t, Layers([]*Package{pkg("sdk/grpcresolver", Prefix+"sdk", Prefix+"sdk/route")}), "sdk/grpcresolver imports sdk/route: ")
}

func TestPureFileFindsImpurity(t *testing.T) {
	for _, tc := range []struct {
		name, rel, src string
		want           []string
	}{
		{"a value of time", "region/catalog", "import \"time\"\nvar d = 2 * time.Second\nfunc f(now time.Time) bool { return now.IsZero() }", nil},
		{"the clock", "region/catalog", "import \"time\"\nfunc f() time.Time { return time.Now() }", []string{"line 3) uses time.Now"}},
		{"the clock as a value", "region/liveness", "import clk \"time\"\nvar now = clk.Now", []string{"uses time.Now"}},
		{"a wait", "region/liveness", "import \"time\"\nvar c = time.After(1)", []string{"uses time.After"}},
		{"a goroutine", "federation/replica", "func f() { go f() }", []string{"starts a goroutine"}},
		{"a context", "federation/replica", "import \"context\"\nvar _ context.Context", []string{"imports context"}},
		{"a logger", "sdk/route", "import \"log/slog\"\nvar _ slog.Level", []string{"imports log/slog"}},
		{"a file", "federation/summary", "import \"os\"\nvar _ os.File", []string{"imports os"}},
		{"a socket", "federation/summary", "import \"net\"\nvar _ net.Conn", []string{"imports net"}},
		{"an address", "sdk/api", "import \"net/netip\"\nvar _ netip.Addr", nil},
		{"status names elsewhere", "sdk/route", "import \"net/http\"\nvar _ = http.StatusOK", []string{"imports net/http"}},
		{"the store contract", "region/catalog", "import \"" + Prefix + "region/store\"\nvar _ store.Change", nil},
		{"a store", "region/catalog", "import \"" + Prefix + "region/store/memstore\"\nvar _ memstore.Store", []string{"memstore, which is not pure"}},
		{"status names in api", "sdk/api", "import \"net/http\"\nvar _ = http.StatusText(http.StatusOK)", nil},
		{"a client in api", "sdk/api", "import \"net/http\"\nvar _ http.Client", []string{"uses http.Client"}},
		{"a pure sibling", "region/catalog", "import \"" + Prefix + "sdk/api\"\nvar _ api.Region", nil},
		{"an impure sibling", "region/catalog", "import \"" + Prefix + "region/registry\"\nvar _ registry.Config", []string{"region/registry, which is not pure"}},
		{"hashing", "federation/summary", "import \"github.com/cespare/xxhash/v2\"\nvar _ = xxhash.Sum64", nil},
		{"a library", "federation/summary", "import \"go.opentelemetry.io/otel/metric\"\nvar _ metric.Meter", []string{"imports go.opentelemetry.io/otel/metric"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			vs, err := PureFile(tc.rel, "x.go", []byte("package x\n"+tc.src))
			if err != nil {
				t.Fatal(err)
			}
			found(t, vs, tc.want...)
		})
	}
}

func TestPurePresentFindsARenamedPackage(t *testing.T) {
	var all []*Package
	for _, rel := range Pure {
		all = append(all, pkg(rel))
	}
	found(t, PurePresent(all))
	found(t, PurePresent(all[1:]), Pure[0]+" is not there")
}

func TestPackageNamesFindsDrawers(t *testing.T) {
	found(t, PackageNames([]*Package{pkg("region/catalog")}))
	found(t, PackageNames([]*Package{pkg("region/util"), {ImportPath: Prefix + "sdk/things", Name: "helpers"}}),
		"region/util has a name that says nothing", "sdk/things has a name that says nothing")
}

func TestLeftoversFindsScaffolding(t *testing.T) {
	found(t, Leftovers([]*Package{pkg("sdk/deps_tmp"), pkg("sdk/api")}), "sdk/deps_tmp is still there")
}

func TestHasPackageDocTellsThemApart(t *testing.T) {
	for src, want := range map[string]bool{
		"// Package x is documented.\npackage x\n": true,
		"package x\n":                                 false,
		"// detached\n\npackage x\n":                  false,
		"//go:build linux\n\npackage x\n":             false,
		"//go:build linux\n\n// Package x\npackage x": true,
	} {
		if got, err := HasPackageDoc("x.go", []byte(src)); err != nil || got != want {
			t.Errorf("for %q the answer is %v, %v; want %v", src, got, err, want)
		}
	}
}

func TestMainLinesFindsABigMain(t *testing.T) {
	found(t, MainLines("services/cmd/nearside", 40))
	found(t, MainLines("services/cmd/nearside", 41), "has 41 lines")
	if n := Lines([]byte("a\nb\nc")); n != 3 {
		t.Errorf("three lines without a last newline count as %d", n)
	}
}

func TestSleepsFindsSleeping(t *testing.T) {
	const imports = "import (\"testing\"; \"testing/synctest\"; \"time\")\n"
	for _, tc := range []struct {
		name, file, src string
		want            []string
	}{
		{"a test sleeps", "x_test.go", "import \"time\"\nfunc TestX() { time.Sleep(1) }", []string{"wait for a stated condition"}},
		{"a helper sleeps", "x_test.go", "import \"time\"\nfunc help() { time.Sleep(1) }", []string{"calls time.Sleep"}},
		{"sleep handed on", "x_test.go", "import \"time\"\nvar s = time.Sleep", []string{"calls time.Sleep"}},
		{"a bubble sleeps", "x_test.go", imports + "func TestX(t *testing.T) { synctest.Test(t, func(t *testing.T) { time.Sleep(1) }) }", nil},
		{"a bubble's helper sleeps", "x_test.go", imports + "func pass() { time.Sleep(1); synctest.Wait() }", nil},
		{"a test sleeps beside its bubble", "x_test.go", imports + "func TestX(t *testing.T) { time.Sleep(1); synctest.Test(t, nil) }", []string{"calls time.Sleep"}},
		{"the product sleeps", "x.go", "import \"time\"\nfunc f() { time.Sleep(1) }", []string{"nothing can interrupt it"}},
		{"the product waits", "x.go", "import \"time\"\nvar t = time.NewTimer(1)", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			vs, err := Sleeps("x", tc.file, []byte("package x\n"+tc.src))
			if err != nil {
				t.Fatal(err)
			}
			found(t, vs, tc.want...)
		})
	}
}

func TestTopLevelFindsStrangers(t *testing.T) {
	ignored := []string{"/bin/", "*.test", ""}
	found(t, TopLevel([]string{"README.md", "sdk", ".git", "bin", "sdk.test"}, ignored))
	found(t, TopLevel([]string{"pkg", "docker-compose.yml"}, ignored), "pkg stands at the top", "docker-compose.yml stands at the top")
}

func TestReplacesFindsAModuleThatCanNotStandAlone(t *testing.T) {
	mod := GoMod{Module: ModPath{Prefix + "region"}, Require: []ModPath{{Prefix + "sdk"}, {"go.uber.org/zap"}}}
	found(t, Replaces("region", mod), "region/go.mod requires "+Prefix+"sdk without replacing it by ../sdk")
	mod.Replace = []Replace{{ModPath{Prefix + "sdk"}, ModPath{"../sdk"}}}
	found(t, Replaces("region", mod))
	mod.Module.Path = "example.org/region"
	found(t, Replaces("region", mod), "names the module example.org/region")

	nested := GoMod{
		Module:  ModPath{Prefix + "sdk/grpcresolver"},
		Require: []ModPath{{Prefix + "sdk"}},
		Replace: []Replace{{ModPath{Prefix + "sdk"}, ModPath{"../"}}},
	}
	found(t, Replaces("sdk/grpcresolver", nested))
}

func TestReadmeFindsAMissingCommand(t *testing.T) {
	found(t, Readme("run `make demo`, then `make test`"))
	found(t, Readme("run it"), "`make demo`", "`make test`")
}
