package api

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func checks(c ...Check) Registration {
	r := ok()
	r.Ports = map[string]int{"admin": 9000}
	r.Checks = c
	return r
}

func TestChecksGetTheirDefaults(t *testing.T) {
	r, err := checks(Check{Kind: CheckHTTP}, Check{Kind: CheckHTTP, Role: RoleLiveness, Port: "admin", DeregisterAfter: Duration(time.Minute)}, Check{Kind: CheckGRPC, Service: "orders"}).Normalize()
	if err != nil {
		t.Fatal(err)
	}
	ten, one := Duration(10*time.Second), Duration(time.Second)
	want := []Check{
		{Name: "http", Kind: CheckHTTP, Role: RoleReadiness, Path: "/", Interval: ten, Timeout: one, SuccessBeforePassing: 1, FailuresBeforeCritical: 3},
		{Name: "http-2", Kind: CheckHTTP, Role: RoleLiveness, Port: "admin", Path: "/", Interval: ten, Timeout: one, SuccessBeforePassing: 1, FailuresBeforeCritical: 3, DeregisterAfter: Duration(time.Minute)},
		{Name: "grpc", Kind: CheckGRPC, Role: RoleReadiness, Service: "orders", Interval: ten, Timeout: one, SuccessBeforePassing: 1, FailuresBeforeCritical: 3},
	}
	if !slices.Equal(r.Checks, want) {
		t.Errorf("%+v", r.Checks)
	}
	again, err := r.Normalize()
	if err != nil || !slices.Equal(again.Checks, r.Checks) || again.TTL != r.TTL {
		t.Errorf("a second time: %+v, %v", again.Checks, err)
	}
	in := Instance{Port: r.Port, Ports: r.Ports}
	for i, want := range []int{80, 9000, 80} {
		if got := in.PortOf(&r.Checks[i]); got != want {
			t.Errorf("check %d asks at port %d, want %d", i, got, want)
		}
	}
}

// Who is checked by the region need not send heartbeats, unless it says that it will.
func TestTTLWithChecks(t *testing.T) {
	for name, c := range map[string]struct {
		r    Registration
		want time.Duration
	}{
		"none":             {checks(), DefaultTTL},
		"http":             {checks(Check{Kind: CheckHTTP}), 0},
		"http, and ttl":    {checks(Check{Kind: CheckHTTP}, Check{Kind: CheckTTL}), DefaultTTL},
		"http, and a ttl":  {checks(Check{Kind: CheckHTTP}, Check{Kind: CheckTTL, TTL: Duration(7 * time.Second)}), 7 * time.Second},
		"ttl alone":        {checks(Check{Kind: CheckTTL}), DefaultTTL},
		"http, ttl beside": {func() Registration { r := checks(Check{Kind: CheckHTTP}); r.TTL = Duration(9 * time.Second); return r }(), 9 * time.Second},
	} {
		r, err := c.r.Normalize()
		if err != nil || r.TTL.D() != c.want {
			t.Errorf("%s: ttl %s, %v", name, r.TTL, err)
		}
		if again, err := r.Normalize(); err != nil || again.TTL != r.TTL {
			t.Errorf("%s: a second time: %s, %v", name, again.TTL, err)
		}
	}
}

func TestChecksNameTheFieldThatIsWrong(t *testing.T) {
	http := func(f func(*Check)) Registration {
		c := Check{Kind: CheckHTTP}
		f(&c)
		return checks(Check{Kind: CheckTTL}, c)
	}
	second, hour := Duration(time.Second), Duration(time.Hour)
	for name, c := range map[string]struct {
		r     Registration
		field string
	}{
		"too many":             {checks(make([]Check, MaxChecks+1)...), "checks"},
		"no kind":              {checks(Check{}), "checks[0].kind"},
		"script":               {checks(Check{Kind: "script"}), "checks[0].kind"},
		"two ttl":              {checks(Check{Kind: CheckTTL}, Check{Kind: CheckTTL, Name: "b"}), "checks[1].kind"},
		"ttl with a path":      {checks(Check{Kind: CheckTTL, Path: "/"}), "checks[0].kind"},
		"ttl as readiness":     {checks(Check{Kind: CheckTTL, Role: RoleReadiness}), "checks[0].role"},
		"two ttls":             {func() Registration { r := checks(Check{Kind: CheckTTL, TTL: 2 * second}); r.TTL = 3 * second; return r }(), "checks[0].ttl"},
		"same name":            {checks(Check{Kind: CheckHTTP, Name: "a"}, Check{Kind: CheckTCP, Name: "a"}), "checks[1].name"},
		"name":                 {http(func(c *Check) { c.Name = "A b" }), "checks[1].name"},
		"role":                 {http(func(c *Check) { c.Role = "health" }), "checks[1].role"},
		"port name":            {http(func(c *Check) { c.Port = "grpc" }), "checks[1].port"},
		"port":                 {http(func(c *Check) { c.Port = "70000" }), "checks[1].port"},
		"port 0":               {http(func(c *Check) { c.Port = "0" }), "checks[1].port"},
		"ttl":                  {http(func(c *Check) { c.TTL = second }), "checks[1].ttl"},
		"relative path":        {http(func(c *Check) { c.Path = "healthz" }), "checks[1].path"},
		"URL as path":          {http(func(c *Check) { c.Path = "http://evil/" }), "checks[1].path"},
		"host as path":         {http(func(c *Check) { c.Path = "//evil/" }), "checks[1].path"},
		"path of two lines":    {http(func(c *Check) { c.Path = "/\r\nHost: evil" }), "checks[1].path"},
		"path with a space":    {http(func(c *Check) { c.Path = "/ HTTP/1.1" }), "checks[1].path"},
		"fragment":             {http(func(c *Check) { c.Path = "/a#b" }), "checks[1].path"},
		"long path":            {http(func(c *Check) { c.Path = "/" + strings.Repeat("a", MaxCheckPath) }), "checks[1].path"},
		"tcp path":             {http(func(c *Check) { c.Kind, c.Path = CheckTCP, "/" }), "checks[1].path"},
		"http service":         {http(func(c *Check) { c.Service = "a" }), "checks[1].service"},
		"long service":         {http(func(c *Check) { c.Kind, c.Service = CheckGRPC, strings.Repeat("a", MaxCheckService+1) }), "checks[1].service"},
		"quick":                {http(func(c *Check) { c.Interval = second / 2 }), "checks[1].interval"},
		"rare":                 {http(func(c *Check) { c.Interval = hour + 1 }), "checks[1].interval"},
		"patient":              {http(func(c *Check) { c.Interval, c.Timeout = 2*second, 3*second }), "checks[1].timeout"},
		"very patient":         {http(func(c *Check) { c.Interval, c.Timeout = hour, hour }), "checks[1].timeout"},
		"impatient":            {http(func(c *Check) { c.Timeout = 1 }), "checks[1].timeout"},
		"delay":                {http(func(c *Check) { c.InitialDelay = -1 }), "checks[1].initial_delay"},
		"success":              {http(func(c *Check) { c.SuccessBeforePassing = -1 }), "checks[1].success_before_passing"},
		"liveness success":     {http(func(c *Check) { c.Role, c.SuccessBeforePassing = RoleLiveness, 2 }), "checks[1].success_before_passing"},
		"startup success":      {http(func(c *Check) { c.Role, c.SuccessBeforePassing = RoleStartup, 2 }), "checks[1].success_before_passing"},
		"failures":             {http(func(c *Check) { c.FailuresBeforeCritical = MaxCheckThreshold + 1 }), "checks[1].failures_before_critical"},
		"warning too late":     {http(func(c *Check) { c.FailuresBeforeWarning = 3 }), "checks[1].failures_before_warning"},
		"warning at startup":   {http(func(c *Check) { c.Role, c.FailuresBeforeWarning = RoleStartup, 1 }), "checks[1].failures_before_warning"},
		"readiness deregister": {http(func(c *Check) { c.DeregisterAfter = second }), "checks[1].deregister_after"},
		"quick deregister":     {http(func(c *Check) { c.Role, c.DeregisterAfter = RoleLiveness, 1 }), "checks[1].deregister_after"},
	} {
		_, err := c.r.Normalize()
		var e *Error
		if !errors.As(err, &e) || e.Field != c.field || e.Remedy == "" || e.Code != CodeInvalidField {
			t.Errorf("%s: %v (field %v)", name, err, e)
		}
	}
}

func TestCheckPortIsANameOrANumber(t *testing.T) {
	var c []Check
	in := `[{"kind":"http","port":8081},{"kind":"http","port":"8081"},{"kind":"http","port":"admin"},{"kind":"http"}]`
	if err := json.Unmarshal([]byte(in), &c); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(c)
	if err != nil || string(out) != `[{"kind":"http","port":8081},{"kind":"http","port":8081},{"kind":"http","port":"admin"},{"kind":"http"}]` {
		t.Errorf("%s, %v", out, err)
	}
	var p CheckPort
	if json.Unmarshal([]byte(`1.5`), &p) == nil || json.Unmarshal([]byte(`{}`), &p) == nil {
		t.Error("neither a name nor a number")
	}
}
