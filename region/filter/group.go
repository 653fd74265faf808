package filter

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/go-bexpr/grammar"
)

// reader takes an expression apart at its parentheses. The grammar's parser tries one
// alternative after the other, which takes time exponential in their depth: five levels
// took 20 ms, ten would take a minute. So it is given no parentheses: the text of each pair is
// parsed by itself, innermost first, with a name in the place of every pair inside it.
type reader struct {
	text   string
	stand  string               // what names begin with: no part of the text
	groups []grammar.Expression // what the names stand for, by number
}

// read returns the tree of the whole text.
func (r *reader) read() (grammar.Expression, error) {
	for r.stand = "Group"; strings.Contains(r.text, r.stand); {
		r.stand += "x"
	}
	expr, end, err := r.piece(0)
	if err == nil && end < len(r.text) {
		err = r.unexpected(end)
	}
	return expr, err
}

// piece parses from an offset to the parenthesis that closes it, or the end of the text, and
// returns where that is.
func (r *reader) piece(from int) (expr grammar.Expression, end int, err error) {
	var (
		flat  strings.Builder
		marks []mark
		copy  = from // what is not in flat yet begins here
		quote = byte(0)
	)
	marks = append(marks, mark{0, from})
	i := from
scan:
	for ; i < len(r.text); i++ {
		switch c := r.text[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '`':
			quote = c
		case c == ')':
			break scan
		case c == '(':
			// What is no operator's word, blank or bracket cannot stand before it; behind a name, the
			// stand-in would become a part of that.
			if i > from && !strings.ContainsRune(" \t\r\n{", rune(r.text[i-1])) {
				return nil, i, r.unexpected(i)
			}
			group, close, err := r.piece(i + 1)
			if err != nil {
				return nil, close, err
			}
			if close == len(r.text) {
				return nil, close, refuse("the filter cannot be read at %s: the parenthesis opened at %s is not closed", remedy, place(r.text, close), place(r.text, i))
			}
			flat.WriteString(r.text[copy:i])
			marks = append(marks, mark{flat.Len(), i})
			// A whole comparison, so that it fits where an expression does and nowhere else.
			flat.WriteString(r.stand + strconv.Itoa(len(r.groups)) + " is empty")
			r.groups = append(r.groups, group)
			i, copy = close, close+1
			marks = append(marks, mark{flat.Len(), copy})
		}
	}
	flat.WriteString(r.text[copy:i])
	tree, err := grammar.Parse("", []byte(flat.String()), grammar.MaxExpressions(maxSteps))
	if err != nil {
		return nil, i, r.syntaxError(err, marks, i)
	}
	expr, ok := tree.(grammar.Expression)
	if !ok {
		return nil, i, refuse("the filter is empty", remedy)
	}
	return expr, i, nil
}

// mark tells that from an offset of a piece on, its text is that of the filter from another
// offset on; or, for a stand-in, what it stands for.
type mark struct{ flat, text int }

// syntaxError says of the parser's error where it is in the filter. end is that of the piece.
func (r *reader) syntaxError(err error, marks []mark, end int) error {
	if strings.Contains(err.Error(), "max number of expressions") {
		return refuse("the filter takes too long to be read", "use a shorter one")
	}
	offset := 0
	first, _, _ := strings.Cut(err.Error(), "\n")
	if m := where.FindStringSubmatch(first); m != nil {
		offset, _ = strconv.Atoi(m[1])
	}
	at := end
	for i, m := range marks {
		if m.flat > offset {
			break
		}
		at = m.text
		if i%2 == 0 { // no stand-in
			at += offset - m.flat
		}
	}
	return r.unexpected(min(at, end))
}

func (r *reader) unexpected(at int) error {
	return refuse("the filter cannot be read at %s: %s", remedy, place(r.text, at), reason(r.text, at))
}

// standsFor returns the group that a comparison stands for, nil when it is one of its own.
func (r *reader) standsFor(e *grammar.MatchExpression) grammar.Expression {
	if e.Operator != grammar.MatchIsEmpty || len(e.Selector.Path) != 1 {
		return nil
	}
	digits, ok := strings.CutPrefix(e.Selector.Path[0], r.stand)
	if !ok {
		return nil
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n >= len(r.groups) {
		panic(fmt.Sprintf("filter: no group %q", digits)) // the text has no such name
	}
	return r.groups[n]
}
