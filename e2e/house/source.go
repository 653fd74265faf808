package house

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// bannedNames are package names that say what a package is made of, not what it holds.
var bannedNames = []string{"util", "utils", "common", "types", "manager", "helper", "helpers"}

// PackageNames checks that no package is named for being a package.
func PackageNames(pkgs []*Package) []Violation {
	var vs []Violation
	for _, p := range pkgs {
		if slices.Contains(bannedNames, strings.TrimSuffix(p.Name, "_test")) || slices.Contains(bannedNames, path.Base(p.ImportPath)) {
			vs = append(vs, Violation{p.Rel(), "has a name that says nothing", "a package is named for what it holds or wraps; a drawer named util gets filled with everything"})
		}
	}
	return vs
}

// Leftovers checks that no folder of the scaffolding is left in the tree.
func Leftovers(pkgs []*Package) []Violation {
	var vs []Violation
	for _, p := range pkgs {
		if path.Base(p.ImportPath) == "deps_tmp" {
			vs = append(vs, Violation{p.Rel(), "is still there", "it only kept modules in go.mod until the code came; delete it and tidy the module"})
		}
	}
	return vs
}

// HasPackageDoc reports whether a file carries a package comment.
func HasPackageDoc(name string, src []byte) (bool, error) {
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		return false, err
	}
	return f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != "", nil
}

// maxMainLines is how long the files of a main package may be together.
const maxMainLines = 40

// MainLines checks that a main package stays small; lines counts all its files together.
func MainLines(rel string, lines int) []Violation {
	if lines <= maxMainLines {
		return nil
	}
	return []Violation{{
		rel, fmt.Sprintf("has %d lines in package main, more than %d", lines, maxMainLines),
		"main parses, calls and sets the exit code; what it can do beyond that no test reaches",
	}}
}

// Lines counts the lines of a file.
func Lines(src []byte) int {
	n := bytes.Count(src, []byte("\n"))
	if len(src) > 0 && src[len(src)-1] != '\n' {
		n++
	}
	return n
}

// Sleeps checks that a file does not wait with time.Sleep. In a test file the exception is
// a testing/synctest bubble, where sleeping is how the fake clock moves: the call must
// stand inside the function given to synctest.Test, or in a helper function (not a test)
// of a file that imports testing/synctest.
func Sleeps(rel, name string, src []byte) ([]Violation, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	timeName, bubble := localName(f, "time"), localName(f, "testing/synctest")
	if timeName == "" {
		return nil, nil
	}
	test := strings.HasSuffix(name, "_test.go")
	why := "nothing can interrupt it; wait in a select with ctx.Done() and a timer"
	if test {
		why = "a sleep is too short on a busy machine and too long on an idle one; wait for a stated condition with a deadline, or use testing/synctest"
	}
	var vs []Violation
	for _, d := range f.Decls {
		fn, isFunc := d.(*ast.FuncDecl)
		helper := test && bubble != "" && isFunc && !isTestName(fn.Name.Name)
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if test && bubble != "" && isSelector(n.Fun, bubble, "Test") {
					return false // inside the bubble
				}
			case *ast.SelectorExpr:
				if isSelector(n, timeName, "Sleep") && !helper {
					vs = append(vs, Violation{fmt.Sprintf("%s (%s line %d)", rel, name, fset.Position(n.Pos()).Line), "calls time.Sleep", why})
				}
			}
			return true
		})
	}
	return vs, nil
}

// localName returns the name by which a file knows an import, or "".
func localName(f *ast.File, imp string) string {
	for _, spec := range f.Imports {
		if p, _ := strconv.Unquote(spec.Path.Value); p == imp {
			if spec.Name != nil {
				return spec.Name.Name
			}
			return path.Base(imp)
		}
	}
	return ""
}

// isSelector reports whether e is pkg.name.
func isSelector(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg
}

// isTestName reports whether the testing package would run a function of this name.
func isTestName(name string) bool {
	for _, p := range []string{"Test", "Benchmark", "Fuzz", "Example"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
