package api

import (
	"encoding/json"
	"errors"
	"testing"
)

// FuzzDuration: what is read writes itself such that it is read as the same again.
func FuzzDuration(f *testing.F) {
	for _, s := range []string{`"1m30s"`, "15", "1e300", "-0.5", `""`, "null", `"9223372036854775807ns"`, "{}", `"\u0031s"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d, again Duration
		if json.Unmarshal(b, &d) != nil {
			return
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if err := json.Unmarshal(text, &again); err != nil || again != d {
			t.Errorf("%s is read as %d, written as %s and read as %d: %v", b, d, text, again, err)
		}
	})
}

// FuzzBodies decodes the bodies of writes strictly: whatever is wrong is an error of the
// closed list, what is taken was said once, and reads the same when written again.
func FuzzBodies(f *testing.F) {
	for _, s := range []string{
		`{"status":"draining","note":"x","incarnation":3}`, `{"incarnation":18446744073709551615}`, `{"status":"a","Status":"b"}`, `{} {}`, `[`, "null", "\xff",
		`{"heartbeats":[{"service":"a","id":"b"}]}`, `{"instances":[{"service":"a","id":"b","address":"x","port":1,"checks":[{"kind":"http","port":80}]}]}`, `{"a":{"a":1,"a":2}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(StatusChange), new(Heartbeat), new(Batch), new(Registration)} {
			err := UnmarshalStrict(b, v)
			var e *Error
			if err != nil && (!errors.As(err, &e) || e.Code.HTTPStatus() >= 500 || e.Detail == "") {
				t.Fatalf("%q into %T: %v", b, v, err)
			}
			if err != nil {
				continue
			}
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatalf("%q into %T: %v", b, v, err)
			}
			if err := UnmarshalStrict(text, v); err != nil {
				t.Errorf("%q into %T: written as %s, which is refused: %v", b, v, text, err)
			}
		}
	})
}
