package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestNamesAreOneLowerCaseLabel(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "orders": true, "us-east-1": true, "0": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "a_b": false, "ö": false, "а": false, // the last is Cyrillic
		strings.Repeat("a", 64): false, "a/b": false, "a b": false, "a\x00": false,
	} {
		if ValidLabel(s) != want {
			t.Errorf("label %q: %v", s, !want)
		}
	}
	for s, want := range map[string]bool{
		"host1:orders:8080": true, "A.b_c-1": true, ".": false, "..": false, "...": true, "": false, "a/b": false, "a b": false, "é": false,
		strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
	} {
		if ValidInstanceID(s) != want {
			t.Errorf("instance id %q: %v", s, !want)
		}
	}
}

func ok() Registration { return Registration{Address: "10.0.0.1", Port: 80} }

func TestNormalizeFillsDefaults(t *testing.T) {
	r, err := ok().Normalize()
	if err != nil || *r.Weight != DefaultWeight || r.TTL.D() != DefaultTTL || r.Status != StatusPassing {
		t.Fatalf("%+v, %v", r, err)
	}
	r = ok()
	r.Checks = []Check{{Kind: "ttl", TTL: Duration(3 * time.Second)}}
	if r, err = r.Normalize(); err != nil || r.TTL.D() != 3*time.Second {
		t.Errorf("a ttl check is the heartbeat: %v, %v", r.TTL, err)
	}
}

func TestNormalizeNamesTheFieldThatIsWrong(t *testing.T) {
	weight := func(w int) *int { return &w }
	many := map[string]string{}
	for i := range MaxMetadataKeys + 1 {
		many[strings.Repeat("k", i+1)] = "v"
	}
	ports := map[string]int{}
	for i := range MaxPorts + 1 {
		ports[strings.Repeat("p", i+1)] = 80
	}
	cases := map[string]struct {
		change func(*Registration)
		field  string
	}{
		"no address":       {func(r *Registration) { r.Address = "" }, "address"},
		"any address":      {func(r *Registration) { r.Address = "0.0.0.0" }, "address"},
		"any address 6":    {func(r *Registration) { r.Address = "::" }, "address"},
		"multicast":        {func(r *Registration) { r.Address = "224.0.0.1" }, "address"},
		"mapped any":       {func(r *Registration) { r.Address = "::ffff:0.0.0.0" }, "address"},
		"mapped multicast": {func(r *Registration) { r.Address = "::ffff:224.0.0.1" }, "address"},
		"broadcast":        {func(r *Registration) { r.Address = "255.255.255.255" }, "address"},
		"incarnation":      {func(r *Registration) { r.Incarnation = MaxIncarnation + 1 }, "incarnation"},
		"address zone":     {func(r *Registration) { r.Address = "fe80::1%eth0" }, "address"},
		"short IP":         {func(r *Registration) { r.Address = "127.1" }, "address"},
		"number IP":        {func(r *Registration) { r.Address = "2130706433" }, "address"},
		"with port":        {func(r *Registration) { r.Address = "10.0.0.1:80" }, "address"},
		"with scheme":      {func(r *Registration) { r.Address = "http://h" }, "address"},
		"long address":     {func(r *Registration) { r.Address = strings.Repeat("a.", 200) }, "address"},
		"no port":          {func(r *Registration) { r.Port = 0 }, "port"},
		"port too high":    {func(r *Registration) { r.Port = 65536 }, "port"},
		"named port":       {func(r *Registration) { r.Ports = map[string]int{"grpc": -1} }, "ports.grpc"},
		"port name":        {func(r *Registration) { r.Ports = map[string]int{"G RPC": 1} }, "ports"},
		"many ports":       {func(r *Registration) { r.Ports = ports }, "ports"},
		"zone":             {func(r *Registration) { r.Zone = "A" }, "zone"},
		"weight":           {func(r *Registration) { r.Weight = weight(-1) }, "weight"},
		"weight too high":  {func(r *Registration) { r.Weight = weight(MaxWeight + 1) }, "weight"},
		"capacity":         {func(r *Registration) { r.Capacity = -1 }, "capacity"},
		"version":          {func(r *Registration) { r.Version = strings.Repeat("1", MaxVersionLength+1) }, "version"},
		"forged version":   {func(r *Registration) { r.Version = "1\n2" }, "version"},
		"empty tag":        {func(r *Registration) { r.Tags = []string{"a", ""} }, "tags[1]"},
		"many tags":        {func(r *Registration) { r.Tags = make([]string, MaxTags+1) }, "tags"},
		"many keys":        {func(r *Registration) { r.Metadata = many }, "metadata"},
		"much metadata":    {func(r *Registration) { r.Metadata = map[string]string{"k": strings.Repeat("v", MaxMetadataBytes)} }, "metadata"},
		"empty key":        {func(r *Registration) { r.Metadata = map[string]string{"": "v"} }, "metadata"},
		"not text":         {func(r *Registration) { r.Metadata = map[string]string{"k": "\xff"} }, "metadata"},
		"ttl too short":    {func(r *Registration) { r.TTL = Duration(time.Millisecond) }, "ttl"},
		"ttl too long":     {func(r *Registration) { r.TTL = Duration(25 * time.Hour) }, "ttl"},
		"registers dead":   {func(r *Registration) { r.Status = StatusCritical }, "status"},
		"unknown check":    {func(r *Registration) { r.Checks = []Check{{Kind: "script"}} }, "checks[0].kind"},
	}
	for name, c := range cases {
		r := ok()
		c.change(&r)
		_, err := r.Normalize()
		var e *Error
		if !errors.As(err, &e) || e.Field != c.field || e.Remedy == "" || e.Code.HTTPStatus() != 422 {
			t.Errorf("%s: %v (field %v)", name, err, e)
		}
	}
	for _, a := range []string{"10.0.0.1", "::1", "orders-1.internal", "orders_1", "Host.Example", "1host"} {
		r := ok()
		r.Address = a
		if _, err := r.Normalize(); err != nil {
			t.Errorf("address %s: %v", a, err)
		}
	}
}

func TestDecodeStrictSaysWhatIsWrong(t *testing.T) {
	cases := map[string]Code{
		``:                                      CodeInvalidRequest,
		`{`:                                     CodeInvalidRequest,
		`{"address":"a","port":1} {}`:           CodeInvalidRequest,
		`{"adress":"a"}`:                        CodeUnknownField,
		`{"port":"80"}`:                         CodeInvalidField,
		`{"port":1.5}`:                          CodeInvalidField,
		`{"incarnation":-1}`:                    CodeInvalidField,
		`{"ttl":"soon"}`:                        CodeInvalidField,
		`{"ttl":1e300}`:                         CodeInvalidField,
		`[]`:                                    CodeInvalidField,
		`{"metadata":{"k":1}}`:                  CodeInvalidField,
		strings.Repeat(`[`, 20_000):             CodeInvalidRequest,
		`"` + strings.Repeat("a", MaxBodyBytes): CodeBodyTooLarge,
	}
	for body, want := range cases {
		var r Registration
		if got := CodeOf(DecodeStrict(strings.NewReader(body), &r)); got != want {
			t.Errorf("%.40s: %s, want %s", body, got, want)
		}
	}
	var r Registration
	if err := DecodeStrict(strings.NewReader(`{"address":"a","port":1,"ttl":15}`), &r); err != nil || r.TTL.D() != 15*time.Second {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestVersionsReadBackAndCompare(t *testing.T) {
	v := Version{Region: "eu-west", Epoch: Epoch{Generation: 3, Nonce: 0xabc}, Revision: 42}
	got, err := ParseVersion(v.String())
	if err != nil || got != v || v.String() != "eu-west/3-0000000000000abc/42" {
		t.Fatalf("%v, %v, %s", got, err, v)
	}
	for _, bad := range []string{"x", "eu/1/2", "eu/1-2/3", "EU/1-0000000000000abc/1", "eu/1-0000000000000abc/-1", "eu//1", "eu/1-0000000000000abc/1/2", "/1-0000000000000abc/1"} {
		if _, err := ParseVersion(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
	w := v
	w.Revision++
	otherNonce, higher := v, v
	otherNonce.Epoch.Nonce++
	higher.Epoch = Epoch{Generation: 4, Nonce: 1}
	higher.Revision = 1
	for _, c := range []struct {
		a, b Version
		want Order
	}{{v, v, Same}, {v, w, Older}, {w, v, Newer}, {v, otherNonce, Conflict}, {higher, w, Newer}, {w, higher, Older}} {
		if got := c.a.Compare(c.b); got != c.want {
			t.Errorf("%s against %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	e := &Error{Code: CodeStaleIncarnation, Detail: "d", Remedy: "r", Field: "f", Incarnation: 7}
	b, err := json.Marshal(e.Problem("req-1"))
	if err != nil {
		t.Fatal(err)
	}
	var p Problem
	if err := json.Unmarshal(b, &p); err != nil || p.Status != 409 || p.RequestID != "req-1" {
		t.Fatalf("%s, %v", b, err)
	}
	back := p.Err()
	if !errors.Is(back, &Error{Code: CodeStaleIncarnation}) || back.Incarnation != 7 || back.Remedy != "r" {
		t.Errorf("%+v", back)
	}
	for c, status := range Codes() {
		if status < 400 || status > 599 {
			t.Errorf("%s has status %d", c, status)
		}
	}
}

func FuzzRegistration(f *testing.F) {
	f.Add(`{"address":"10.0.0.1","port":80,"ttl":"15s","metadata":{"a":"b"},"tags":["x"],"checks":[{"kind":"ttl"}]}`)
	f.Add(`{"ttl":9223372036854775807}`)
	f.Fuzz(func(t *testing.T, body string) {
		var r Registration
		if DecodeStrict(strings.NewReader(body), &r) != nil {
			return
		}
		n, err := r.Normalize()
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code.HTTPStatus() >= 500 {
				t.Fatalf("%v", err)
			}
			return
		}
		if again, err := n.Normalize(); err != nil || again.TTL != n.TTL {
			t.Fatalf("a normal form is not normal: %v", err)
		}
	})
}

func FuzzVersion(f *testing.F) {
	f.Add("eu-west/3-0000000000000abc/42")
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := ParseVersion(s); err == nil && !v.IsZero() {
			if w, err := ParseVersion(v.String()); err != nil || w != v {
				t.Fatalf("%q: %v, %v", s, w, err)
			}
		}
	})
}
