package filter

import (
	"fmt"
	"regexp"
	"strconv"
	"unicode/utf8"

	"github.com/nearside/nearside/sdk/api"
)

// maxSteps bounds the grammar's parser, to some 100 ms, should there be a text that it takes
// long for. None is known: see reader.
const maxSteps = 1_000_000

// Filter decides which instances are meant. Safe for concurrent use.
type Filter struct {
	text  string
	match predicate
}

// String returns the expression as it was given.
func (f *Filter) String() string { return f.text }

// Match reports whether the instance is meant.
func (f *Filter) Match(in *api.Instance) bool { return f.match(&scope{in: in}) }

// Parse reads an expression of at most api.MaxFilterLength bytes and api.MaxFilterDepth levels.
// Its error is an *api.Error with CodeInvalidField that tells the place.
func Parse(text string) (*Filter, error) {
	if len(text) > api.MaxFilterLength {
		return nil, refuse("the filter is %d bytes long", fmt.Sprintf("use at most %d", api.MaxFilterLength), len(text))
	}
	if !utf8.ValidString(text) {
		return nil, refuse("the filter is not valid UTF-8", "send UTF-8 text")
	}
	if at := tooDeep(text); at >= 0 {
		return nil, refuse("the filter is too deep at %s", fmt.Sprintf("use at most %d levels of parentheses (filter_depth in GET /v1/limits)", api.MaxFilterDepth), place(text, at))
	}
	r := &reader{text: text}
	expr, err := r.read()
	if err != nil {
		return nil, err
	}
	c := compiler{reader: r}
	match, err := c.compile(expr)
	if err != nil {
		return nil, err
	}
	return &Filter{text: text, match: match}, nil
}

const remedy = `write such as Zone == "a" and "blue" in Tags`

func refuse(detail, remedy string, args ...any) error {
	return api.FieldError("filter", fmt.Sprintf(detail, args...), remedy)
}

// place tells people where the byte at offset is.
func place(text string, offset int) string {
	offset = min(max(offset, 0), len(text))
	return "character " + strconv.Itoa(1+utf8.RuneCountInString(text[:offset]))
}

// where finds the offset in the parser's messages: "line:column (offset): …".
var where = regexp.MustCompile(`\d+:\d+ \((\d+)\)`)

func reason(text string, offset int) string {
	if offset >= len(text) {
		return "it ends too early"
	}
	return "unexpected " + api.Quote(text[offset:])
}

// tooDeep returns the offset of the first bracket that is nested too deep, or -1.
func tooDeep(text string) int {
	depth, quote := 0, byte(0)
	for i := range len(text) {
		switch c := text[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '`':
			quote = c
		case c == '(' || c == '{':
			if depth++; depth > api.MaxFilterDepth {
				return i
			}
		case c == ')' || c == '}':
			depth--
		}
	}
	return -1
}
