package httpapi

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/nearside/nearside/sdk/api"
)

// parameters are those of a query, in the order in which they came: a handful, so that a
// list is quicker than a map.
type parameters []queryParameter

type queryParameter struct{ name, value string }

// Get returns the first value of a parameter, "" when it is not given.
func (p parameters) Get(name string) string {
	for i := range p {
		if p[i].name == name {
			return p[i].value
		}
	}
	return ""
}

// Has reports whether a parameter is given.
func (p parameters) Has(name string) bool {
	return slices.ContainsFunc(p, func(one queryParameter) bool { return one.name == name })
}

// all returns every value of a parameter.
func (p parameters) all(name string) (values []string) {
	for i := range p {
		if p[i].name == name {
			values = append(values, p[i].value)
		}
	}
	return values
}

// names returns the names that are given, sorted, each once.
func (p parameters) names() []string {
	names := make([]string, len(p))
	for i := range p {
		names[i] = p[i].name
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// readQuery splits a query as url.ParseQuery does; ok is false where that fails.
func readQuery(raw string) (list parameters, ok bool) {
	for raw != "" {
		var one string
		one, raw, _ = strings.Cut(raw, "&")
		if strings.IndexByte(one, ';') >= 0 {
			return nil, false
		}
		if one == "" {
			continue
		}
		name, value, _ := strings.Cut(one, "=")
		if strings.ContainsAny(one, "%+") {
			var err1, err2 error
			name, err1 = url.QueryUnescape(name)
			value, err2 = url.QueryUnescape(value)
			if err1 != nil || err2 != nil {
				return nil, false
			}
		}
		list = append(list, queryParameter{name, value})
	}
	return list, true
}

// parseQuery reads a query and refuses what the route does not know, and every parameter
// given twice but those of repeat.
func parseQuery(raw string, known, repeat []string) (parameters, error) {
	if raw == "" {
		return nil, nil
	}
	q, ok := readQuery(raw)
	if !ok {
		return nil, &api.Error{
			Code: api.CodeInvalidRequest, Detail: "the query string is not readable",
			Remedy: "write ?name=value&name=value, percent-encoded",
		}
	}
	if wellFormed(q, known, repeat) {
		return q, nil
	}
	for _, name := range q.names() { // sorted, so that the same request always gets the same answer
		if !slices.Contains(known, name) {
			return nil, unknownParameter(name, known)
		}
		if n := len(q.all(name)); n > 1 && !slices.Contains(repeat, name) {
			remedy := "give it once"
			if name == "status" {
				remedy = "give it once, several values with commas"
			}
			return nil, &api.Error{
				Code: api.CodeInvalidRequest, Field: name,
				Detail: fmt.Sprintf("the parameter %s is given %d times", name, n), Remedy: remedy,
			}
		}
	}
	return q, nil
}

// wellFormed reports whether every parameter is known and given once.
func wellFormed(q parameters, known, repeat []string) bool {
	for i := range q {
		if !slices.Contains(known, q[i].name) || !slices.Contains(repeat, q[i].name) && q[:i].Has(q[i].name) {
			return false
		}
	}
	return true
}

func unknownParameter(name string, known []string) error {
	e := &api.Error{
		Code: api.CodeUnknownParameter, Field: name,
		Detail: "there is no parameter " + api.Quote(name) + " here",
	}
	const most = 80 // of a stranger's text in the field
	if len(name) > most {
		e.Field = strings.ToValidUTF8(name[:most], "")
	}
	e.Field = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar // whoever prints it is not to be steered by it
		}
		return r
	}, e.Field)
	if len(known) == 0 {
		e.Remedy = "this path takes no parameters"
	} else {
		e.Remedy = "use " + strings.Join(known, ", ")
	}
	return e
}
