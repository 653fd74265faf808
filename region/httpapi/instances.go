package httpapi

import (
	"context"
	"fmt"
	"net/http"

	"github.com/nearside/nearside/sdk/api"
)

func (d *door) register(ctx context.Context, r *request) (answer, error) {
	key := r.instanceKey()
	if r.err != nil {
		return answer{}, r.err
	}
	var reg api.Registration
	if err := r.decodeRegistration(&reg); err != nil {
		return answer{}, err
	}
	inst, created, err := d.Registry.Register(ctx, key, reg)
	if err != nil {
		return answer{}, err
	}
	a := d.written(inst)
	if created {
		a.status = http.StatusCreated
	}
	return a, nil
}

func (d *door) get(ctx context.Context, r *request) (answer, error) {
	key, o := r.instanceKey(), r.read()
	if r.err != nil {
		return answer{}, r.err
	}
	inst, st, err := d.Registry.Get(ctx, key, o)
	if err != nil {
		return answer{}, err
	}
	return answer{body: &inst, stamp: st, tagged: true}, nil
}

func (d *door) deregister(ctx context.Context, r *request) (answer, error) {
	key, incarnation := r.instanceKey(), r.number("incarnation")
	if r.err != nil {
		return answer{}, r.err
	}
	if err := d.Registry.Deregister(ctx, key, incarnation); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent, stamp: d.Registry.Stamp()}, nil
}

func (d *door) removeService(ctx context.Context, r *request) (answer, error) {
	service, ns := r.service(), r.namespace()
	if r.err != nil {
		return answer{}, r.err
	}
	out, err := d.Registry.RemoveService(ctx, ns, service)
	if err != nil {
		return answer{}, err
	}
	return answer{body: &out, stamp: d.Registry.Stamp()}, nil
}

func (d *door) heartbeat(ctx context.Context, r *request) (answer, error) {
	key, incarnation := r.instanceKey(), r.number("incarnation")
	if r.err != nil {
		return answer{}, r.err
	}
	var hb api.Heartbeat
	if err := r.decodeOptional(&hb); err != nil {
		return answer{}, err
	}
	if hb.Incarnation != 0 && incarnation != 0 && hb.Incarnation != incarnation {
		return answer{}, api.FieldError("incarnation",
			fmt.Sprintf("the body says incarnation %d and the query %d", hb.Incarnation, incarnation), "say it once")
	}
	hb.Incarnation = max(hb.Incarnation, incarnation)
	ack, err := d.Registry.Beat(ctx, key, hb)
	if err != nil {
		return answer{}, err
	}
	return answer{body: ackBody{&ack}, stamp: d.Registry.Stamp(), short: true}, nil
}

func (d *door) setStatus(ctx context.Context, r *request) (answer, error) {
	key := r.instanceKey()
	if r.err != nil {
		return answer{}, r.err
	}
	var c api.StatusChange
	if err := r.decode(&c); err != nil {
		return answer{}, err
	}
	return d.change(ctx, key, c)
}

func (d *door) drain(ctx context.Context, r *request) (answer, error) {
	key := r.instanceKey()
	if r.err != nil {
		return answer{}, r.err
	}
	var body api.Drain
	if err := r.decodeOptional(&body); err != nil {
		return answer{}, err
	}
	return d.change(ctx, key, api.StatusChange{Status: api.StatusDraining, Note: body.Note, Incarnation: body.Incarnation})
}

func (d *door) endDrain(ctx context.Context, r *request) (answer, error) {
	key, incarnation := r.instanceKey(), r.number("incarnation")
	if r.err != nil {
		return answer{}, r.err
	}
	inst, err := d.Registry.EndDrain(ctx, key, incarnation)
	if err != nil {
		return answer{}, err
	}
	return d.written(inst), nil
}

func (d *door) change(ctx context.Context, key api.InstanceKey, c api.StatusChange) (answer, error) {
	inst, err := d.Registry.SetStatus(ctx, key, c)
	if err != nil {
		return answer{}, err
	}
	return d.written(inst), nil
}

// written answers a write with the instance as it stands now. The revision in the headers
// is at least the instance's own: it is what a client gives as ?min_revision= to read its
// write on any node.
func (d *door) written(inst api.Instance) answer {
	st := d.Registry.Stamp()
	st.Version.Revision = max(st.Version.Revision, inst.Revision)
	return answer{body: &inst, stamp: st}
}
