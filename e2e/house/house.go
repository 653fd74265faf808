// Package house holds the rules of the house: who may import whom, which packages stay
// pure, what the SDK may bring into other people's programs, and how the tree is laid out.
//
// The rules are section 3 of the design. Each is a function from what was found to a list
// of [Violation]s, and every violation is a sentence that carries its reason, so that the
// person who meets one learns why before deciding whether the code or the rule is wrong.
// The tests of this package run the rules over the checkout, and prove with a bad example
// that each rule can fail.
//
// [Load] asks `go list`; nothing else here runs a program or keeps state.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Prefix is the module path that every module of the house starts with.
const Prefix = "github.com/nearside/nearside/"

// Violation is one broken rule: Where breaks it, What was found, Why the rule is there.
type Violation struct{ Where, What, Why string }

// String returns the violation as one sentence.
func (v Violation) String() string { return fmt.Sprintf("%s %s: %s", v.Where, v.What, v.Why) }

// Package is what `go list -json` says of a package, as far as the rules need it.
type Package struct {
	ImportPath string
	Dir        string
	Name       string
	Module     *Module

	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string

	Imports      []string
	TestImports  []string
	XTestImports []string

	Error *struct{ Err string }
}

// Module is the module that a package belongs to; nil for the standard library.
type Module struct{ Path string }

// Rel returns the package's path inside the house, such as "region/store"; other packages
// keep their whole import path.
func (p *Package) Rel() string { return Rel(p.ImportPath) }

// Rel returns an import path inside the house without the common prefix; other paths are
// returned as they are.
func Rel(importPath string) string { return strings.TrimPrefix(importPath, Prefix) }

// Ours reports whether an import path belongs to the house.
func Ours(importPath string) bool { return strings.HasPrefix(importPath, Prefix) }

// Standard reports whether an import path is of the standard library: its first element
// has no dot.
func Standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// Files returns the package's own files, tests not among them.
func (p *Package) Files() []string { return slices.Concat(p.GoFiles, p.CgoFiles) }

// AllFiles returns the package's files, tests among them.
func (p *Package) AllFiles() []string {
	return slices.Concat(p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles)
}

// AllImports returns what the package and its tests import, sorted, each once.
func (p *Package) AllImports() []string {
	all := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
	slices.Sort(all)
	return slices.Compact(all)
}

// Under reports whether rel is one of the patterns: a path, or a path followed by "/..."
// for it and everything below.
func Under(rel string, patterns ...string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if base, ok := strings.CutSuffix(p, "/..."); ok {
			return rel == base || strings.HasPrefix(rel, base+"/")
		}
		return rel == p
	})
}

// Root returns the top of the checkout: the nearest folder above dir with a go.work file.
func Root(dir string) (string, error) {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.work")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.work above %s", dir)
		}
	}
}

// Load lists the packages that match patterns in the workspace at root; with deps also
// everything they need. "work" matches every package of the house. A package that can not
// be loaded is an error.
func Load(root string, deps bool, patterns ...string) ([]*Package, error) {
	args := []string{"list", "-e", "-json=ImportPath,Dir,Name,Module,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Error"}
	if deps {
		args = append(args, "-deps")
	}
	out, err := goTool(root, append(args, patterns...)...)
	if err != nil {
		return nil, err
	}
	var pkgs []*Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(Package)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("output of go list: %w", err)
		}
		if p.Error != nil {
			return nil, fmt.Errorf("package %s: %s", p.ImportPath, p.Error.Err)
		}
		pkgs = append(pkgs, p)
	}
}

// goTool runs the go command at root in workspace mode, whatever the caller's GOWORK says,
// and returns what it prints.
func goTool(root string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOWORK="+filepath.Join(root, "go.work"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, stderr.String())
	}
	return out, nil
}
