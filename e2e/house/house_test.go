package house

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// house is the checkout under test: every package of the workspace.
type house struct {
	root string
	pkgs []*Package
}

// loaded asks `go list` once for all tests; they only read.
var loaded = sync.OnceValues(func() (house, error) {
	wd, err := os.Getwd()
	if err != nil {
		return house{}, err
	}
	root, err := Root(wd)
	if err != nil {
		return house{}, err
	}
	pkgs, err := Load(root, false, "work")
	if err == nil && len(pkgs) == 0 {
		err = errors.New("go list finds no package in the workspace: the rules would hold nothing")
	}
	return house{root, pkgs}, err
})

func open(t *testing.T) house {
	t.Helper()
	h, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	neverCached(t, h.root)
	return h
}

// neverCached keeps `go test` from reusing an older verdict: it looks for changed inputs
// inside this module only, and these rules are about the other modules. A file that was
// written moments ago and read by a test makes its result uncacheable.
func neverCached(t *testing.T, root string) {
	dir := filepath.Join(root, "e2e", ".artifacts")
	name := filepath.Join(dir, "house.txt")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Logf("results may be cached: %v", err)
		return
	}
	if err := os.WriteFile(name, []byte("the house rules were last held here\n"), 0o644); err != nil {
		t.Logf("results may be cached: %v", err)
		return
	}
	if _, err := os.ReadFile(name); err != nil {
		t.Logf("results may be cached: %v", err)
	}
}

func (h house) read(t *testing.T, p *Package, file string) []byte {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(p.Dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func report(t *testing.T, vs []Violation) {
	t.Helper()
	for _, v := range vs {
		t.Error(v)
	}
}

func TestPartsImportOnlyWhatTheyMay(t *testing.T) {
	report(t, Layers(open(t).pkgs))
}

func TestHeavyDependenciesStayInTheirWrappers(t *testing.T) {
	report(t, Confined(open(t).pkgs))
}

func TestSDKBringsOnlyItsListAlong(t *testing.T) {
	h := open(t)
	var patterns []string
	for _, p := range h.pkgs {
		if p.Module.Path == Prefix+"sdk" && !strings.HasSuffix(p.ImportPath, "/deps_tmp") {
			patterns = append(patterns, p.ImportPath)
		}
	}
	if !slices.Contains(patterns, Prefix+"sdk") {
		t.Errorf("package %ssdk is not there: it is the client that this rule is about", Prefix)
	}
	deps, err := Load(h.root, true, patterns...)
	if err != nil {
		t.Fatal(err)
	}
	report(t, SDKDependencies(deps))
	mod, err := ReadGoMod(h.root, "sdk")
	if err != nil {
		t.Fatal(err)
	}
	report(t, SDKRequirements(mod))
}

func TestGRPCResolverBringsOnlyGRPCAlong(t *testing.T) {
	h := open(t)
	deps, err := Load(h.root, true, Prefix+"sdk/grpcresolver")
	if err != nil {
		t.Fatal(err)
	}
	report(t, ResolverDependencies(deps))
	mod, err := ReadGoMod(h.root, "sdk/grpcresolver")
	if err != nil {
		t.Fatal(err)
	}
	report(t, ResolverRequirements(mod))
}

func TestPurePackagesArePure(t *testing.T) {
	h := open(t)
	report(t, PurePresent(h.pkgs))
	for _, p := range h.pkgs {
		if !slices.Contains(Pure, p.Rel()) {
			continue
		}
		for _, f := range p.Files() {
			vs, err := PureFile(p.Rel(), f, h.read(t, p, f))
			if err != nil {
				t.Error(err)
			}
			report(t, vs)
		}
	}
}

func TestPackagesAreNamedForWhatTheyHold(t *testing.T) {
	report(t, PackageNames(open(t).pkgs))
}

func TestNoScaffoldingIsLeft(t *testing.T) {
	report(t, Leftovers(open(t).pkgs))
}

func TestEveryPackageHasADocComment(t *testing.T) {
	h := open(t)
	for _, p := range h.pkgs {
		documented := false
		for _, f := range p.AllFiles() {
			doc, err := HasPackageDoc(f, h.read(t, p, f))
			if err != nil {
				t.Error(err)
			}
			documented = documented || doc
		}
		if !documented {
			t.Errorf("%s has no package comment: it is the first page of the manual, and what the reader of an import path sees", p.Rel())
		}
	}
}

func TestMainIsSmall(t *testing.T) {
	h := open(t)
	for _, p := range h.pkgs {
		if p.Name != "main" {
			continue
		}
		n := 0
		for _, f := range p.Files() {
			n += Lines(h.read(t, p, f))
		}
		report(t, MainLines(p.Rel(), n))
	}
}

func TestNothingWaitsBySleeping(t *testing.T) {
	h := open(t)
	for _, p := range h.pkgs {
		for _, f := range p.AllFiles() {
			vs, err := Sleeps(p.Rel(), f, h.read(t, p, f))
			if err != nil {
				t.Error(err)
			}
			report(t, vs)
		}
	}
}

// Long files are told, not refused: the number alone does not say which second idea moved
// in.
func TestLongFilesAreTold(t *testing.T) {
	h := open(t)
	const long = 500
	for _, p := range h.pkgs {
		for _, f := range p.AllFiles() {
			if n := Lines(h.read(t, p, f)); n > long {
				t.Logf("warning: %s/%s has %d lines; past %d ask which second idea moved in", p.Rel(), f, n, long)
			}
		}
	}
}

func TestTopLevelIsTheDesigned(t *testing.T) {
	root := open(t).root
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	ignore, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	report(t, TopLevel(names, strings.Split(string(ignore), "\n")))
}

func TestEveryModuleStandsAlone(t *testing.T) {
	root := open(t).root
	dirs, err := WorkModules(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		mod, err := ReadGoMod(root, dir)
		if err != nil {
			t.Fatal(err)
		}
		report(t, Replaces(dir, mod))
	}
}

func TestReadmeNamesTheTwoCommands(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(open(t).root, "README.md"))
	if err != nil {
		t.Fatalf("the tree has no readable README.md, the page everyone starts from: %v", err)
	}
	report(t, Readme(string(text)))
}
