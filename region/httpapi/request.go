package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// pathParams gives the raw (still escaped) value of a path parameter.
type pathParams interface{ Param(name string) string }

// request is what a handler reads its input from. Readers return a zero value after the
// first bad input and keep its error: read everything, then look at err once.
type request struct {
	*http.Request
	params pathParams
	query  parameters // checked against the route's list; nil when there is none
	err    error
}

func (r *request) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *request) check(err error) {
	if err != nil {
		r.fail(err)
	}
}

// bad notes that parameter name has a value that is not allowed.
func (r *request) bad(name, value, remedy string) {
	r.fail(api.FieldError(name, fmt.Sprintf("%s %s is not valid", name, api.Quote(value)), remedy))
}

// path returns a path parameter, decoded exactly once.
func (r *request) path(name string) string {
	raw := r.params.Param(name)
	if strings.IndexByte(raw, '/') >= 0 {
		// The router gives the whole rest of the path to a last parameter.
		r.fail(unknownPath(r.URL))
		return ""
	}
	if r.URL.RawPath == "" {
		return raw // the router matched on the decoded path
	}
	v, err := url.PathUnescape(raw)
	if err != nil {
		r.bad(name, raw, "percent-encode it correctly")
	}
	return v
}

func (r *request) service() api.ServiceName {
	s := r.path("service")
	r.check(api.CheckServiceName(s))
	return api.ServiceName(s)
}

func (r *request) namespace() api.Namespace {
	s := r.query.Get("ns")
	if s == "" {
		return api.DefaultNamespace
	}
	r.check(api.CheckNamespace(s))
	return api.Namespace(s)
}

// onlyNamespace returns ?ns= where its absence means all of them: "".
func (r *request) onlyNamespace() api.Namespace {
	if r.query.Get("ns") == "" {
		return ""
	}
	return r.namespace()
}

func (r *request) instanceKey() api.InstanceKey {
	k := api.InstanceKey{Namespace: r.namespace(), Service: r.service()}
	id := r.path("id")
	r.check(api.CheckInstanceID(id))
	k.ID = api.InstanceID(id)
	return k
}

func (r *request) zone() api.Zone {
	s := r.query.Get("zone")
	r.check(api.CheckZone(s))
	return api.Zone(s)
}

// region returns ?region=; "" when it is not given.
func (r *request) region() api.Region {
	if !r.query.Has("region") {
		return ""
	}
	s := r.query.Get("region")
	r.check(api.CheckRegion(s))
	return api.Region(s)
}

func (r *request) limit() int {
	if !r.query.Has("limit") {
		return 0
	}
	s := r.query.Get("limit")
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > api.MaxListLimit {
		r.bad("limit", s, fmt.Sprintf("use 1 to %d", api.MaxListLimit))
		return 0
	}
	return n
}

// number returns a parameter that counts from 0; 0 when it is not given. An empty value is
// refused: it comes from an unset variable, and would lift a guard unseen.
func (r *request) number(name string) uint64 {
	if !r.query.Has(name) {
		return 0
	}
	s := r.query.Get(name)
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		r.bad(name, s, "use a whole number of 0 or more, or leave it out")
	}
	return n
}

func (r *request) flag(name string) bool {
	if !r.query.Has(name) {
		return false
	}
	switch s := r.query.Get(name); s {
	case "true":
		return true
	case "false":
	default:
		r.bad(name, s, "use true or false")
	}
	return false
}

func (r *request) statuses() []api.Status {
	if !r.query.Has("status") {
		return nil
	}
	var list []api.Status
	for s := range strings.SplitSeq(r.query.Get("status"), ",") {
		st := api.Status(s)
		if !st.Valid() {
			r.bad("status", s, "use starting, passing, warning, critical or draining; several with commas")
			return nil
		}
		if !slices.Contains(list, st) {
			list = append(list, st)
		}
	}
	return list
}

func (r *request) tag() string {
	s := r.query.Get("tag")
	if r.query.Has("tag") && (s == "" || len(s) > api.MaxTagLength) {
		r.bad("tag", s, fmt.Sprintf("use 1 to %d bytes, or leave it out", api.MaxTagLength))
	}
	return s
}

// filter returns ?filter= for the registry to read.
func (r *request) filter() string {
	s := r.query.Get("filter")
	if r.query.Has("filter") && s == "" {
		r.bad("filter", s, `write an expression such as Zone == "a", or leave it out`)
	}
	return s
}

const maxCursor = 512 // bytes; far more than any cursor given out

func (r *request) cursor() string {
	s := r.query.Get("cursor")
	if len(s) > maxCursor {
		r.bad("cursor", s, "give back the cursor of the last page, unchanged")
	}
	return s
}

func (r *request) read() registry.ReadOptions {
	o := registry.ReadOptions{MinRevision: r.number("min_revision")}
	if r.query.Has("consistency") {
		switch s := r.query.Get("consistency"); s {
		case "eventual":
		case "strong":
			o.Strong = true
		default:
			r.bad("consistency", s, "use eventual or strong")
		}
	}
	return o
}

// later refuses a parameter that the design names and this version does not have.
func (r *request) later(names ...string) {
	for _, n := range names {
		if r.query.Has(n) {
			r.fail(&api.Error{
				Code: api.CodeUnsupported, Field: n,
				Detail: "the parameter " + n + " is not in this version", Remedy: "leave it out",
			})
		}
	}
}
