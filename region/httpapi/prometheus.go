package httpapi

import (
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// targetGroup is one element of the answer that Prometheus' http_sd reads.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// metricsPort is the named port that is scraped, where an instance has it.
const metricsPort = "metrics"

// prometheus is GET /v1/sd/prometheus: every instance as a target of its own, whatever its
// status, because what is unwell is what one wants to look at; a relabel rule on
// __meta_nearside_status drops what is not wanted. A refusal keeps Prometheus at the list it
// has, so only what is known to be so is answered with [].
func (d *door) prometheus(ctx context.Context, r *request) (answer, error) {
	q := registry.InstancesQuery{Namespace: r.namespace(), Region: r.region(), Limit: api.MaxListLimit}
	if r.query.Has("service") {
		q.Service = api.ServiceName(r.query.Get("service"))
		r.check(api.CheckServiceName(string(q.Service)))
	}
	if r.err != nil {
		return answer{}, r.err
	}
	groups, stamp := []targetGroup{}, d.Registry.Stamp()
	var err error
	if q.Service != "" {
		groups, err = d.targets(ctx, groups, q)
	} else {
		groups, stamp, err = d.allTargets(ctx, groups, q)
	}
	if err != nil {
		return answer{}, err
	}
	return answer{body: groups, stamp: stamp}, nil
}

// allTargets appends the instances of every service of the namespace.
func (d *door) allTargets(ctx context.Context, to []targetGroup, q registry.InstancesQuery) ([]targetGroup, registry.Stamp, error) {
	of := registry.ServicesQuery{Namespace: q.Namespace}
	list, stamp, err := d.Registry.ListServices(ctx, of)
	if err == nil && q.Region != "" {
		// Says whether the region is known also where there is no service to ask for.
		_, stamp, err = d.Registry.RegionInfo(ctx, q.Region)
	}
	for err == nil {
		for i := 0; i < len(list.Services) && err == nil; i++ {
			q.Service = list.Services[i].Service
			to, err = d.targets(ctx, to, q)
		}
		if of.Cursor = list.Cursor; of.Cursor == "" || err != nil {
			break
		}
		list, _, err = d.Registry.ListServices(ctx, of)
	}
	return to, stamp, err
}

// targets appends the instances of one service, all pages of them.
func (d *door) targets(ctx context.Context, to []targetGroup, q registry.InstancesQuery) ([]targetGroup, error) {
	for {
		page, _, err := d.Registry.ListInstances(ctx, q)
		switch {
		case api.CodeOf(err) == api.CodeServiceNotFound:
			return to, nil // it left meanwhile, or was never there
		case err != nil:
			return nil, err
		}
		for i := range page.Instances {
			to = append(to, target(&page.Instances[i]))
		}
		if q.Cursor = page.Cursor; q.Cursor == "" {
			return to, nil
		}
	}
}

func target(in *api.Instance) targetGroup {
	const prefix = "__meta_nearside_"
	port := in.Port
	if p, ok := in.Ports[metricsPort]; ok {
		port = p
	}
	labels := map[string]string{}
	set := func(name, value string) {
		if _, taken := labels[prefix+name]; value != "" && !taken { // Prometheus takes an empty label for none
			labels[prefix+name] = value
		}
	}
	set("service", string(in.Service))
	set("namespace", string(in.Namespace))
	set("region", string(in.Region))
	set("zone", string(in.Zone))
	set("instance_id", string(in.ID))
	set("address", in.Address)
	set("port", strconv.Itoa(in.Port))
	set("status", string(in.Status))
	set("overdue", strconv.FormatBool(in.Overdue))
	set("version", in.Version)
	if len(in.Tags) > 0 {
		// With the separator at both ends, so that a rule finds a tag as ",blue,".
		set("tags", ","+strings.Join(in.Tags, ",")+",")
	}
	for _, name := range slices.Sorted(maps.Keys(in.Ports)) {
		set("port_"+labelName(name), strconv.Itoa(in.Ports[name]))
	}
	// In order, so that of two keys that are the same label the same one is told each time.
	for _, key := range slices.Sorted(maps.Keys(in.Metadata)) {
		set("metadata_"+labelName(key), in.Metadata[key])
	}
	return targetGroup{Targets: []string{net.JoinHostPort(in.Address, strconv.Itoa(port))}, Labels: labels}
}

// labelName replaces what a label's name cannot hold.
func labelName(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, s)
}
