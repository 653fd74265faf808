package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Nothing is said twice in a design note or in the failure analysis: two edits that meet leave such lines,
// and the older of them is wrong.
func TestNothingIsSaidTwice(t *testing.T) {
	root := open(t).root
	found := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root:
			return fs.SkipDir
		case d.Name() != "DESIGN.md" && d.Name() != "SCENARIOS.md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found++
		rel, _ := filepath.Rel(root, path)
		for _, r := range Repeats(string(text)) {
			t.Errorf("%s, %s", rel, r)
		}
		return nil
	})
	if err != nil || found < 3 {
		t.Errorf("%d documents were read, %v", found, err)
	}
}

func TestRepeatsAreFound(t *testing.T) {
	const text = "a sentence that is long enough to be told from all the others of this text"
	for name, tt := range map[string]struct {
		doc   string
		finds int
	}{
		"nothing":                      {"# A\n\n## B\n\n| a | b |\n|---|---|\n| x | y |\n| z | y |\n\n| a |\n|---|\n", 0},
		"a line":                       {text + ".\nand\n" + text + ".\n", 1},
		"a sentence further on":        {text + ". And so on.\nOr: x. " + text + ".\n", 1},
		"a short line":                 {"and so on\nand so on\n", 0},
		"a heading without anything":   {"## A\n## B\n\nx\n", 1},
		"a part of a chapter":          {"## A\n\n### B\n\nx\n", 0},
		"a heading that is used again": {"## A\n\nx\n\n## A\n\ny\n", 1},
		"two rows about one thing":     {"| p | q |\n|---|---|\n| `x` | y |\n| `x` | z |\n", 1},
		"two rows that begin alike":    {"| p | q |\n|---|---|\n| x | y |\n| x | z |\n", 0},
		"a row after the table's end":  {"| p | q |\n|---|---|\n| x | y |\n\nbut\n| z | y |\n", 1},
		"what is between fences":       {"```\n" + text + "\n" + text + "\n```\n", 0},
	} {
		if got := Repeats(tt.doc); len(got) != tt.finds {
			t.Errorf("%s: found %q, want %d", name, got, tt.finds)
		}
	}
}
