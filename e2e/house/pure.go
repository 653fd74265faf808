package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Pure lists the packages of the quiet middle: they take values and a now, and return
// values. No socket, file, context, logger, clock or goroutine.
var Pure = []string{
	"sdk/api", "sdk/route",
	"region/catalog", "region/encoded", "region/liveness", "region/liveness/check", "region/liveness/owner",
	"federation/summary", "federation/replica", "federation/origin", "federation/verdict", "federation/internal/rules",
}

const pureWhy = "it is one of the pure packages: they take values and a now and return values, so that a table, a fuzzer or a simulation can drive them through anything"

// impure lists what pure packages do not import: the roots, and what is below them.
var impure = []string{"net", "os", "context", "log", "syscall", "runtime", "testing"}

// pureExceptions are imports that look impure and do no I/O, for one package or, with an
// empty pkg, for all. With names, only identifiers that start with one of them may be used.
var pureExceptions = []struct {
	pkg, imp string
	names    []string
	why      string
}{
	{"", "net/netip", nil, "an address is a value; netip opens nothing"},
	{"", "net/url", nil, "taking a URL apart is text work; net/url opens nothing"},
	{"sdk/api", "net/http", []string{"Status", "Method"}, "the names and numbers of HTTP statuses and methods are part of the wire form"},
	{"region/catalog", Prefix + "region/store", nil, "the store contract is nouns and an interface; its implementations are in folders below it"},
}

// excepted returns the names that pure package rel may use of import imp despite the
// rules (nil = all), and whether it may at all.
func excepted(rel, imp string) (names []string, ok bool) {
	for _, e := range pureExceptions {
		if (e.pkg == "" || e.pkg == rel) && e.imp == imp {
			return e.names, true
		}
	}
	return nil, false
}

// clock lists the functions of package time that read a clock or wait for one.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// pureThirdParty are modules a pure package may use: computing, nothing else.
var pureThirdParty = []string{"github.com/cespare/xxhash/v2"}

// PureFile checks one file of the pure package rel. src is its content, name is for
// messages.
func PureFile(rel, name string, src []byte) ([]Violation, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var vs []Violation
	say := func(pos token.Pos, what string) {
		vs = append(vs, Violation{fmt.Sprintf("%s (%s line %d)", rel, name, fset.Position(pos).Line), what, pureWhy})
	}
	narrow := map[string][]string{} // local name of an import -> allowed beginnings
	timeName := ""
	for _, spec := range f.Imports {
		imp, _ := strconv.Unquote(spec.Path.Value)
		local := path.Base(imp)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if imp == "time" {
			timeName = local
		}
		if names, ok := excepted(rel, imp); ok {
			if names != nil {
				narrow[local] = names
			}
			continue
		}
		switch {
		case Ours(imp):
			if !slices.Contains(Pure, Rel(imp)) {
				say(spec.Pos(), "imports "+Rel(imp)+", which is not pure")
			}
		case !Standard(imp):
			if !slices.Contains(pureThirdParty, imp) {
				say(spec.Pos(), "imports "+imp)
			}
		case below(imp, impure):
			say(spec.Pos(), "imports "+imp)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			say(n.Pos(), "starts a goroutine")
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			if timeName != "" && x.Name == timeName && slices.Contains(clock, n.Sel.Name) {
				say(n.Pos(), "uses time."+n.Sel.Name)
			}
			if names, ok := narrow[x.Name]; ok && !slices.ContainsFunc(names, func(p string) bool { return strings.HasPrefix(n.Sel.Name, p) }) {
				say(n.Pos(), fmt.Sprintf("uses %s.%s, more than the %s names it may", x.Name, n.Sel.Name, strings.Join(names, " and ")))
			}
		}
		return true
	})
	return vs, nil
}

// PurePresent checks that every package of Pure is still there: a rule about a package
// that was renamed would hold for ever and say nothing.
func PurePresent(pkgs []*Package) []Violation {
	var vs []Violation
	for _, rel := range Pure {
		if !slices.ContainsFunc(pkgs, func(p *Package) bool { return p.Rel() == rel }) {
			vs = append(vs, Violation{rel, "is not there", "it is listed as a pure package; if it moved, move its line in e2e/house too, or the rule holds nothing"})
		}
	}
	return vs
}
