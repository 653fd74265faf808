package registry

import (
	"context"
	"strings"
	"testing"

	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/sdk/api"
)

// auditor answers for one region.
type auditor struct{ asked []string }

func (a *auditor) Verify(_ context.Context, region api.Region) (api.Verification, error) {
	a.asked = append(a.asked, "verify "+string(region))
	return api.Verification{Region: region, Result: api.VerifyEqual}, nil
}

func (a *auditor) Resync(region api.Region) (api.ResyncInfo, error) {
	a.asked = append(a.asked, "resync "+string(region))
	if region != "us-east" {
		return api.ResyncInfo{}, api.Errorf(api.CodeRegionNotFound, "region %s is not a peer", region)
	}
	return api.ResyncInfo{Region: region, State: api.ResyncWaiting, Expected: 5}, nil
}

// only allows one verb.
type only struct{ verb Verb }

func (o only) Authorize(_ context.Context, a Access) error {
	if a.Verb != o.verb {
		return api.Errorf(api.CodeForbidden, "not you")
	}
	return nil
}

// P12: who may read may verify, who may operate may resync; a resync is recorded with its
// actor, and one that is refused is not.
func TestVerifyAndResyncAreAuthorisedAndRecorded(t *testing.T) {
	log, err := events.Open(events.Config{Dir: t.TempDir(), Region: "eu-west", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	a := &auditor{}
	with := func(verb Verb, auditor Auditor) *Registry {
		return start(t, func(c *Config) { c.Authorizer, c.Auditor, c.Events = only{verb}, auditor, log }).Registry
	}
	ctx := WithActor(t.Context(), "client 10.0.0.1")
	reader := with(VerbRead, a)
	if v, err := reader.VerifyRegion(ctx, "us-east"); err != nil || v.Result != api.VerifyEqual {
		t.Fatalf("%+v %v", v, err)
	}
	if _, err := reader.ResyncRegion(ctx, "us-east"); api.CodeOf(err) != api.CodeForbidden {
		t.Fatal(err)
	}
	operator := with(VerbOperate, a)
	if _, err := operator.VerifyRegion(ctx, "us-east"); api.CodeOf(err) != api.CodeForbidden {
		t.Fatal(err)
	}
	if _, err := operator.ResyncRegion(ctx, "nowhere"); api.CodeOf(err) != api.CodeRegionNotFound {
		t.Fatal(err)
	}
	if _, err := operator.ResyncRegion(ctx, "us-east"); err != nil {
		t.Fatal(err)
	}
	if _, err := operator.ResyncRegion(ctx, operator.cfg.Region); api.CodeOf(err) != api.CodeInvalidField {
		t.Fatal(err)
	}
	if _, err := with(VerbOperate, nil).ResyncRegion(ctx, "us-east"); api.CodeOf(err) != api.CodeUnsupported {
		t.Fatal(err)
	}
	if got := strings.Join(a.asked, ", "); got != "verify us-east, resync nowhere, resync us-east" {
		t.Fatal(got)
	}
	log.Sync()
	list, err := log.Read(t.Context(), events.Query{Kinds: []api.EventKind{api.EventResync}, Limit: 10})
	if err != nil || len(list.Events) != 1 || list.Events[0].Subject != "us-east" || list.Events[0].Actor != "client 10.0.0.1" {
		t.Fatalf("%+v %v", list, err)
	}
}
