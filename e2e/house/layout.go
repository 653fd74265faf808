package house

import (
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// topLevel lists everything that may stand at the top of the tree, beside dot-files and
// what .gitignore names.
var topLevel = []string{
	"README.md", "LICENSE", "Makefile", "go.work", "go.work.sum",
	"sdk", "region", "federation", "services", "e2e", "deploy",
}

// TopLevel checks the names at the top of the tree. ignored are patterns of .gitignore.
func TopLevel(names, ignored []string) []Violation {
	var vs []Violation
	for _, name := range names {
		if strings.HasPrefix(name, ".") || slices.Contains(topLevel, name) || isIgnored(name, ignored) {
			continue
		}
		vs = append(vs, Violation{
			name, "stands at the top of the tree",
			"a newcomer guesses the architecture from the top level, so it holds the five modules, deploy, README.md, Makefile, LICENSE and the workspace files only",
		})
	}
	return vs
}

// isIgnored reports whether a name at the top is matched by a .gitignore line.
func isIgnored(name string, lines []string) bool {
	return slices.ContainsFunc(lines, func(line string) bool {
		line = strings.Trim(strings.TrimSpace(line), "/")
		ok, _ := path.Match(line, name)
		return ok && line != ""
	})
}

// GoMod is what `go mod edit -json` says of a go.mod, as far as the rules need it.
type GoMod struct {
	Module  ModPath
	Require []ModPath
	Replace []Replace
}

// ModPath is a module's path, or a folder where a replace directive allows one.
type ModPath struct{ Path string }

// Replace is a replace directive.
type Replace struct{ Old, New ModPath }

// ReadGoMod reads the go.mod of the module in folder dir of the checkout at root.
func ReadGoMod(root, dir string) (GoMod, error) {
	var mod GoMod
	out, err := goTool(root, "mod", "edit", "-json", filepath.Join(dir, "go.mod"))
	if err != nil {
		return mod, err
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		return mod, fmt.Errorf("%s/go.mod: %w", dir, err)
	}
	return mod, nil
}

// WorkModules returns the folders that go.work uses, without "./".
func WorkModules(root string) ([]string, error) {
	out, err := goTool(root, "work", "edit", "-json")
	if err != nil {
		return nil, err
	}
	var work struct{ Use []struct{ DiskPath string } }
	if err := json.Unmarshal(out, &work); err != nil {
		return nil, fmt.Errorf("go.work: %w", err)
	}
	var dirs []string
	for _, u := range work.Use {
		dirs = append(dirs, path.Clean(u.DiskPath))
	}
	return dirs, nil
}

// Replaces checks that the module in folder dir is named for its folder, and that it
// stands alone: every sibling it requires is replaced by the sibling's folder.
func Replaces(dir string, mod GoMod) []Violation {
	var vs []Violation
	if mod.Module.Path != Prefix+dir {
		vs = append(vs, Violation{dir + "/go.mod", "names the module " + mod.Module.Path, "a module's path is " + Prefix + " and its folder, so that an import path is also an address in the tree"})
	}
	for _, r := range mod.Require {
		if !Ours(r.Path) {
			continue
		}
		want := relativePath(dir, Rel(r.Path))
		ok := slices.ContainsFunc(mod.Replace, func(rep Replace) bool {
			return rep.Old.Path == r.Path && path.Clean(rep.New.Path) == want
		})
		if !ok {
			vs = append(vs, Violation{
				dir + "/go.mod", fmt.Sprintf("requires %s without replacing it by %s", r.Path, want),
				"each module also builds alone (GOWORK=off), and no version of a sibling is published yet",
			})
		}
	}
	return vs
}

// relativePath returns the way from one folder of the tree to another.
func relativePath(from, to string) string {
	rel, err := filepath.Rel(from, to)
	if err != nil {
		return to
	}
	return filepath.ToSlash(rel)
}

// Readme checks that the README names the two commands a newcomer needs.
func Readme(text string) []Violation {
	var vs []Violation
	for _, cmd := range []string{"make demo", "make test"} {
		if !strings.Contains(text, cmd) {
			vs = append(vs, Violation{"README.md", "does not mention `" + cmd + "`", "two commands are all that a newcomer needs: one shows the product, one proves it"})
		}
	}
	return vs
}
