package sdktest

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

func (c *call) register() (answer, error) {
	key := c.instanceKey()
	if c.err != nil {
		return answer{}, c.err
	}
	var reg api.Registration
	if err := c.decode(&reg); err != nil {
		return answer{}, err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	in, created, err := c.r.registerLocked(key, reg)
	a := answer{body: in}
	if created {
		a.status = http.StatusCreated
	}
	return a, err
}

func (c *call) instance() (answer, error) {
	key := c.instanceKey()
	c.read()
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	rec := c.r.records[key]
	if rec == nil {
		return answer{}, absent(key, "register it again")
	}
	return answer{body: c.r.shownLocked(rec)}, nil
}

func (c *call) deregister() (answer, error) {
	key, incarnation := c.instanceKey(), c.incarnation()
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	return answer{status: http.StatusNoContent}, c.r.deregisterLocked(key, incarnation)
}

func (c *call) heartbeat() (answer, error) {
	key, incarnation := c.instanceKey(), c.incarnation()
	if c.err != nil {
		return answer{}, c.err
	}
	var hb api.Heartbeat
	if err := c.decodeOptional(&hb); err != nil {
		return answer{}, err
	}
	if hb.Incarnation != 0 && incarnation != 0 && hb.Incarnation != incarnation {
		return answer{}, api.FieldError("incarnation", fmt.Sprintf("the body says incarnation %d and the query %d", hb.Incarnation, incarnation), "say it once")
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	ack, err := c.r.beatLocked(key, max(hb.Incarnation, incarnation), hb.Load)
	return answer{body: ack}, err
}

func (c *call) status() (answer, error) {
	key := c.instanceKey()
	if c.err != nil {
		return answer{}, c.err
	}
	var change api.StatusChange
	if err := c.decode(&change); err != nil {
		return answer{}, err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	in, err := c.r.statusLocked(key, change)
	return answer{body: in}, err
}

func (c *call) drain() (answer, error) {
	key := c.instanceKey()
	if c.err != nil {
		return answer{}, c.err
	}
	var d api.Drain
	if err := c.decodeOptional(&d); err != nil {
		return answer{}, err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	in, err := c.r.statusLocked(key, api.StatusChange{Status: api.StatusDraining, Note: d.Note, Incarnation: d.Incarnation})
	return answer{body: in}, err
}

func (c *call) undrain() (answer, error) {
	key, incarnation := c.instanceKey(), c.incarnation()
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	in, err := c.r.undrainLocked(key, incarnation)
	return answer{body: in}, err
}

func (c *call) services() (answer, error) {
	ns := c.namespace()
	c.read()
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	counts := map[api.ServiceName]*api.ServiceCount{}
	of := func(name api.ServiceName) *api.ServiceCount {
		if counts[name] == nil {
			counts[name] = &api.ServiceCount{Namespace: ns, Service: name, Statuses: map[api.Status]int{}}
		}
		return counts[name]
	}
	for key := range c.r.rows {
		if key.Namespace != ns {
			continue
		}
		one := of(key.Service)
		one.Regions = append(one.Regions, c.r.name)
		for _, in := range c.r.instancesLocked(key) {
			one.Instances++
			one.Statuses[in.Status]++
			switch {
			case in.Overdue:
				one.Overdue++
			case in.Status == api.StatusPassing:
				one.Passing++
			}
		}
	}
	for _, o := range c.r.originsLocked() {
		for key := range c.r.far[o.Region].rows {
			if key.Namespace == ns {
				one := of(key.Service)
				one.Regions = append(one.Regions, o.Region)
			}
		}
	}
	list := api.ServiceList{Services: []api.ServiceCount{}}
	for _, one := range counts {
		list.Services = append(list.Services, *one)
	}
	slices.SortFunc(list.Services, func(a, b api.ServiceCount) int { return cmp.Compare(a.Service, b.Service) })
	return answer{body: list}, nil
}

func (c *call) instances() (answer, error) {
	key, zone, tag := c.serviceKey(), c.zone(), c.param("tag")
	var statuses []string
	if s := c.param("status"); c.URL.Query().Has("status") {
		statuses = strings.Split(s, ",")
	}
	for _, s := range statuses {
		if !api.Status(s).Valid() {
			c.bad("status", "use starting, passing, warning, critical or draining; several with commas")
		}
	}
	c.read()
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	if !c.r.knownLocked(key) {
		return answer{}, noService(key)
	}
	list := api.InstanceList{Service: key.Service, Namespace: key.Namespace, Region: c.r.name, Complete: true, Instances: []api.Instance{}}
	for _, in := range c.r.instancesLocked(key) {
		if (statuses == nil || slices.Contains(statuses, string(in.Status))) && (zone == "" || in.Zone == zone) && (tag == "" || slices.Contains(in.Tags, tag)) {
			list.Instances = append(list.Instances, in)
		}
	}
	return answer{body: list}, nil
}

// knownLocked reports whether any region is known to have the service.
func (r *Region) knownLocked(key api.ServiceKey) bool {
	if r.rows[key] != nil {
		return true
	}
	for _, rep := range r.far {
		if rep.rows[key] != nil {
			return true
		}
	}
	return false
}

func noService(key api.ServiceKey) error {
	return &api.Error{
		Code: api.CodeServiceNotFound, Detail: fmt.Sprintf("no region known has service %s", api.Quote(key.String())),
		Remedy: "check its name and namespace; it appears with its first registration",
	}
}

func (c *call) resolve() (answer, error) {
	res, _, err := c.decide(nil)
	return answer{body: res}, err
}

func (c *call) explain() (answer, error) {
	var trace api.Trace
	res, caller, err := c.decide(&trace)
	if err != nil {
		return answer{}, err
	}
	from := string(caller.Region)
	if caller.Zone != "" {
		from += "/" + string(caller.Zone)
	}
	return answer{body: api.Explanation{Resolution: res, From: from, Trace: trace}}, nil
}

// decide answers where calls of the service should go.
func (c *call) decide(trace *api.Trace) (api.Resolution, route.Caller, error) {
	key, limit := c.serviceKey(), c.limit()
	caller := route.Caller{Region: c.r.name, Zone: c.zone()}
	c.from(&caller)
	c.read()
	if c.err != nil {
		return api.Resolution{}, caller, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	if err := c.r.knows(caller.Region); err != nil {
		return api.Resolution{}, caller, err
	}
	if !c.r.knownLocked(key) {
		return api.Resolution{}, caller, noService(key)
	}
	view, policy := c.r.viewLocked(key), c.r.policyLocked(key)
	d := route.Decide(view, route.PolicyOf(policy), caller, trace)
	res := api.Resolution{
		Service: key.Service, Namespace: key.Namespace, Endpoints: d.Endpoints(limit), Decision: d.Wire(), Policy: policy, Loads: loadsOf(&view), Views: []api.Origin{},
	}
	if trace != nil {
		res.Decision.ID = route.DecisionID(view, route.PolicyOf(policy), caller)
	}
	for i := range view.Regions {
		res.Views = append(res.Views, view.Regions[i].Origin)
	}
	if res.Endpoints == nil {
		res.Endpoints = []api.Endpoint{}
	}
	return res, caller, nil
}

// from reads ?from=REGION or ?from=REGION/ZONE.
func (c *call) from(caller *route.Caller) {
	s := c.param("from")
	if s == "" {
		return
	}
	region, zone, zoned := strings.Cut(s, "/")
	if !api.ValidLabel(region) || zoned && !api.ValidLabel(zone) {
		c.bad("from", "use REGION or REGION/ZONE")
		return
	}
	if zoned && caller.Zone != "" && caller.Zone != api.Zone(zone) {
		c.check(api.FieldError("zone", fmt.Sprintf("from and zone name two zones, %s and %s", zone, caller.Zone), "say it once"))
	}
	caller.Region = api.Region(region)
	if zoned {
		caller.Zone = api.Zone(zone)
	}
}

// selfLocked is the region as an origin.
func (r *Region) selfLocked() api.Origin {
	return api.Origin{
		Region: r.name, Epoch: r.epoch, Revision: r.revision, State: api.AgeFresh, Complete: true, Source: api.SourceMemory,
		Addresses: []string{r.URL()}, Drained: r.drainedLocked(r.name),
	}
}

// viewLocked gathers what the region knows of a service: of itself first, then of every other one.
func (r *Region) viewLocked(key api.ServiceKey) route.View {
	own := route.RegionView{Origin: r.selfLocked(), Load: float64(r.classes[key])}
	for _, in := range r.instancesLocked(key) {
		own.Endpoints = append(own.Endpoints, in.Endpoint())
		own.Total++
		if in.Status.Usable() {
			own.Passing++
		}
	}
	v := route.View{Key: key, Regions: []route.RegionView{own}}
	for _, o := range r.originsLocked() {
		rv := route.RegionView{Origin: o}
		if s := r.far[o.Region].rows[key]; s != nil {
			rv.Endpoints, rv.Total, rv.Passing, rv.Draining = s.Endpoints, s.Total, s.Passing, s.Draining
			rv.Load = float64(s.Load)
		}
		v.Regions = append(v.Regions, rv)
	}
	return v
}

func (c *call) regions() (answer, error) {
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	list := api.RegionList{Home: c.r.name, Regions: []api.RegionInfo{c.r.infoLocked(c.r.selfLocked())}}
	for _, o := range c.r.originsLocked() {
		list.Regions = append(list.Regions, c.r.infoLocked(o))
	}
	return answer{body: list}, nil
}

func (c *call) region() (answer, error) {
	name := c.pathRegion()
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	if name == c.r.name {
		return answer{body: c.r.infoLocked(c.r.selfLocked())}, nil
	}
	for _, o := range c.r.originsLocked() {
		if o.Region == name {
			return answer{body: c.r.infoLocked(o), origin: &o}, nil
		}
	}
	return answer{}, noRegion(name)
}

func (r *Region) infoLocked(o api.Origin) api.RegionInfo {
	info := api.RegionInfo{Origin: o, Self: o.Region == r.name}
	rows := r.rows
	if !info.Self {
		rep := r.far[o.Region]
		rows, info.Link = rep.rows, "connected"
		if !rep.since.IsZero() {
			info.Link = "unreachable"
		}
	}
	for key, s := range rows {
		info.Services++
		info.Instances += s.Total
		info.Passing += s.Passing
		if !info.Self {
			continue
		}
		for _, in := range r.instancesLocked(key) {
			if in.Overdue {
				info.Overdue++
				if in.Status.Usable() {
					info.Passing--
				}
			}
		}
	}
	return info
}

func (c *call) regionDrain() (answer, error) {
	name := c.pathRegion()
	c.read()
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	return answer{body: c.r.drainShownLocked(name)}, c.r.knows(name)
}

func (c *call) putRegionDrain() (answer, error) {
	name := c.pathRegion()
	if c.err != nil {
		return answer{}, c.err
	}
	var body struct {
		api.DrainRequest
		Percent *float64 `json:"percent"` // one that is left out is no 0: that would undo
	}
	if err := c.decode(&body); err != nil {
		return answer{}, err
	}
	if body.Percent == nil {
		return answer{}, api.FieldError("percent", "percent is missing", "use 0 to 100: how much less of its traffic the region is to get; DELETE undoes a drain")
	}
	body.DrainRequest.Percent = *body.Percent
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	d, err := c.r.drainLocked(name, body.DrainRequest)
	return answer{body: d}, err
}

func (c *call) undoRegionDrain() (answer, error) {
	name := c.pathRegion()
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	d, err := c.r.undrainRegionLocked(name)
	return answer{body: d}, err
}

func (c *call) policies() (answer, error) {
	ns, effective := c.namespace(), c.flag("effective")
	c.read()
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	list := api.PolicyList{Region: c.r.name, Namespace: ns, Policies: c.r.policiesLocked(ns)}
	for i := range list.Policies {
		if p := &list.Policies[i]; effective {
			p.Policy = *c.r.policyLocked(api.ServiceKey{Namespace: ns, Service: p.Service})
		}
	}
	return answer{body: list}, nil
}

func (c *call) policy() (answer, error) {
	key, effective := c.policyKey(), c.flag("effective")
	c.read()
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	rec := c.r.policies[key]
	switch {
	case effective:
		out := api.PolicyRecord{Namespace: key.Namespace, Service: key.Service}
		if rec != nil {
			out = *rec
		}
		if p := c.r.policyLocked(key); p != nil {
			out.Policy = *p
		}
		return answer{body: out}, nil
	case rec == nil:
		return answer{}, noPolicy(key)
	}
	return answer{body: *rec}, nil
}

func (c *call) putPolicy() (answer, error) {
	key, want := c.policyKey(), c.number("if_revision")
	if c.err != nil {
		return answer{}, c.err
	}
	var w api.PolicyWrite
	if err := c.decode(&w); err != nil {
		return answer{}, err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	out, created, err := c.r.putPolicyLocked(key, w, want)
	a := answer{body: out}
	if created {
		a.status = http.StatusCreated
	}
	return a, err
}

func (c *call) deletePolicy() (answer, error) {
	key, want := c.policyKey(), c.number("if_revision")
	if c.err != nil {
		return answer{}, c.err
	}
	c.r.w.mu.Lock()
	defer c.r.w.mu.Unlock()
	return answer{status: http.StatusNoContent}, c.r.deletePolicyLocked(key, want)
}

func (c *call) live() (answer, error) {
	return answer{body: api.Readiness{Ready: true, Region: c.r.name, Node: "sdktest", Checks: []api.ReadinessCheck{}}}, nil
}
