package httpapi

import (
	"bytes"
	"math/rand"
	"net/url"
	"slices"
	"testing"
	property "testing/quick"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// What is written by hand is byte for byte what encoding/json writes.
func TestPlainBodiesAreWhatEncodingJSONMakes(t *testing.T) {
	same := func(p plain, v any) bool {
		var buf bytes.Buffer
		if err := newEncoder(&buf).Encode(v); err != nil {
			t.Fatal(err)
		}
		got := append(p.appendJSON(nil), '\n')
		if !bytes.Equal(got, buf.Bytes()) {
			t.Errorf("%s\nwant %s", got, buf.Bytes())
			return false
		}
		return true
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	check := func(f any, samples int) {
		t.Helper()
		if err := property.Check(f, &property.Config{MaxCount: samples, Rand: rand.New(rand.NewSource(seed))}); err != nil {
			t.Error(err)
		}
	}
	check(func(a api.HeartbeatAck) bool { return same(ackBody{&a}, &a) }, 500)
	check(func(r api.BatchResults) bool { return same(resultsBody{&r}, &r) }, 500)
	check(func(e []api.Endpoint, d api.Decision, policy *api.Policy, views []api.Origin) bool {
		if policy != nil { // JSON has no NaN
			policy.MinHealthy, policy.OverProvisioning, policy.SpillStart, policy.SpillStop, policy.KeepWarm = nil, nil, nil, nil, nil
		}
		for i := range views {
			views[i].Drained = float64(i%1001) / 10
		}
		for i := range d.Tiers {
			d.Tiers[i].Weight = 0.5 // JSON has no NaN
		}
		want := api.Resolution{Service: "s", Endpoints: e, Decision: d, Policy: policy, Views: views}
		whole(&want)
		body, err := newResolution(&registry.Answer{Resolution: api.Resolution{Service: "s", Endpoints: e, Decision: d, Policy: policy}}, views)
		return err == nil && same(body, &want)
	}, 200) // of up to 50 endpoints each, with all that is in one
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "plain", "ö<&>\u2028", "\x00\x7f\xff\"\\", "a b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var buf bytes.Buffer
		if err := newEncoder(&buf).Encode(s); err != nil {
			t.Fatal(err)
		}
		if got := append(appendText(nil, s), '\n'); !bytes.Equal(got, buf.Bytes()) {
			t.Errorf("%q: %s, want %s", s, got, buf.Bytes())
		}
	})
}

// A query is read as the standard library reads it.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "a=1&b=2", "a", "a=&a=1", "&&a=%20+x&", "a;b=1", "%zz=1", "a=%", "=", "a=b=c", "%61=%C3%B6"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		want, err := url.ParseQuery(raw)
		got, ok := readQuery(raw)
		if ok != (err == nil) {
			if len(got) > 1000 {
				return // the standard library counts parameters; here the size of a header bounds them
			}
			t.Fatalf("%q: read %v, the standard library says %v", raw, ok, err)
		}
		if !ok {
			return
		}
		if len(got.names()) != len(want) {
			t.Fatalf("%q: %v, want %v", raw, got, want)
		}
		for name, values := range want {
			if !got.Has(name) || got.Get(name) != want.Get(name) || !slices.Equal(got.all(name), values) {
				t.Errorf("%q: %s is %q, want %q", raw, name, got.all(name), values)
			}
		}
	})
}
