package house

import (
	"fmt"
	"strings"
)

// Repeats returns what a document in Markdown says twice, or begins and leaves out: a long line or
// sentence that is there again, a heading with nothing below it or used again, two rows of a table about the
// same thing, and a row of a table that none of its lines precede. Each is one line of text; what is
// between fences is left alone.
func Repeats(doc string) (out []string) {
	const long = 60 // shorter ones may well be said twice
	said, headings, rows := map[string]int{}, map[string]int{}, map[string]int{}
	once := func(at int, what, text string, seen map[string]int) {
		if first, again := seen[text]; again {
			out = append(out, fmt.Sprintf("line %d: %s is that of line %d: %.80s", at, what, first, text))
			return
		}
		seen[text] = at
	}
	fenced, before, heading := false, "", 0
	for i, line := range strings.Split(doc, "\n") {
		at, line := i+1, strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if fenced {
			before = line
			continue
		}
		level := strings.IndexFunc(line, func(r rune) bool { return r != '#' })
		isHeading := level > 0 && strings.HasPrefix(line[level:], " ")
		isRow := strings.HasPrefix(line, "|")
		switch {
		case isHeading:
			if heading >= level {
				out = append(out, fmt.Sprintf("line %d: nothing is said under the heading before %s", at, line))
			}
			once(at, "the heading", line, headings)
			heading = level
		case line != "":
			heading = 0
		}
		if !isRow {
			clear(rows)
		} else if first := strings.TrimSpace(strings.SplitN(line, "|", 3)[1]); strings.HasPrefix(first, "`") || len(first) > 24 {
			// A short word may begin several rows: what they are about is in the next column, too.
			once(at, "the subject of a row", first, rows)
		}
		if isRow && before != "" && !strings.HasPrefix(before, "|") {
			out = append(out, fmt.Sprintf("line %d: a row outside of a table: %.80s", at, line))
		}
		for n, s := range strings.SplitAfter(line, ". ") {
			if s = strings.TrimSpace(s); len(s) >= long {
				once(at, map[bool]string{true: "a line", false: "a sentence"}[n == 0], s, said)
			}
		}
		before = line
	}
	return out
}
