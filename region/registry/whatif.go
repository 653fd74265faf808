package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/liveness"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

const (
	// whatIfBudget is how long one what-if may think. What it did not come to it says.
	whatIfBudget = 2 * time.Second
	// whatIfWait is how long one waits for another to end: a node thinks about one at a time, so that
	// such questions never take more than one processor from the calls.
	whatIfWait = 3 * time.Second
	// whatIfStride is how many services are looked at between looks at the clock.
	whatIfStride = 32
)

// WhatIfQuery asks what losses would do.
type WhatIfQuery struct {
	Namespace api.Namespace     // empty = all; with Services the default one
	Services  []api.ServiceName // empty = every service known
	Losses    []api.Loss        // at least one
	// FromRegion and FromZone say whose calls are looked at. Empty = those of this region; when that is
	// itself lost, of every other one.
	FromRegion api.Region
	FromZone   api.Zone
	Limit      int    // entries of Services in the answer; 0 = api.DefaultListLimit
	Cursor     string // of an answer that did not come to all services
}

// WhatIf answers what would become of the callers of services if something were lost, by the
// function that routes them, from what this node knows. It changes nothing, and nobody is told.
//
// It thinks for whatIfBudget at most, and about one question at a time; services that it did not come to
// are behind the answer's cursor.
func (r *Registry) WhatIf(ctx context.Context, q WhatIfQuery) (api.WhatIf, Stamp, error) {
	if len(q.Services) > 0 {
		q.Namespace = orDefault(q.Namespace)
	}
	if err := r.authorize(ctx, VerbRead, q.Namespace, q.Services...); err != nil {
		return api.WhatIf{}, Stamp{}, err
	}
	if err := q.check(); err != nil {
		return api.WhatIf{}, Stamp{}, err
	}
	snap, source, err := r.fresh(ctx, ReadOptions{})
	if err != nil {
		return api.WhatIf{}, Stamp{}, err
	}
	w := &wondering{
		r: r, q: q, mask: route.Mask{Losses: q.Losses}, snap: snap, overlay: r.overlay.Load(), origins: r.origins(),
		sums: map[api.Region]*api.WhatIfRegion{}, found: map[api.Effect][]api.WhatIfService{},
	}
	if err := w.settle(); err != nil {
		return api.WhatIf{}, Stamp{}, err
	}
	keys, err := w.keys()
	if err != nil {
		return api.WhatIf{}, Stamp{}, OrNotInCopy(r.stamp(snap, source), err)
	}
	done, err := r.wonder(ctx)
	if err != nil {
		return api.WhatIf{}, Stamp{}, err
	}
	defer done()
	w.loads = r.Loads()
	budget := whatIfBudget
	if r.whatIfBudget != nil {
		budget = *r.whatIfBudget
	}
	if err := w.look(ctx, keys, time.Now().Add(budget)); err != nil {
		return api.WhatIf{}, Stamp{}, err
	}
	return w.answer(), r.stamp(snap, source), nil
}

// wonder takes the one place that there is for a what-if; done gives it back.
func (r *Registry) wonder(ctx context.Context) (done func(), err error) {
	select {
	case r.wondering <- struct{}{}:
		return func() { <-r.wondering }, nil
	default:
	}
	wait := time.NewTimer(whatIfWait)
	defer wait.Stop()
	select {
	case r.wondering <- struct{}{}:
		return func() { <-r.wondering }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-wait.C:
		return nil, &api.Error{
			Code: api.CodeTooManyRequests, Detail: "this node thinks about other what-ifs already, one at a time",
			Remedy: "try again, ask another node, or name the services that you care about",
		}
	}
}

// check looks at what can be known to be wrong without the catalogue.
func (q *WhatIfQuery) check() error {
	if q.Namespace != "" {
		if err := api.CheckNamespace(string(q.Namespace)); err != nil {
			return err
		}
	}
	for _, s := range q.Services {
		if err := api.CheckServiceName(string(s)); err != nil {
			return err
		}
	}
	if err := api.CheckZone(string(q.FromZone)); err != nil {
		return err
	}
	switch n := len(q.Losses); {
	case n == 0:
		return api.FieldError("lose", "nothing is named that is to be lost", "give lose=REGION, lose_zone=REGION/ZONE or lose_link=REGION~REGION")
	case n > api.MaxWhatIfLosses:
		return api.FieldError("lose", fmt.Sprintf("%d losses are too many", n), fmt.Sprintf("name at most %d regions, zones and links together", api.MaxWhatIfLosses))
	case len(q.Services) > api.MaxWhatIfServices:
		return api.FieldError("service", fmt.Sprintf("%d services are too many to name", len(q.Services)), fmt.Sprintf("name at most %d, or none for all", api.MaxWhatIfServices))
	case q.Cursor != "" && !strings.Contains(q.Cursor, "/"):
		return api.FieldError("cursor", "the cursor is not one of ours", "use the cursor of the answer before, or none")
	}
	return nil
}

// wondering is one what-if on its way.
type wondering struct {
	r       *Registry
	q       WhatIfQuery
	mask    route.Mask
	snap    *catalog.Snapshot
	overlay *liveness.Overlay
	origins []api.Origin
	loads   map[api.ServiceKey]float64
	callers []calling

	counts api.EffectCounts
	sums   map[api.Region]*api.WhatIfRegion
	// found holds the first entries of each effect, at most the limit, and omitted how many more there were.
	found   map[api.Effect][]api.WhatIfService
	omitted int
	cursor  string
	loaded  bool // a load was known
}

// calling is a place whose calls are looked at.
type calling struct {
	route.Caller
	name string
	rtt  map[api.Region]int64
}

// settle checks the losses against what is known, and finds out whose calls to look at.
func (w *wondering) settle() error {
	for _, l := range w.q.Losses {
		for _, region := range append(slices.Clone(l.Link), l.Region) {
			if region != "" && !w.knows(region) {
				return w.unknown(region)
			}
		}
		if l.Zone != "" {
			if err := w.checkZone(l); err != nil {
				return err
			}
		}
	}
	own, from := w.r.cfg.Region, w.q.FromRegion
	switch {
	case from != "" && !w.knows(from):
		return w.unknown(from)
	case from != "" && w.lost(from, w.q.FromZone):
		return api.FieldError("from", fmt.Sprintf("the callers in %s are lost with it", place(from, w.q.FromZone)), "ask for callers of another place, or leave from out")
	case from != "" || !w.lost(own, ""):
		w.add(cmp.Or(from, own), w.q.FromZone)
	default:
		for _, o := range w.origins {
			if !w.lost(o.Region, "") {
				w.add(o.Region, "")
			}
		}
	}
	if len(w.callers) == 0 {
		return api.FieldError("lose", "nobody would be left to call anything: all regions known are lost", "name fewer regions")
	}
	return w.checkLinks()
}

// lost reports whether callers in a place are lost with it.
func (w *wondering) lost(region api.Region, zone api.Zone) bool {
	return slices.Contains(w.regions(), region) || w.mask.Zone(region, zone)
}

// regions are those that are lost as a whole.
func (w *wondering) regions() (out []api.Region) {
	for _, l := range w.q.Losses {
		if l.Region != "" && l.Zone == "" {
			out = append(out, l.Region)
		}
	}
	return out
}

// checkLinks refuses a link that no caller asked about uses: the answer would be that all is well.
func (w *wondering) checkLinks() error {
	for _, l := range w.q.Losses {
		if len(l.Link) != 2 || slices.ContainsFunc(w.callers, func(c calling) bool { return slices.Contains(l.Link, c.Region) }) {
			continue
		}
		return api.FieldError("lose_link", fmt.Sprintf("callers in %s do not use the link %s", w.callers[0].name, l), fmt.Sprintf("ask with from=%s or from=%s", l.Link[0], l.Link[1]))
	}
	return nil
}

func (w *wondering) knows(region api.Region) bool {
	return region == w.r.cfg.Region || findOrigin(w.origins, region) != nil
}

// unknown says which regions there are: one of them was meant.
func (w *wondering) unknown(region api.Region) error {
	const most = 20
	names := []string{string(w.r.cfg.Region)}
	for _, o := range w.origins {
		names = append(names, string(o.Region))
	}
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return &api.Error{
		Code: api.CodeRegionNotFound, Detail: fmt.Sprintf("region %s is not known here", api.Quote(string(region))),
		Remedy: "known are " + strings.Join(names, ", "),
	}
}

// checkZone refuses a zone in which nothing is known to run: a typing error would say that all is well.
func (w *wondering) checkZone(l api.Loss) error {
	zones := map[api.Zone]bool{}
	if l.Region == w.r.cfg.Region {
		for _, key := range w.snap.Services() {
			list, _ := w.snap.Service(key)
			for _, in := range list {
				zones[in.Zone] = true
			}
			if zones[l.Zone] {
				return nil
			}
		}
	} else {
		for _, s := range w.r.cfg.Replicas.Services(l.Region) {
			for zone := range s.Zones {
				zones[zone] = true
			}
			for i := range s.Endpoints {
				zones[s.Endpoints[i].Zone] = true
			}
			if zones[l.Zone] {
				return nil
			}
		}
	}
	delete(zones, "")
	var names []string
	for z := range zones {
		names = append(names, string(z))
	}
	slices.Sort(names)
	remedy := fmt.Sprintf("none in %s tells its zone", l.Region)
	if len(names) > 0 {
		remedy = "there are " + strings.Join(names[:min(len(names), 20)], ", ")
	}
	return api.FieldError("lose_zone", fmt.Sprintf("no instance in region %s is known to be in zone %s", l.Region, l.Zone), remedy)
}

func place(region api.Region, zone api.Zone) string {
	if zone == "" {
		return string(region)
	}
	return string(region) + "/" + string(zone)
}

// add adds a place whose calls are looked at. Of other regions only the round-trip time to
// this one is known here.
func (w *wondering) add(region api.Region, zone api.Zone) {
	c := calling{Caller: route.Caller{Region: region, Zone: zone}, name: place(region, zone), rtt: map[api.Region]int64{}}
	for _, o := range w.origins {
		switch region {
		case w.r.cfg.Region:
			c.rtt[o.Region] = o.RTTMS
		case o.Region:
			c.rtt[w.r.cfg.Region] = o.RTTMS
		}
	}
	w.callers = append(w.callers, c)
}

// keys returns the services to look at, sorted.
func (w *wondering) keys() ([]api.ServiceKey, error) {
	if len(w.q.Services) > 0 {
		out := make([]api.ServiceKey, 0, len(w.q.Services))
		for _, s := range w.q.Services {
			out = append(out, api.ServiceKey{Namespace: w.q.Namespace, Service: s})
		}
		slices.SortFunc(out, catalog.CompareKeys)
		out = slices.Compact(out)
		for _, key := range out {
			if list, _ := w.snap.Service(key); len(list) == 0 && len(w.r.lookup(key)) == 0 {
				return nil, serviceNotFound(key)
			}
		}
		return w.after(out), nil
	}
	all := map[api.ServiceKey]struct{}{}
	note := func(key api.ServiceKey) {
		if w.q.Namespace == "" || key.Namespace == w.q.Namespace {
			all[key] = struct{}{}
		}
	}
	for _, key := range w.snap.Services() {
		note(key)
	}
	for _, o := range w.origins {
		for _, s := range w.r.cfg.Replicas.Services(o.Region) {
			note(s.Key())
		}
	}
	return w.after(sortedKeys(all)), nil
}

// after leaves out what an earlier answer has.
func (w *wondering) after(keys []api.ServiceKey) []api.ServiceKey {
	if w.q.Cursor == "" {
		return keys
	}
	ns, service, _ := strings.Cut(w.q.Cursor, "/")
	last := api.ServiceKey{Namespace: api.Namespace(ns), Service: api.ServiceName(service)}
	i, found := slices.BinarySearchFunc(keys, last, catalog.CompareKeys)
	if found {
		i++
	}
	return keys[i:]
}

// look goes through the services until the end, or until the time is up. Some it always looks at, so that whoever
// goes on by the cursor arrives.
func (w *wondering) look(ctx context.Context, keys []api.ServiceKey, until time.Time) error {
	for i, key := range keys {
		if i > 0 && i%whatIfStride == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !time.Now().Before(until) {
				last := keys[i-1]
				w.cursor = string(last.Namespace) + "/" + string(last.Service)
				return nil
			}
		}
		w.service(key)
	}
	return nil
}

// service looks at one service for all callers.
func (w *wondering) service(key api.ServiceKey) {
	view, known := w.r.viewWith(key, w.snap, w.snap.PeekEndpoints(key), w.overlay, w.origins)
	if !known {
		return // gone since it was listed
	}
	q := route.Question{View: view, Policy: route.PolicyOf(w.r.policy(key)), Mask: w.mask, Facts: w.facts(key, &view)}
	worst := api.EffectNone
	more := map[api.Region]bool{}
	for _, c := range w.callers {
		q.Caller, q.RTT = c.Caller, c.rtt
		im := route.WhatIf(q)
		im.Row.From = c.name
		if im.Row.Effect.Rank() < worst.Rank() {
			worst = im.Row.Effect
		}
		w.keep(im.Row)
		for i := range im.Row.Regions {
			s := &im.Row.Regions[i]
			sum := w.sum(s.Region)
			if s.After > s.Before {
				sum.More += (s.After - s.Before) * im.Demand
				if !more[s.Region] {
					more[s.Region] = true
					sum.Services++
				}
			}
			if s.Over && im.Row.Effect == api.EffectOver {
				sum.Over++
			}
		}
	}
	w.counts.Add(worst, 1)
}

// facts is what is known of the regions of a view beyond what routes.
func (w *wondering) facts(key api.ServiceKey, v *route.View) []route.Facts {
	out := make([]route.Facts, len(v.Regions))
	out[0].Load = w.loads[key]
	for _, rep := range w.r.lookup(key) {
		if rep.Summary == nil {
			continue
		}
		for i := range v.Regions {
			if v.Regions[i].Origin.Region == rep.Origin.Region && i > 0 {
				out[i] = route.Facts{Load: float64(rep.Summary.Load), Zones: rep.Summary.Zones}
			}
		}
	}
	for i := range out {
		w.loaded = w.loaded || out[i].Load > 0
	}
	return out
}

func (w *wondering) sum(region api.Region) *api.WhatIfRegion {
	s := w.sums[region]
	if s == nil {
		s = &api.WhatIfRegion{Region: region, Lost: slices.Contains(w.regions(), region)}
		w.sums[region] = s
	}
	return s
}

// keep keeps an entry for the answer; of services that were not named only those that are hit.
func (w *wondering) keep(row api.WhatIfService) {
	if len(w.q.Services) == 0 && (row.Effect == api.EffectNone || row.Effect == api.EffectWasDown) {
		return
	}
	if len(w.found[row.Effect]) >= w.limit() {
		w.omitted++
		return
	}
	w.found[row.Effect] = append(w.found[row.Effect], row)
}

func (w *wondering) limit() int {
	return min(cmp.Or(max(w.q.Limit, 0), api.DefaultListLimit), api.MaxListLimit)
}

func (w *wondering) answer() api.WhatIf {
	out := api.WhatIf{
		Region: w.r.cfg.Region, Namespace: w.q.Namespace, Lost: w.q.Losses, Effect: w.counts.Worst(), Counts: w.counts,
		Services: []api.WhatIfService{}, Omitted: w.omitted, Cursor: w.cursor, Views: append([]api.Origin{w.r.self(w.snap)}, w.origins...),
	}
	for _, c := range w.callers {
		out.Callers = append(out.Callers, c.name)
	}
	for _, e := range api.Effects {
		room := w.limit() - len(out.Services)
		out.Services = append(out.Services, w.found[e][:min(room, len(w.found[e]))]...)
		out.Omitted += max(0, len(w.found[e])-room)
	}
	for _, o := range out.Views {
		sum := w.sum(o.Region)
		sum.More = float64(int64(sum.More*100+0.5)) / 100
		out.Regions = append(out.Regions, *sum)
	}
	slices.SortFunc(out.Regions, func(a, b api.WhatIfRegion) int { return cmp.Compare(a.Region, b.Region) })
	out.Detail = out.Summary()
	out.Notes = w.notes()
	return out
}

// notes says what the answer cannot know.
func (w *wondering) notes() (out []string) {
	own := w.r.cfg.Region
	if slices.ContainsFunc(w.callers, func(c calling) bool { return c.Region != own }) {
		out = append(out, fmt.Sprintf("of the callers in other regions %s knows neither their policies and drains, for which it takes its own, nor how far other regions are from them", own))
	} else if len(w.origins) > 0 {
		out = append(out, fmt.Sprintf("it is about callers in %s; those of another region go by that region's own policies and distances: ask a node there", own))
	}
	if !w.loaded {
		out = append(out, "no load is known: what a region carries is judged by the numbers of its instances, or by their capacities")
	}
	if slices.ContainsFunc(w.q.Losses, func(l api.Loss) bool { return l.Zone != "" }) {
		out = append(out, "the instances of a lost zone count as lost capacity, as right after an outage; once they are deregistered the region counts as whole again")
	}
	var old []string
	for _, o := range w.origins {
		if o.State != api.AgeFresh {
			old = append(old, fmt.Sprintf("%s (%s)", o.Region, o.State))
		}
	}
	if len(old) > 0 {
		out = append(out, "not fresh is what is known of "+strings.Join(old, ", "))
	}
	return out
}
