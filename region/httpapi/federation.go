package httpapi

import (
	"context"
	"net/http"

	"github.com/nearside/nearside/sdk/api"
)

func (d *door) federation(ctx context.Context, _ *request) (answer, error) {
	info, st, err := d.Registry.Federation(ctx)
	if err != nil {
		return answer{}, err
	}
	info.Links, info.Readers = some(info.Links), some(info.Readers)
	return answer{body: &info, stamp: st}, nil
}

// otherRegion reads ?region=, which must be there.
func (r *request) otherRegion() api.Region {
	name := r.query.Get("region")
	if name == "" {
		r.fail(api.FieldError("region", "region is missing", "name another region with ?region="))
		return ""
	}
	r.check(api.CheckRegion(name))
	return api.Region(name)
}

func (d *door) verifyRegion(ctx context.Context, r *request) (answer, error) {
	region := r.otherRegion()
	if r.err != nil {
		return answer{}, r.err
	}
	v, err := d.Registry.VerifyRegion(ctx, region)
	if err != nil {
		return answer{}, err
	}
	v.Differences = some(v.Differences)
	return answer{body: &v, stamp: d.Registry.Stamp()}, nil
}

func (d *door) resyncRegion(ctx context.Context, r *request) (answer, error) {
	region := r.otherRegion()
	if r.err != nil {
		return answer{}, r.err
	}
	info, err := d.Registry.ResyncRegion(ctx, region)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusAccepted, body: &info, stamp: d.Registry.Stamp()}, nil
}
