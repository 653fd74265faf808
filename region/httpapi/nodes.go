package httpapi

import (
	"bytes"
	"context"
	"fmt"

	"github.com/nearside/nearside/sdk/api"
)

// nodeReport takes what another node of this region tells the owner of liveness. It is not
// for clients: the registry asks for a verb of its own.
func (d *door) nodeReport(ctx context.Context, r *request) (answer, error) {
	node := r.path("node")
	r.check(api.CheckNode(node))
	if r.err != nil {
		return answer{}, r.err
	}
	if err := r.checkMedia(api.MaxReportBytes); err != nil {
		return answer{}, err
	}
	body, err := api.ReadBody(r.Body, api.MaxReportBytes)
	if err != nil {
		return answer{}, err
	}
	rep, plain := quickReport(body)
	if !plain {
		// Counted before they are read, which costs twenty times their bytes.
		if most := api.MaxReportHeartbeats + api.MaxReportChecks; bytes.Count(body, []byte{'{'}) > most+1 {
			return answer{}, api.FieldError("heartbeats", fmt.Sprintf("more than %d heartbeats and checks in one report", most),
				fmt.Sprintf("send at most %d heartbeats and %d checks", api.MaxReportHeartbeats, api.MaxReportChecks))
		}
		rep = api.NodeReport{}
		if err := api.UnmarshalStrict(body, &rep); err != nil {
			return answer{}, err
		}
	}
	out, err := d.Registry.Report(ctx, node, rep)
	if err != nil {
		return answer{}, err
	}
	return answer{body: &out, stamp: d.Registry.Stamp()}, nil
}

// quickReport reads a report whose heartbeats come first and are written plainly, as nodes
// write it; the rest of it is read strictly. It decides on nothing else (ok is false then).
func quickReport(body []byte) (rep api.NodeReport, ok bool) {
	q := quick{b: body}
	q.want('{')
	if string(q.text()) != "heartbeats" {
		return rep, false
	}
	q.want(':')
	list, ok := q.heartbeats(api.MaxReportHeartbeats)
	if !ok || !q.is(',') {
		return rep, false
	}
	q.space()
	if q.i == len(body) || body[q.i] != '"' {
		return rep, false
	}
	var rest reportRest
	if api.UnmarshalStrict(append([]byte{'{'}, body[q.i:]...), &rest) != nil {
		return rep, false
	}
	return api.NodeReport{
		Heartbeats: list, Address: rest.Address, Term: rest.Term, Epoch: rest.Epoch, Revision: rest.Revision,
		Overlay: rest.Overlay, Checks: rest.Checks, Leaving: rest.Leaving, Loads: rest.Loads,
	}, true
}

// reportRest is an api.NodeReport without its heartbeats, so that they cannot come twice.
type reportRest struct {
	Address  string          `json:"address"`
	Term     uint64          `json:"term"`
	Epoch    api.Epoch       `json:"epoch"`
	Revision uint64          `json:"revision"`
	Overlay  *uint64         `json:"overlay"`
	Checks   []api.NodeCheck `json:"checks"`
	Leaving  bool            `json:"leaving"`
	Loads    bool            `json:"loads"`
}
