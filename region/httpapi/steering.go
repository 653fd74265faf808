package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/steering"
	"github.com/nearside/nearside/sdk/api"
)

// Steering is the part of *steering.Table that this door calls, under the rules of [Registry].
type Steering interface {
	GetPolicy(ctx context.Context, q steering.PolicyQuery) (api.PolicyRecord, registry.Stamp, error)
	ListPolicies(ctx context.Context, q steering.PoliciesQuery) (api.PolicyList, registry.Stamp, error)
	PutPolicy(ctx context.Context, q steering.PolicyPut) (out api.PolicyWritten, created bool, err error)
	DeletePolicy(ctx context.Context, q steering.PolicyDelete) (revision uint64, err error)
	TestPolicy(ctx context.Context, q steering.PolicyTrial) (api.PolicyTest, registry.Stamp, error)
	GetDrain(ctx context.Context, region api.Region, o registry.ReadOptions) (api.RegionDrain, registry.Stamp, error)
	PutDrain(ctx context.Context, region api.Region, r api.DrainRequest) (api.RegionDrain, registry.Stamp, error)
	UndoDrain(ctx context.Context, region api.Region, over time.Duration) (api.RegionDrain, registry.Stamp, error)
}

// steeringRoutes are the routes of policies and of the drains of regions.
func (d *door) steeringRoutes(read func(more ...string) []string) []route {
	const (
		policy = api.PathPolicies + "/:service"
		drain  = api.PathRegions + "/:region/drain"
	)
	return []route{
		{method: "GET", path: api.PathPolicies, query: read("effective", "limit", "cursor"), call: d.listPolicies},
		{method: "GET", path: policy, query: read("effective"), call: d.getPolicy},
		{method: "PUT", path: policy, query: []string{"if_revision", "ns"}, body: true, call: d.putPolicy},
		{method: "DELETE", path: policy, query: []string{"if_revision", "ns"}, call: d.deletePolicy},
		{method: "POST", path: policy + "/test", query: []string{"zone", "ns"}, body: true, call: d.testPolicy},
		{method: "GET", path: drain, query: []string{"consistency", "min_revision"}, call: d.getRegionDrain},
		{method: "PUT", path: drain, body: true, call: d.putRegionDrain},
		{method: "DELETE", path: drain, query: []string{"over"}, call: d.undoRegionDrain},
	}
}

var errNoSteering = &api.Error{Code: api.CodeNotFound, Detail: "this node keeps no policies and drains", Remedy: "ask a node of a region"}

// policyService returns the path's service, which may be "*".
func (r *request) policyService() api.ServiceName {
	s := r.path("service")
	r.check(api.CheckPolicyService(s))
	return api.ServiceName(s)
}

// ifRevision returns ?if_revision=, nil when it is not given.
func (r *request) ifRevision() *uint64 {
	if !r.query.Has("if_revision") {
		return nil
	}
	n := r.number("if_revision")
	return &n
}

func (d *door) listPolicies(ctx context.Context, r *request) (answer, error) {
	q := steering.PoliciesQuery{Namespace: r.namespace(), Effective: r.flag("effective"), Limit: r.limit(), Cursor: r.cursor(), ReadOptions: r.read()}
	switch {
	case r.err != nil:
		return answer{}, r.err
	case d.Steering == nil:
		return answer{}, errNoSteering
	}
	l, st, err := d.Steering.ListPolicies(ctx, q)
	if err != nil {
		return answer{}, err
	}
	l.Policies = some(l.Policies)
	return answer{body: &l, stamp: st}, nil
}

func (d *door) getPolicy(ctx context.Context, r *request) (answer, error) {
	q := steering.PolicyQuery{Namespace: r.namespace(), Service: r.policyService(), Effective: r.flag("effective"), ReadOptions: r.read()}
	switch {
	case r.err != nil:
		return answer{}, r.err
	case d.Steering == nil:
		return answer{}, errNoSteering
	}
	p, st, err := d.Steering.GetPolicy(ctx, q)
	if err != nil {
		return answer{}, err
	}
	return answer{body: &p, stamp: st}, nil
}

func (d *door) putPolicy(ctx context.Context, r *request) (answer, error) {
	q := steering.PolicyPut{Namespace: r.namespace(), Service: r.policyService(), If: r.ifRevision()}
	switch {
	case r.err != nil:
		return answer{}, r.err
	case d.Steering == nil:
		return answer{}, errNoSteering
	}
	if err := r.decode(&q.PolicyWrite); err != nil {
		return answer{}, err
	}
	out, created, err := d.Steering.PutPolicy(ctx, q)
	if err != nil {
		return answer{}, err
	}
	a := answer{body: &out, stamp: d.atLeast(out.Revision)}
	if created {
		a.status = http.StatusCreated
	}
	return a, nil
}

func (d *door) deletePolicy(ctx context.Context, r *request) (answer, error) {
	q := steering.PolicyDelete{Namespace: r.namespace(), Service: r.policyService(), If: r.ifRevision()}
	switch {
	case r.err != nil:
		return answer{}, r.err
	case d.Steering == nil:
		return answer{}, errNoSteering
	}
	revision, err := d.Steering.DeletePolicy(ctx, q)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent, stamp: d.atLeast(revision)}, nil
}

func (d *door) testPolicy(ctx context.Context, r *request) (answer, error) {
	q := steering.PolicyTrial{Namespace: r.namespace(), Service: r.policyService(), Zone: r.zone()}
	switch {
	case r.err != nil:
		return answer{}, r.err
	case d.Steering == nil:
		return answer{}, errNoSteering
	}
	if err := r.decode(&q.PolicyWrite); err != nil {
		return answer{}, err
	}
	out, st, err := d.Steering.TestPolicy(ctx, q)
	if err != nil {
		return answer{}, err
	}
	return answer{body: &out, stamp: st}, nil
}

func (d *door) getRegionDrain(ctx context.Context, r *request) (answer, error) {
	region, o := r.pathRegion(), r.read()
	switch {
	case r.err != nil:
		return answer{}, r.err
	case d.Steering == nil:
		return answer{}, errNoSteering
	}
	out, st, err := d.Steering.GetDrain(ctx, region, o)
	if err != nil {
		return answer{}, err
	}
	return answer{body: &out, stamp: st}, nil
}

// drainBody is api.DrainRequest; a percentage that is left out is no 0: that would undo.
type drainBody struct {
	api.DrainRequest
	Percent *float64 `json:"percent"`
}

func (d *door) putRegionDrain(ctx context.Context, r *request) (answer, error) {
	region := r.pathRegion()
	switch {
	case r.err != nil:
		return answer{}, r.err
	case d.Steering == nil:
		return answer{}, errNoSteering
	}
	var body drainBody
	if err := r.decode(&body); err != nil {
		return answer{}, err
	}
	if body.Percent == nil {
		return answer{}, api.FieldError("percent", "percent is missing", "use 0 to 100: how much less of its traffic the region is to get; DELETE undoes a drain")
	}
	body.DrainRequest.Percent = *body.Percent
	out, st, err := d.Steering.PutDrain(ctx, region, body.DrainRequest)
	if err != nil {
		return answer{}, err
	}
	return answer{body: &out, stamp: st}, nil
}

func (d *door) undoRegionDrain(ctx context.Context, r *request) (answer, error) {
	region, over := r.pathRegion(), time.Duration(0)
	if r.query.Has("over") {
		var err error
		if over, err = time.ParseDuration(r.query.Get("over")); err != nil {
			r.bad("over", r.query.Get("over"), "write it like 10m, or leave it out (at once)")
		}
	}
	switch {
	case r.err != nil:
		return answer{}, r.err
	case d.Steering == nil:
		return answer{}, errNoSteering
	}
	out, st, err := d.Steering.UndoDrain(ctx, region, over)
	if err != nil {
		return answer{}, err
	}
	return answer{body: &out, stamp: st}, nil
}
