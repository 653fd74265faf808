package httpapi

import (
	"context"
	"net/http"

	"github.com/nearside/nearside/sdk/api"
)

func (r *request) pathRegion() api.Region {
	name := r.path("region")
	r.check(api.CheckRegion(name))
	return api.Region(name)
}

func (d *door) listMembers(ctx context.Context, r *request) (answer, error) {
	region := r.pathRegion()
	if r.err != nil {
		return answer{}, r.err
	}
	l, st, err := d.Registry.ListMembers(ctx, region)
	if err != nil {
		return answer{}, err
	}
	l.Members = some(l.Members)
	return answer{body: &l, stamp: st}, nil
}

func (d *door) addMember(ctx context.Context, r *request) (answer, error) {
	region := r.pathRegion()
	if r.err != nil {
		return answer{}, r.err
	}
	var add api.MemberAdd
	if err := r.decode(&add); err != nil {
		return answer{}, err
	}
	m, created, err := d.Registry.AddMember(ctx, region, add)
	if err != nil {
		return answer{}, err
	}
	a := answer{body: &m, stamp: d.Registry.Stamp()}
	if created {
		a.status = http.StatusCreated
	}
	return a, nil
}

// removeMember takes a node's name, a member's address or its id.
func (d *door) removeMember(ctx context.Context, r *request) (answer, error) {
	region, node, force := r.pathRegion(), r.path("node"), r.flag("force")
	if r.err != nil {
		return answer{}, r.err
	}
	if err := d.Registry.RemoveMember(ctx, region, node, force); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent, stamp: d.Registry.Stamp()}, nil
}
