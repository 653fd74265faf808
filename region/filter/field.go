package filter

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/go-bexpr/grammar"

	"github.com/nearside/nearside/sdk/api"
)

// kind is what a selector stands for.
type kind int

const (
	text    kind = iota + 1
	number       // int
	list         // Tags
	texts        // Metadata
	numbers      // Ports
)

func (k kind) String() string {
	return map[kind]string{text: "text", number: "a number", list: "a list", texts: "a map", numbers: "a map"}[k]
}

func (k kind) remedy() string {
	switch k {
	case text:
		return "use ==, !=, contains, matches or is empty"
	case number:
		return "use == or !="
	}
	return `use "x" in it, is empty, or any and all`
}

// operand is a value of a scope. Of the functions only that of its kind is set; they return
// false when a map does not have the key.
type operand struct {
	kind   kind
	text   func(*scope) (string, bool)
	number func(*scope) (int, bool)
}

func textOf(f func(*api.Instance) string) operand {
	return operand{kind: text, text: func(s *scope) (string, bool) { return f(s.in), true }}
}

func numberOf(f func(*api.Instance) int) operand {
	return operand{kind: number, number: func(s *scope) (int, bool) { return f(s.in), true }}
}

// fields are what an instance can be filtered by.
var fields = map[string]operand{
	"ID":        textOf(func(in *api.Instance) string { return string(in.ID) }),
	"Service":   textOf(func(in *api.Instance) string { return string(in.Service) }),
	"Namespace": textOf(func(in *api.Instance) string { return string(in.Namespace) }),
	"Region":    textOf(func(in *api.Instance) string { return string(in.Region) }),
	"Zone":      textOf(func(in *api.Instance) string { return string(in.Zone) }),
	"Address":   textOf(func(in *api.Instance) string { return in.Address }),
	"Version":   textOf(func(in *api.Instance) string { return in.Version }),
	"Status":    textOf(func(in *api.Instance) string { return string(in.Status) }),
	"Port":      numberOf(func(in *api.Instance) int { return in.Port }),
	"Weight":    numberOf(func(in *api.Instance) int { return in.Weight }),
	"Tags":      {kind: list},
	"Metadata":  {kind: texts},
	"Ports":     {kind: numbers},
}

// resolve finds what a selector stands for.
func (c *compiler) resolve(sel grammar.Selector) (operand, error) {
	name := sel.String()
	if len(sel.Path) == 0 {
		return operand{}, refuse("a selector of the filter is empty", remedy)
	}
	op, ok := c.vars[sel.Path[0]]
	if !ok {
		op, ok = fields[sel.Path[0]]
	}
	if !ok {
		return operand{}, c.refuse(sel.Path[0], "there is no field "+api.Quote(sel.Path[0]),
			"use "+strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
	}
	if len(sel.Path) == 1 {
		return op, nil
	}
	key := sel.Path[1]
	switch {
	case len(sel.Path) > 2 && (op.kind == texts || op.kind == numbers):
		return operand{}, c.refuse(name, name+" goes too deep", `write a key that has dots as `+sel.Path[0]+`["a.b"]`)
	case op.kind == texts:
		return operand{kind: text, text: func(s *scope) (string, bool) { v, ok := s.in.Metadata[key]; return v, ok }}, nil
	case op.kind == numbers:
		return operand{kind: number, number: func(s *scope) (int, bool) { v, ok := s.in.Ports[key]; return v, ok }}, nil
	case op.kind == list:
		return operand{}, c.refuse(name, "entries of "+sel.Path[0]+" have no fixed place", `use "x" in `+sel.Path[0])
	}
	return operand{}, c.refuse(name, sel.Path[0]+" has no parts", "use "+sel.Path[0]+" alone")
}
