package grpcresolver

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// Defaults of the options.
const (
	defaultWarm     = 2
	defaultMaxConns = 128
)

// Option changes how a channel connects and repeats calls.
type Option func(*settings)

// settings are what the resolver hands to the balancer of its channel. They do not change.
type settings struct {
	client   *nearside.Client
	warm     int
	maxConns int
	retry    map[string]bool // "pkg.Service/Method" or "pkg.Service"
	extra    string          // of the service config
	config   string          // the service config
	seed     maphash.Seed
	reports  *sync.Pool
	err      error
}

// WithRetry declares methods that may be repeated: "pkg.Service/Method", or "pkg.Service" for
// all of its methods. A call of one of them that fails with UNAVAILABLE before any of its
// answer arrived is tried up to three times in all: then on another instance, and last in
// another region if there is a connection to one. Repeats are held to a tenth of the calls
// over a reserve of 200, which is enough for the calls that are on their way when a region
// dies. Such calls are also the first to try an instance that failed.
//
// Without it only calls that no server has seen are repeated, as gRPC does by itself: not
// every method may be done twice.
func WithRetry(methods ...string) Option {
	return func(s *settings) {
		for _, m := range methods {
			name := strings.TrimPrefix(m, "/")
			service, method, found := strings.Cut(name, "/")
			if service == "" || (found && method == "") || strings.Contains(method, "/") {
				s.fail(fmt.Errorf("WithRetry: %s is no method: write \"pkg.Service/Method\", or \"pkg.Service\" for all of its methods", api.Quote(m)))
				continue
			}
			s.retry[name] = true
		}
	}
}

// WithServiceConfig adds to the service config of the channel, in gRPC's JSON form: the
// methodConfig (time-outs, waitForReady, retry policies), retryThrottling and
// healthCheckConfig of it. loadBalancingConfig is the resolver's own. A config given to
// grpc.WithDefaultServiceConfig does not count, since the resolver gives one.
func WithServiceConfig(config string) Option { return func(s *settings) { s.extra = config } }

// WithWarm sets how many connections are kept to the next region while near instances take
// all the traffic, so that calls need not wait for a handshake over the sea when it is their
// turn; default 2, 0 = none.
func WithWarm(n int) Option { return func(s *settings) { s.warm = max(n, 0) } }

// WithMaxConns bounds the connections to instances that take traffic; default 128, at least
// 1. Of larger services each channel takes its own part, so that together they load all
// instances evenly. Warm connections, and those to where traffic has just left, come on top.
func WithMaxConns(n int) Option { return func(s *settings) { s.maxConns = max(n, 1) } }

func newSettings(c *nearside.Client, opts []Option) *settings {
	s := &settings{
		client: c, warm: defaultWarm, maxConns: defaultMaxConns, retry: map[string]bool{},
		seed: maphash.MakeSeed(), reports: newReports(),
	}
	if c == nil {
		s.fail(errors.New("the client is nil: make one with nearside.New"))
	}
	for _, o := range opts {
		o(s)
	}
	var err error
	if s.config, err = s.serviceConfig(); err != nil {
		s.fail(err)
	}
	return s
}

func (s *settings) fail(err error) {
	if s.err == nil {
		s.err = fmt.Errorf("grpcresolver: %w", err)
	}
}

// safe reports whether calls of a method ("/pkg.Service/Method") may be repeated.
func (s *settings) safe(method string) bool {
	if len(s.retry) == 0 {
		return false
	}
	name := strings.TrimPrefix(method, "/")
	service, _, _ := strings.Cut(name, "/")
	return s.retry[name] || s.retry[service]
}

// The retry policy. The throttle lets repeats pass while more than half of its tokens are
// there: a failure takes one, a success brings a tenth back (gRFC A6).
const (
	maxAttempts  = 3
	retryBackoff = "0.010s"
	retryAtMost  = "0.100s"
	retryTokens  = 400
	retryRatio   = 0.1
)

// serviceConfig returns the channel's service config: the balancer, what WithRetry declared
// and what WithServiceConfig adds.
func (s *settings) serviceConfig() (string, error) {
	config := map[string]json.RawMessage{}
	if s.extra != "" {
		if err := json.Unmarshal([]byte(s.extra), &config); err != nil {
			return "", fmt.Errorf("WithServiceConfig: the config is no JSON object: %w", err)
		}
		for _, key := range []string{"loadBalancingConfig", "loadBalancingPolicy"} {
			if _, has := config[key]; has {
				return "", fmt.Errorf("WithServiceConfig: the config has a %s: leave it out, the resolver names its own balancer", key)
			}
		}
	}
	set := func(key string, v any) { config[key], _ = json.Marshal(v) } // plain values only
	set("loadBalancingConfig", []any{map[string]any{Name: map[string]any{}}})
	if len(s.retry) > 0 {
		var methods []json.RawMessage
		if raw, has := config["methodConfig"]; has {
			if err := json.Unmarshal(raw, &methods); err != nil {
				return "", fmt.Errorf("WithServiceConfig: the config's methodConfig is no list: %w", err)
			}
		}
		names := make([]any, 0, len(s.retry))
		for _, name := range slices.Sorted(maps.Keys(s.retry)) {
			service, method, _ := strings.Cut(name, "/")
			n := map[string]string{"service": service}
			if method != "" {
				n["method"] = method
			}
			names = append(names, n)
		}
		own, _ := json.Marshal(map[string]any{"name": names, "retryPolicy": map[string]any{
			"maxAttempts": maxAttempts, "initialBackoff": retryBackoff, "maxBackoff": retryAtMost,
			"backoffMultiplier": 2, "retryableStatusCodes": []string{"UNAVAILABLE"},
		}})
		set("methodConfig", append(methods, own))
		if _, has := config["retryThrottling"]; !has {
			set("retryThrottling", map[string]any{"maxTokens": retryTokens, "tokenRatio": retryRatio})
		}
	}
	out, err := json.Marshal(config)
	return string(out), err
}
