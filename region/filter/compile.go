package filter

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-bexpr/grammar"

	"github.com/nearside/nearside/sdk/api"
)

// scope is what an expression is evaluated on: an instance and, inside any and all, one
// entry of a list or map of it.
type scope struct {
	in     *api.Instance
	index  int    // of a list's entry
	key    string // of a map's entry
	text   string // the entry
	number int    // the entry
}

type predicate func(*scope) bool

// compiler turns one tree into closures.
type compiler struct {
	*reader
	vars map[string]operand // names bound by any and all
}

// compile calls itself a few times for each level of parentheses, of which Parse allows
// api.MaxFilterDepth.
func (c *compiler) compile(expr grammar.Expression) (predicate, error) {
	switch e := expr.(type) {
	case *grammar.UnaryExpression:
		p, err := c.compile(e.Operand)
		if err != nil {
			return nil, err
		}
		return func(s *scope) bool { return !p(s) }, nil
	case *grammar.BinaryExpression:
		return c.chain(e)
	case *grammar.MatchExpression:
		if group := c.standsFor(e); group != nil {
			return c.compile(group)
		}
		return c.compare(e)
	case *grammar.CollectionExpression:
		return c.each(e)
	}
	return nil, refuse("the filter has a part that is not known", remedy)
}

// chain compiles "a and b and c", which the tree holds as a and (b and c), as one level.
func (c *compiler) chain(e *grammar.BinaryExpression) (predicate, error) {
	var parts []predicate
	var rest grammar.Expression = e
	for {
		next, ok := rest.(*grammar.BinaryExpression)
		if !ok || next.Operator != e.Operator {
			break
		}
		p, err := c.compile(next.Left)
		if err != nil {
			return nil, err
		}
		parts, rest = append(parts, p), next.Right
	}
	last, err := c.compile(rest)
	if err != nil {
		return nil, err
	}
	parts = append(parts, last)
	stop := e.Operator == grammar.BinaryOpOr
	return func(s *scope) bool {
		for _, p := range parts {
			if p(s) == stop {
				return stop
			}
		}
		return !stop
	}, nil
}

// each compiles any and all.
func (c *compiler) each(e *grammar.CollectionExpression) (predicate, error) {
	name := e.Selector.String()
	if c.vars != nil {
		return nil, c.refuse(name, "any and all cannot be inside one another", `join them with "and"`)
	}
	over, err := c.resolve(e.Selector)
	if err != nil {
		return nil, err
	}
	if over.kind != list && over.kind != texts && over.kind != numbers {
		return nil, c.refuse(name, name+" is neither a list nor a map", "use Tags, Metadata or Ports")
	}
	if err := c.bind(e.NameBinding, over.kind); err != nil {
		return nil, err
	}
	inner, err := c.compile(e.Inner)
	c.vars = nil
	if err != nil {
		return nil, err
	}
	stop := e.Op == grammar.CollectionOpAny
	switch over.kind {
	case list:
		return func(s *scope) bool {
			one := scope{in: s.in}
			for one.index, one.text = range s.in.Tags {
				if inner(&one) == stop {
					return stop
				}
			}
			return !stop
		}, nil
	case texts:
		return func(s *scope) bool {
			one := scope{in: s.in}
			for one.key, one.text = range s.in.Metadata {
				if inner(&one) == stop {
					return stop
				}
			}
			return !stop
		}, nil
	}
	return func(s *scope) bool {
		one := scope{in: s.in}
		for one.key, one.number = range s.in.Ports {
			if inner(&one) == stop {
				return stop
			}
		}
		return !stop
	}, nil
}

// bind makes the names of any and all known.
func (c *compiler) bind(b grammar.CollectionNameBinding, over kind) error {
	entry := operand{kind: text, text: func(s *scope) (string, bool) { return s.text, true }}
	key := operand{kind: text, text: func(s *scope) (string, bool) { return s.key, true }}
	first := key // what a single name means
	switch over {
	case list:
		key = operand{kind: number, number: func(s *scope) (int, bool) { return s.index, true }}
		first = entry
	case numbers:
		entry = operand{kind: number, number: func(s *scope) (int, bool) { return s.number, true }}
	}
	c.vars = map[string]operand{}
	for _, v := range []struct {
		name string
		op   operand
	}{{b.Default, first}, {b.Index, key}, {b.Value, entry}} {
		if v.name == "" {
			continue
		}
		if _, field := fields[v.name]; field {
			return c.refuse(v.name, v.name+" is a field and cannot be a name", "use another name after as")
		}
		if _, twice := c.vars[v.name]; twice {
			return c.refuse(v.name, v.name+" cannot name both the key and the value", "use two names after as")
		}
		c.vars[v.name] = v.op
	}
	return nil
}

// compare compiles a single comparison.
func (c *compiler) compare(e *grammar.MatchExpression) (predicate, error) {
	op, err := c.resolve(e.Selector)
	if err != nil {
		return nil, err
	}
	raw := ""
	if e.Value != nil {
		raw = e.Value.Raw
	}
	var p predicate
	switch e.Operator {
	case grammar.MatchEqual, grammar.MatchNotEqual:
		p, err = c.equal(op, raw)
	case grammar.MatchIn, grammar.MatchNotIn, grammar.MatchContains, grammar.MatchNotContains:
		p = op.contains(raw)
	case grammar.MatchIsEmpty, grammar.MatchIsNotEmpty:
		p = op.isEmpty()
	case grammar.MatchIsNil, grammar.MatchIsNotNil:
		p = op.isNil()
	case grammar.MatchMatches, grammar.MatchNotMatches:
		p, err = c.matches(op, raw)
	}
	name := e.Selector.String()
	switch {
	case err != nil:
		return nil, err
	case p == nil:
		return nil, c.refuse(name, fmt.Sprintf("%s is %s and cannot be compared like this", name, op.kind), op.kind.remedy())
	}
	switch e.Operator {
	case grammar.MatchNotEqual, grammar.MatchNotIn, grammar.MatchNotContains, grammar.MatchIsNotEmpty, grammar.MatchIsNotNil, grammar.MatchNotMatches:
		return func(s *scope) bool { return !p(s) }, nil
	}
	return p, nil
}

func (c *compiler) equal(op operand, raw string) (predicate, error) {
	switch op.kind {
	case text:
		return func(s *scope) bool { v, ok := op.text(s); return ok && v == raw }, nil
	case number:
		want, err := strconv.ParseInt(raw, 0, 64)
		if err != nil {
			return nil, c.refuse(raw, api.Quote(raw)+" is not a whole number", "compare with a number")
		}
		return func(s *scope) bool { v, ok := op.number(s); return ok && int64(v) == want }, nil
	}
	return nil, nil
}

func (c *compiler) matches(op operand, raw string) (predicate, error) {
	if op.kind != text {
		return nil, nil
	}
	re, err := regexp.Compile(raw)
	if err != nil {
		return nil, c.refuse(raw, fmt.Sprintf("the pattern %s cannot be read", api.Quote(raw)), "use the syntax of RE2")
	}
	return func(s *scope) bool { v, ok := op.text(s); return ok && re.MatchString(v) }, nil
}

func (op operand) contains(raw string) predicate {
	switch op.kind {
	case text:
		return func(s *scope) bool { v, ok := op.text(s); return ok && strings.Contains(v, raw) }
	case list:
		return func(s *scope) bool { return slices.Contains(s.in.Tags, raw) }
	case texts:
		return func(s *scope) bool { _, ok := s.in.Metadata[raw]; return ok }
	case numbers:
		return func(s *scope) bool { _, ok := s.in.Ports[raw]; return ok }
	}
	return nil
}

func (op operand) isEmpty() predicate {
	switch op.kind {
	case text:
		return func(s *scope) bool { v, ok := op.text(s); return !ok || v == "" }
	case list:
		return func(s *scope) bool { return len(s.in.Tags) == 0 }
	case texts:
		return func(s *scope) bool { return len(s.in.Metadata) == 0 }
	case numbers:
		return func(s *scope) bool { return len(s.in.Ports) == 0 }
	}
	return nil
}

func (op operand) isNil() predicate {
	switch op.kind {
	case list:
		return func(s *scope) bool { return s.in.Tags == nil }
	case texts:
		return func(s *scope) bool { return s.in.Metadata == nil }
	case numbers:
		return func(s *scope) bool { return s.in.Ports == nil }
	}
	return nil
}

// refuse is an error about the first place where part stands.
func (c *compiler) refuse(part, detail, remedy string) error {
	return refuse("%s, at %s of the filter", remedy, detail, place(c.text, strings.Index(c.text, part)))
}
