package httpapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// A node's report is read strictly, and what its quick reader takes is what the strict one
// would have.
func TestNodeReport(t *testing.T) {
	f := newFake()
	h, _ := testDoor(t, f, nil)
	version := uint64(7)
	rep := api.NodeReport{
		Address: "http://10.0.0.2:7400", Term: 4, Epoch: testEpoch, Revision: 9, Overlay: &version,
		Heartbeats: []api.BatchHeartbeat{{Service: "orders", ID: "a", Incarnation: 3}, {Namespace: "shop", Service: "orders", ID: "b"}},
		Checks:     []api.NodeCheck{{RecordRef: api.RecordRef{Service: "orders", ID: "c", Revision: 5}, Pardon: true}},
	}
	body, err := json.Marshal(rep)
	if err != nil {
		t.Fatal(err)
	}
	quick, ok := quickReport(body)
	if !ok || !reflect.DeepEqual(quick, rep) {
		t.Errorf("read quickly: %v %+v", ok, quick)
	}
	send := func(path, body string) (int, string) {
		t.Helper()
		w := raw{method: "POST", target: path, body: body, header: "Content-Type: application/json"}.do(t, h)
		return w.Code, w.Body.String()
	}
	if status, answer := send(api.PathNodeReport("n2"), string(body)); status != 200 || !strings.Contains(answer, `"term":4`) {
		t.Errorf("%d %s", status, answer)
	}
	if got, ok := f.last.(api.NodeReport); !ok || !reflect.DeepEqual(got, rep) {
		t.Errorf("the registry got %+v", f.last)
	}
	many := strings.Repeat(`{"service":"a","id":"b"},`, api.MaxReportHeartbeats) + `{"service":"a","id":"b"}`
	for what, tt := range map[string]struct {
		path, body string
		status     int
		code       api.Code
	}{
		"a node that is no name": {"/v1/nodes/N_2/report", string(body), 422, api.CodeInvalidField},
		"an unknown field":       {api.PathNodeReport("n2"), `{"heartbeats":[],"adress":"x","term":1,"epoch":""}`, 400, api.CodeUnknownField},
		"heartbeats twice":       {api.PathNodeReport("n2"), `{"heartbeats":[],"heartbeats":[],"address":"http://a:1","term":1,"epoch":""}`, 400, api.CodeInvalidRequest},
		"no address":             {api.PathNodeReport("n2"), `{"term":1,"epoch":""}`, 422, api.CodeInvalidField},
		"an address with a user": {api.PathNodeReport("n2"), `{"address":"http://me@a:1","term":1,"epoch":""}`, 422, api.CodeInvalidField},
		"too many heartbeats":    {api.PathNodeReport("n2"), fmt.Sprintf(`{"heartbeats":[%s],"address":"http://a:1","term":1,"epoch":""}`, many), 422, api.CodeInvalidField},
		"half of a body":         {api.PathNodeReport("n2"), string(body[:len(body)/2]), 400, api.CodeInvalidRequest},
		"nothing":                {api.PathNodeReport("n2"), ``, 400, api.CodeInvalidRequest},
	} {
		if status, answer := send(tt.path, tt.body); status != tt.status || !strings.Contains(answer, string(tt.code)) {
			t.Errorf("%s: %d %s", what, status, answer)
		}
	}
}

func FuzzNodeReport(f *testing.F) {
	f.Add([]byte(`{"heartbeats":[{"service":"a","id":"b","incarnation":1}],"address":"http://a:1","term":1,"epoch":""}`))
	f.Add([]byte(`{"heartbeats":[],"heartbeats":[]}`))
	f.Add([]byte(`{"heartbeats":[]}{`))
	f.Fuzz(func(t *testing.T, body []byte) {
		quick, ok := quickReport(body)
		if !ok {
			return
		}
		var strict api.NodeReport
		if err := api.UnmarshalStrict(body, &strict); err != nil {
			t.Fatalf("%q is read quickly and refused otherwise: %v", body, err)
		}
		if len(quick.Heartbeats) == 0 {
			quick.Heartbeats, strict.Heartbeats = nil, nil
		}
		if !reflect.DeepEqual(quick, strict) {
			t.Errorf("%q: %+v, strictly %+v", body, quick, strict)
		}
	})
}
