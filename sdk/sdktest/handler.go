package sdktest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// answer is what a request is answered with, unless it is refused.
type answer struct {
	status int // 0 = 200
	body   any // nil = none
	// origin is set when the answer is about what is known of another region.
	origin *api.Origin
}

// call is one request. What it reads of the region it reads under the world's lock.
type call struct {
	*http.Request
	r     *Region
	query []string // the parameters that the path knows
	err   error    // the first thing that is wrong
}

// entry is one line of the table of contents.
type entry struct {
	pattern string // of http.ServeMux
	query   []string
	serve   func(*call) (answer, error)
}

func (r *Region) routes() []entry {
	const instance = "/v1/services/{service}/instances/{id}"
	read := func(more ...string) []string { return append(more, "ns", "consistency", "min_revision") }
	return []entry{
		{"PUT " + instance, []string{"ns"}, (*call).register},
		{"GET " + instance, read(), (*call).instance},
		{"DELETE " + instance, []string{"incarnation", "ns"}, (*call).deregister},
		{"PUT " + instance + "/heartbeat", []string{"incarnation", "ns"}, (*call).heartbeat},
		{"PUT " + instance + "/status", []string{"ns"}, (*call).status},
		{"PUT " + instance + "/drain", []string{"ns"}, (*call).drain},
		{"DELETE " + instance + "/drain", []string{"incarnation", "ns"}, (*call).undrain},
		{"GET " + api.PathServices, read(), (*call).services},
		{"GET /v1/services/{service}/instances", read("status", "zone", "tag"), (*call).instances},
		{"GET /v1/resolve/{service}", read("zone", "limit"), (*call).resolve},
		{"GET /v1/explain/{service}", read("zone", "limit", "from"), (*call).explain},
		{"GET " + api.PathRegions, nil, (*call).regions},
		{"GET /v1/regions/{region}", nil, (*call).region},
		{"GET /v1/regions/{region}/drain", []string{"consistency", "min_revision"}, (*call).regionDrain},
		{"PUT /v1/regions/{region}/drain", nil, (*call).putRegionDrain},
		{"DELETE /v1/regions/{region}/drain", nil, (*call).undoRegionDrain},
		{"GET " + api.PathPolicies, read("effective"), (*call).policies},
		{"GET /v1/policies/{service}", read("effective"), (*call).policy},
		{"PUT /v1/policies/{service}", []string{"if_revision", "ns"}, (*call).putPolicy},
		{"DELETE /v1/policies/{service}", []string{"if_revision", "ns"}, (*call).deletePolicy},
		{"GET " + api.PathLivez, nil, (*call).live},
		{"GET " + api.PathReadyz, nil, (*call).live},
	}
}

func (r *Region) handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range r.routes() {
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, req *http.Request) {
			c := &call{Request: req, r: r, query: rt.query}
			if err := c.checkQuery(""); err != nil {
				r.refuse(w, err)
				return
			}
			a, err := rt.serve(c)
			if err != nil {
				r.refuse(w, err)
				return
			}
			r.write(w, a)
		})
	}
	mux.HandleFunc("GET "+api.PathWatch, r.watch)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.begin(w)
		if err := r.fault(req); err != nil {
			r.refuse(w, err)
			return
		}
		if _, pattern := mux.Handler(req); pattern == "" {
			r.refuse(w, lost(mux, req))
			return
		}
		mux.ServeHTTP(w, req)
	})
}

// lost says why no path fits.
func lost(mux *http.ServeMux, req *http.Request) error {
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		other := req.Clone(req.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != "" {
			return &api.Error{Code: api.CodeMethodNotAllowed, Detail: api.Quote(req.Method) + " does not work on this path", Remedy: "use " + method}
		}
	}
	return &api.Error{
		Code: api.CodeNotFound, Detail: "there is no path " + api.Quote(req.URL.Path) + " in sdktest",
		Remedy: "its package documentation lists what there is; for the rest start a real node: nearside dev",
	}
}

// begin sets what every answer has.
func (r *Region) begin(w http.ResponseWriter) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.requests++
	h := w.Header()
	h.Set(api.HeaderRequestID, fmt.Sprintf("%s-%d", r.name, r.requests))
	h.Set(api.HeaderNode, "sdktest")
}

// stamp says where an answer comes from; nil = from the region itself.
func (r *Region) stamp(w http.ResponseWriter, o *api.Origin) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if o == nil {
		self := r.selfLocked()
		o = &self
	}
	h := w.Header()
	h.Set(api.HeaderRegion, string(o.Region))
	h.Set(api.HeaderEpoch, o.Epoch.String())
	h.Set(api.HeaderRevision, strconv.FormatUint(o.Revision, 10))
	h.Set(api.HeaderAgeMS, strconv.FormatInt(o.AgeMS, 10))
	h.Set(api.HeaderSource, o.Source)
}

func (r *Region) write(w http.ResponseWriter, a answer) {
	r.stamp(w, a.origin)
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(a.body) // a client that left takes nothing
}

func (r *Region) refuse(w http.ResponseWriter, err error) {
	var e *api.Error
	if !errors.As(err, &e) {
		e = api.Errorf(api.CodeInternal, "%v", err)
	}
	r.w.mu.Lock()
	after := r.faults.retryAfter
	r.w.mu.Unlock()
	if after > 0 && e.Code.Retryable() {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	}
	w.Header().Set("Content-Type", api.ProblemType)
	w.WriteHeader(e.Code.HTTPStatus())
	_ = json.NewEncoder(w).Encode(e.Problem(w.Header().Get(api.HeaderRequestID)))
}

// fault does to a request what the test asked for.
func (r *Region) fault(req *http.Request) error {
	r.w.mu.Lock()
	f := r.faults
	r.w.mu.Unlock()
	if f.delay > 0 {
		timer := time.NewTimer(f.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-req.Context().Done():
			return &api.Error{Code: api.CodeTimeout, Detail: "the client left during the delay"}
		}
	}
	switch write := req.Method != http.MethodGet && req.Method != http.MethodHead; {
	case write && f.writes != "":
		return &api.Error{Code: f.writes, Detail: "the test lets writes fail", Remedy: "end it with FailWrites(\"\", 0)"}
	case !write && f.watches != "" && req.URL.Path == api.PathWatch:
		return &api.Error{Code: f.watches, Detail: "the test lets watches fail", Remedy: "end it with FailWatches(\"\")"}
	}
	return nil
}

// later are parameters of real registries that this package has not.
var later = []string{"filter", "limit", "cursor", "region", "policy", "at", "over", "ns"}

// checkQuery refuses parameters that are not known, and those that are given twice but repeat.
func (c *call) checkQuery(repeat string) error {
	q := c.URL.Query()
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch {
		case slices.Contains(c.query, name):
			if n := len(q[name]); n > 1 && name != repeat {
				return &api.Error{Code: api.CodeInvalidRequest, Field: name, Detail: fmt.Sprintf("the parameter %s is given %d times", name, n), Remedy: "give it once"}
			}
		case slices.Contains(later, name):
			return &api.Error{Code: api.CodeUnsupported, Field: name, Detail: "the parameter " + name + " is not in sdktest", Remedy: "leave it out"}
		default:
			return &api.Error{Code: api.CodeUnknownParameter, Field: name, Detail: "there is no parameter " + api.Quote(name) + " here", Remedy: "use " + strings.Join(c.query, ", ")}
		}
	}
	return nil
}

// decode reads the body.
func (c *call) decode(v any) error {
	if ct := c.Header.Get("Content-Type"); ct != "" {
		media, _, err := mime.ParseMediaType(ct)
		if err != nil || media != "application/json" && !(strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")) {
			return &api.Error{Code: api.CodeUnsupportedMedia, Detail: "the content type " + api.Quote(ct) + " is not read here", Remedy: "send JSON and say so: Content-Type: application/json"}
		}
	}
	return api.DecodeStrict(c.Body, v)
}

// decodeOptional is decode for requests that may come without a body.
func (c *call) decodeOptional(v any) error {
	if c.Body == nil || c.Body == http.NoBody || c.ContentLength == 0 {
		return nil
	}
	return c.decode(v)
}

func (c *call) check(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *call) param(name string) string { return c.URL.Query().Get(name) }

// bad notes that a parameter has a value that is not allowed.
func (c *call) bad(name, remedy string) {
	c.check(api.FieldError(name, fmt.Sprintf("%s %s is not valid", name, api.Quote(c.param(name))), remedy))
}

func (c *call) namespace() api.Namespace {
	if ns := c.param("ns"); ns != "" {
		c.check(api.CheckNamespace(ns))
		return api.Namespace(ns)
	}
	return api.DefaultNamespace
}

func (c *call) serviceKey() api.ServiceKey {
	k := api.ServiceKey{Namespace: c.namespace(), Service: api.ServiceName(c.PathValue("service"))}
	c.check(api.CheckServiceName(string(k.Service)))
	return k
}

func (c *call) policyKey() api.ServiceKey {
	k := api.ServiceKey{Namespace: c.namespace(), Service: api.ServiceName(c.PathValue("service"))}
	c.check(api.CheckPolicyService(string(k.Service)))
	return k
}

func (c *call) instanceKey() api.InstanceKey {
	s := c.serviceKey()
	k := api.InstanceKey{Namespace: s.Namespace, Service: s.Service, ID: api.InstanceID(c.PathValue("id"))}
	c.check(api.CheckInstanceID(string(k.ID)))
	return k
}

func (c *call) pathRegion() api.Region {
	name := c.PathValue("region")
	c.check(api.CheckRegion(name))
	return api.Region(name)
}

func (c *call) zone() api.Zone {
	c.check(api.CheckZone(c.param("zone")))
	return api.Zone(c.param("zone"))
}

// number returns a parameter that counts from 0; nil when it is not given.
func (c *call) number(name string) *uint64 {
	if !c.URL.Query().Has(name) {
		return nil
	}
	n, err := strconv.ParseUint(c.param(name), 10, 64)
	if err != nil {
		c.bad(name, "use a whole number of 0 or more, or leave it out")
	}
	return &n
}

// incarnation returns ?incarnation=; 0 when it is not given.
func (c *call) incarnation() uint64 {
	if n := c.number("incarnation"); n != nil {
		return *n
	}
	return 0
}

func (c *call) limit() int {
	if !c.URL.Query().Has("limit") {
		return api.MaxListLimit
	}
	n, err := strconv.Atoi(c.param("limit"))
	if err != nil || n < 1 || n > api.MaxListLimit {
		c.bad("limit", fmt.Sprintf("use 1 to %d", api.MaxListLimit))
	}
	return n
}

func (c *call) flag(name string) bool {
	switch v := c.param(name); {
	case v == "true":
		return true
	case v == "false", !c.URL.Query().Has(name):
	default:
		c.bad(name, "use true or false")
	}
	return false
}

// read checks ?consistency= and ?min_revision=: memory is all there is, so both are kept at once.
func (c *call) read() {
	switch v := c.param("consistency"); {
	case v == "eventual", v == "strong", !c.URL.Query().Has("consistency"):
	default:
		c.bad("consistency", "use eventual or strong")
	}
	least := c.number("min_revision")
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	if least != nil && *least > c.r.revision {
		c.check(&api.Error{
			Code:   api.CodeRevisionNotReached,
			Detail: fmt.Sprintf("revision %d is ahead of this region, which is at %d", *least, c.r.revision), Remedy: "write first",
		})
	}
}
