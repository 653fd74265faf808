package api

import (
	"encoding/json"
	"testing"
)

func TestLoadInJSON(t *testing.T) {
	for _, tc := range []struct {
		in, out string
		percent int
		told    bool
	}{
		{`{}`, `{}`, -1, false},
		{`{"load":null}`, `{}`, -1, false},
		{`{"load":0}`, `{"load":0}`, 0, true},
		{`{"load":73}`, `{"load":73}`, 73, true},
		{`{"load":1000}`, `{"load":1000}`, 1000, true},
	} {
		var hb Heartbeat
		if err := UnmarshalStrict([]byte(tc.in), &hb); err != nil {
			t.Fatal(tc.in, err)
		}
		out, _ := json.Marshal(hb)
		if p, told := hb.Load.Percent(); p != tc.percent || told != tc.told || string(out) != tc.out {
			t.Errorf("%s: %d, %v, %s", tc.in, p, told, out)
		}
	}
	for _, in := range []string{`{"load":-1}`, `{"load":1001}`, `{"load":0.5}`, `{"load":"73"}`, `{"load":[1]}`, `{"load":99999999999999999999}`} {
		var hb Heartbeat
		if err := UnmarshalStrict([]byte(in), &hb); err == nil {
			t.Errorf("%s is taken as %d", in, hb.Load)
		} else {
			t.Log(err)
		}
	}
}
