package nearside

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// Balancer says how calls are spread over the instances of the nearest tier.
type Balancer int

const (
	// RoundRobin takes instances in turn, by weight.
	RoundRobin Balancer = iota
	// LeastRequest takes two instances at random, by weight, and of these the one with
	// fewer calls running ("power of two choices"). Better when calls differ much in cost.
	LeastRequest
)

// Config is what a [Client] is made of. The zero value of every field but Addresses is
// useful; with a snapshot even Addresses may be empty.
type Config struct {
	// Addresses are base URLs of nodes of the home region, "http://10.0.0.1:7400". More
	// nodes are learned from the registry; these are where it starts.
	Addresses []string

	// Region is the home region. It is learned from the registry or the snapshot when
	// empty; set it so that a start without either knows where home is.
	Region api.Region
	// Zone of this program inside the region; instances of the same zone are called first.
	Zone api.Zone
	// Namespace of the services asked for and registered by plain name; empty = "default".
	Namespace api.Namespace
	// App names the program in logs and in the snapshot's file name. Programs that share a
	// SnapshotDir need different names.
	App string
	// Token is sent to registries as a bearer token; empty = none. When Addresses are https,
	// it is never sent over plain http.
	Token string

	// SnapshotDir is where the client writes what it knows, at most once a second and on
	// Close; empty = nowhere. Without it a program cannot start while all registries are
	// down.
	SnapshotDir string

	// Balancer spreads calls over the nearest tier; default RoundRobin.
	Balancer Balancer
	// Policy is the caller's own rule for all services: allowed regions, order.
	Policy route.Policy

	// HTTPClient talks to registries (not to services; see Transport). Its Timeout is
	// ignored: watches have no end. nil = no proxy, no redirects, dials of 1 s.
	HTTPClient *http.Client

	Logger         *slog.Logger                  // nil = silent
	TracerProvider trace.TracerProvider          // nil = none
	MeterProvider  metric.MeterProvider          // nil = none
	Propagator     propagation.TextMapPropagator // nil = W3C trace context when there is a TracerProvider

	// MaxAttempts bounds the tries of one call, the first included; default 3, 1 = never
	// repeat. Attempts whose connection was refused at once do not count (nothing was sent
	// and no time was lost), nor do those at an instance that was found to answer nobody.
	// With them it is eight tries at most.
	MaxAttempts int
	// AttemptTimeout is how long one attempt of a safe call may take to the answer's
	// headers before the next instance is tried; default 1 s, below 0 = no limit. Lower,
	// and slow answers are asked for twice; higher, and a hung instance costs more: where
	// calls are many and answers quick, half of it. A service that calls others through the
	// SDK needs less than half of what its own callers give it.
	AttemptTimeout time.Duration
	// RetryBudget bounds repeats to this share of calls (default 0.1) over a reserve of 50
	// and 10 more a second, so that repeats cannot multiply an overload; below 0 = only the
	// reserve.
	RetryBudget float64

	// PollInterval is how often services are asked for, give or take a fifth, where a watch
	// cannot be held (a proxy in between that collects streams); default 5 s.
	PollInterval time.Duration
}

const (
	defaultMaxAttempts    = 3
	defaultAttemptTimeout = time.Second
	defaultRetryBudget    = 0.1
	defaultPollInterval   = 5 * time.Second
)

// withDefaults checks cfg and fills in what is empty.
func (cfg Config) withDefaults() (Config, error) {
	addresses := make([]string, 0, len(cfg.Addresses))
	for _, a := range cfg.Addresses {
		base, err := cleanBase(a)
		if err != nil {
			return cfg, err
		}
		addresses = append(addresses, base)
	}
	cfg.Addresses = addresses
	if len(addresses) == 0 && cfg.SnapshotDir == "" {
		return cfg, errors.New("nearside: Config.Addresses is empty: name at least one node of the home region, \"http://host:7400\"")
	}
	if cfg.Namespace == "" {
		cfg.Namespace = api.DefaultNamespace
	}
	for _, err := range []error{
		api.CheckNamespace(string(cfg.Namespace)), api.CheckZone(string(cfg.Zone)), checkOptionalRegion(cfg.Region),
	} {
		if err != nil {
			return cfg, fmt.Errorf("nearside: %w", err)
		}
	}
	if cfg.Balancer != RoundRobin && cfg.Balancer != LeastRequest {
		return cfg, fmt.Errorf("nearside: balancer %d is not known: use RoundRobin or LeastRequest", cfg.Balancer)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Propagator == nil {
		if cfg.TracerProvider != nil {
			cfg.Propagator = propagation.TraceContext{}
		} else {
			cfg.Propagator = propagation.NewCompositeTextMapPropagator()
		}
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = tracenoop.NewTracerProvider()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = metricnoop.NewMeterProvider()
	}
	if cfg.MaxAttempts <= 0 {
		cfg.MaxAttempts = defaultMaxAttempts
	}
	if cfg.AttemptTimeout == 0 {
		cfg.AttemptTimeout = defaultAttemptTimeout
	}
	if cfg.RetryBudget == 0 {
		cfg.RetryBudget = defaultRetryBudget
	}
	cfg.RetryBudget = min(max(cfg.RetryBudget, 0), 1)
	if cfg.PollInterval <= 0 {
		cfg.PollInterval = defaultPollInterval
	}
	return cfg, nil
}

func checkOptionalRegion(r api.Region) error {
	if r == "" {
		return nil
	}
	return api.CheckRegion(string(r))
}

// cleanBase returns the base URL without a slash at its end.
func cleanBase(s string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", fmt.Errorf("nearside: address %s is not a base URL: write it like \"http://10.0.0.1:7400\"", api.Quote(s))
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("nearside: address of %s has more than scheme, host, port and path: use Config.Token for credentials", u.Host)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u.String(), nil
}
