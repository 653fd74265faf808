package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Every field of a policy is shown, compared and merged: one that is added and forgotten somewhere
// fails here.
func TestPolicyFieldsAreAllThere(t *testing.T) {
	yes, n, ramp := true, 3.0, Duration(time.Second)
	full := Policy{
		Allowed: []Region{"eu"}, LocalOnly: &yes, OrderBy: OrderListed, Order: []Region{"us"}, MinHealthy: &n, OverProvisioning: &n,
		SpillStart: &n, SpillStop: &n, StaleLimit: Duration(time.Minute), FailbackRamp: &ramp, KeepWarm: &n,
	}
	typ := reflect.TypeFor[Policy]()
	fields := full.Fields()
	if len(fields) != typ.NumField() {
		t.Fatalf("%d fields are shown of %d", len(fields), typ.NumField())
	}
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if reflect.ValueOf(full).Field(i).IsZero() || fields[i].Name != name || fields[i].Value == "" {
			t.Errorf("field %s is shown as %+v", name, fields[i])
		}
		var one Policy
		reflect.ValueOf(&one).Elem().Field(i).Set(reflect.ValueOf(full).Field(i))
		if d := Differences(nil, &one); len(d) != 1 || !strings.HasPrefix(d[0], name+": - -> ") {
			t.Errorf("%s: %v", name, d)
		}
		// What is not set comes from the default; what is set does not.
		if merged := (&Policy{}).Over(&one); !reflect.DeepEqual(merged, one) {
			t.Errorf("%s is not taken from the default: %+v", name, merged)
		}
		if merged := one.Over(&Policy{}); !reflect.DeepEqual(merged, one) {
			t.Errorf("%s is lost: %+v", name, merged)
		}
	}
	if d := Differences(&full, &full); len(d) != 0 {
		t.Error(d)
	}
	// An order of one's own is not passed over for the default's order_by.
	own := (&Policy{Order: []Region{"us"}}).Over(&Policy{OrderBy: OrderRTT})
	if own.OrderBy == OrderRTT || len(own.Order) != 1 {
		t.Errorf("%+v", own)
	}
	if own = (&Policy{OrderBy: OrderRTT}).Over(&Policy{Order: []Region{"us"}}); len(own.Order) != 0 {
		t.Errorf("%+v", own)
	}
}

// The name of an embedded type is no part of what a client reads.
func TestTypeErrorsNameTheFieldAsItIsWritten(t *testing.T) {
	var w PolicyWrite
	err := UnmarshalStrict([]byte(`{"allowed":"eu"}`), &w)
	if e, ok := err.(*Error); !ok || e.Field != "allowed" || !strings.HasPrefix(e.Detail, "allowed cannot") {
		t.Errorf("%v", err)
	}
}

// FuzzPolicy: a policy that is accepted is written and read back as the same, and stays valid.
func FuzzPolicy(f *testing.F) {
	f.Add(`{"allowed":["eu-west"],"order":["eu-west"],"keep_warm":2,"failback_ramp":"0s","note":"x"}`)
	f.Add(`{"spill_start":70,"spill_stop":60,"stale_limit":"5s","local_only":true}`)
	f.Fuzz(func(t *testing.T, body string) {
		var w PolicyWrite
		if UnmarshalStrict([]byte(body), &w) != nil || w.Validate("eu-west") != nil {
			return
		}
		b, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		var again PolicyWrite
		if err := UnmarshalStrict(b, &again); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if err := again.Validate("eu-west"); err != nil || len(Differences(&w.Policy, &again.Policy)) != 0 || again.Note != w.Note {
			t.Errorf("%s became %s: %v", body, b, err)
		}
	})
}

// Any time of day: a request that is accepted has a begin, steps, and ends after it began.
func TestDrainRequestNormalize(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.FixedZone("x", 3600))
	r, err := DrainRequest{Percent: 50}.Normalize(now)
	if err != nil || r.Steps != DefaultDrainSteps || r.At == nil || r.At.After(now) || now.Sub(*r.At) > time.Millisecond || r.At.Location() != time.UTC {
		t.Errorf("%+v %v", r, err)
	}
	late := now.Add(-30 * time.Second) // clocks differ
	if r, err = (DrainRequest{Percent: 50, At: &late}).Normalize(now); err != nil || r.At.Before(now.Add(-time.Second)) {
		t.Errorf("%+v %v", r, err)
	}
	if b, _ := json.Marshal(RegionDrain{Region: "eu", DrainRequest: r}); !strings.Contains(string(b), `"percent":50`) || strings.Contains(string(b), "started") {
		t.Errorf("%s", b)
	}
}
