package grpcresolver

import (
	"encoding/json"
	"reflect"
	"testing"

	nearside "github.com/nearside/nearside/sdk"
)

// The service config names the balancer, keeps what the program adds and repeats nothing that
// was not declared.
func TestServiceConfig(t *testing.T) {
	const timeout = `{"name":[{"service":"a"}],"timeout":"1s"}`
	const policy = `"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.010s","maxBackoff":"0.100s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}`
	const lb = `"loadBalancingConfig":[{"nearside":{}}]`
	for _, tc := range []struct {
		name string
		opts []Option
		want string
	}{
		{"nothing said", nil, `{` + lb + `}`},
		{"methods", []Option{WithRetry("/a.B/C", "d.E")}, `{` + lb + `,"methodConfig":[{"name":[{"service":"a.B","method":"C"},{"service":"d.E"}],` + policy + `}],"retryThrottling":{"maxTokens":400,"tokenRatio":0.1}}`},
		{"the program's", []Option{WithServiceConfig(`{"methodConfig":[` + timeout + `],"healthCheckConfig":{"serviceName":"x"}}`)}, `{` + lb + `,"methodConfig":[` + timeout + `],"healthCheckConfig":{"serviceName":"x"}}`},
		{"both", []Option{WithServiceConfig(`{"methodConfig":[` + timeout + `],"retryThrottling":{"maxTokens":9,"tokenRatio":1}}`), WithRetry("d.E")}, `{` + lb + `,"methodConfig":[` + timeout + `,{"name":[{"service":"d.E"}],` + policy + `}],"retryThrottling":{"maxTokens":9,"tokenRatio":1}}`},
	} {
		s := newSettings(&nearside.Client{}, tc.opts)
		if s.err != nil {
			t.Errorf("%s: %v", tc.name, s.err)
		}
		var got, want any
		if err := json.Unmarshal([]byte(s.config), &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(tc.want), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s, want %s", tc.name, s.config, tc.want)
		}
	}
}

func TestSafeMethods(t *testing.T) {
	s := newSettings(&nearside.Client{}, []Option{WithRetry("a.B/Get", "c.D")})
	for method, want := range map[string]bool{"/a.B/Get": true, "/a.B/Put": false, "/c.D/Any": true, "/c.Other/Get": false, "": false} {
		if s.safe(method) != want {
			t.Errorf("%q is safe to repeat: %v", method, !want)
		}
	}
	for _, bad := range []string{"", "/", "a.B/", "a/b/c"} {
		if newSettings(&nearside.Client{}, []Option{WithRetry(bad)}).err == nil {
			t.Errorf("%q is taken as a method", bad)
		}
	}
}
