package nearside

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/internal/disk"
	"github.com/nearside/nearside/sdk/route"
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
	// SnapshotKey signs the snapshot (HMAC-SHA256) where others can write to SnapshotDir: a
	// file that is not signed with it is refused, with a warning, and replaced by the next one.
	// At least 16 bytes, random and the same at the next start; it appears in no log and no
	// file. Empty = not signed; then a file is checked field by field, and otherwise believed.
	// A signature does not tell that a file is the newest: an older one of the same program is
	// as valid, and shows its age.
	SnapshotKey []byte
	// SnapshotMaxBytes bounds the file; 0 = 32 MiB, which is the most, 64 KiB the least. There
	// are two generations, and a third for a moment. When it is reached services are left out,
	// with a warning: those that this run does not use first, then the largest.
	SnapshotMaxBytes int
	// SnapshotMaxAge is the age from which on a snapshot is not used at all; 0 = no limit: what
	// was true long ago is better than nothing, and an instance that is gone costs a refused
	// dial. Whatever the limit, one that is older than a day is used only after two seconds in
	// which no registry answered, or when all of them refused.
	SnapshotMaxAge time.Duration

	// Balancer spreads calls over the instances of a tier; default RoundRobin.
	Balancer Balancer
	// SlowStart is the time over which an instance that is new to the client gets its full
	// share of the calls, beginning with a tenth of it; default 0 = at once, as elsewhere
	// (Envoy): who needs it are services that are slow until they are warm. 30 s to 2 min are
	// usual. What is there at the client's start is not new. See ConsistentHash for its part.
	SlowStart time.Duration
	// NoEjection leaves in who fails clearly more calls than its neighbours. Otherwise, where a
	// region has five or more instances of a service and this client calls each of them ten times
	// a second and more, such an instance is left out for 30 s and more, never more than half of
	// a tier; see DESIGN.md. Failures are those of the breakers, and answers of 500 and
	// above. With ConsistentHash nobody is ejected: instances have different keys.
	NoEjection bool
	// Subset is how many instances of a tier this client calls at most, at least 8; default 0 =
	// all of them. Each client calls other ones. Only who deploys knows how many clients there
	// are: clients × Subset should be 30 times the instances of the greatest service and more,
	// or some get much more than others, and with few clients some get nothing at all.
	// 100 is enough for that with 1,000 clients and 3,000 instances. Smaller tiers are called whole.
	Subset int
	// ClientID names this client among those of the same program, such as by its pod or host;
	// the same name calls the same subset again. Default: another one for each New.
	ClientID string
	// Services holds what is different for some services, by the names they are called by:
	// "orders" or "orders.namespace". Names that cannot be a service's are refused, and
	// so is the same service under two names.
	Services map[string]ServiceConfig
	// Policy is the program's own rule for all services. It narrows the home region's (see
	// route.Policy.Narrow), and holds alone while that is not known: set Allowed here too
	// where data must never leave some regions, whatever is dead at the start.
	Policy route.Policy

	// HTTPClient talks to registries (not to services; see Transport), for registries with a
	// private certificate authority or client certificates. Its Timeout is ignored: watches have
	// no end. Its idle connections are the program's to close, after Close. nil = no proxy, no
	// redirects, dials of 1 s, certificates as the system trusts them.
	HTTPClient *http.Client

	// ServiceTLS is for services that are called by https through Transport(nil): whose
	// certificates are trusted (RootCAs), and the program's own (Certificates). Each instance
	// must have a certificate for the host of the URL, "orders" in https://orders/, unless
	// ServerName names another one for all. nil = what the system trusts.
	ServiceTLS *tls.Config

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
	// SlowCall is how long an answer may take to its headers before it counts as slow for the
	// instance's breaker; 0 = never, the default. When half of ten or more answers of an instance
	// within ten seconds were slow its breaker opens, and a slow trial fails; but at most half of
	// the usable instances of a region are left for that. Calls with WithAttemptTimeout and
	// bodies above 64 KiB are not judged. Set it well above what answers take on a bad day:
	// too low, and a region works with half of its instances.
	SlowCall time.Duration
	// Hedge lets calls that wait for long ask a second instance too; the zero value = they do
	// not.
	Hedge Hedge
	// RetryBudget bounds repeats to this share of calls (default 0.1) over a reserve of 100, so
	// that they cannot multiply an overload. The reserve fills up again by 10 a second while nine
	// of ten attempts and more succeed. Below 0 = only the reserve.
	RetryBudget float64

	// PollInterval is how often services are asked for, give or take a fifth, where a watch
	// cannot be held (a proxy in between that collects streams); default 5 s, at least 100 ms.
	PollInterval time.Duration

	services map[api.ServiceKey]ServiceConfig // as checked
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
	if cfg.Balancer == nil {
		cfg.Balancer = RoundRobin
	}
	if err := checkBalancer(cfg.Balancer); err != nil {
		return cfg, fmt.Errorf("nearside: Config.Balancer: %w", err)
	}
	if err := checkSubset(cfg.Subset); err != nil {
		return cfg, fmt.Errorf("nearside: Config.Subset: %w", err)
	}
	if cfg.ClientID == "" {
		cfg.ClientID = strconv.FormatUint(rand.Uint64(), 16)
	}
	if cfg.SlowStart < 0 {
		return cfg, fmt.Errorf("nearside: Config.SlowStart %s is below 0: leave it out for no slow start", cfg.SlowStart)
	}
	if err := cfg.checkServices(); err != nil {
		return cfg, err
	}
	if err := cfg.checkValues(); err != nil {
		return cfg, err
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
	var err error
	if cfg.Hedge, err = cfg.Hedge.check(); err != nil {
		return cfg, err
	}
	if err := cfg.checkSnapshot(); err != nil {
		return cfg, err
	}
	cfg.SnapshotKey = bytes.Clone(cfg.SnapshotKey)
	cfg.ServiceTLS = cfg.ServiceTLS.Clone() // of nil, too
	if cfg.SlowCall < 0 {
		return cfg, fmt.Errorf("nearside: Config.SlowCall is %s: give a time above 0, or 0 for no such rule", cfg.SlowCall)
	}
	if cfg.PollInterval <= 0 {
		cfg.PollInterval = defaultPollInterval
	}
	return cfg, nil
}

// Bounds of the settings of the snapshot.
const (
	leastSnapshotKey   = 16
	leastSnapshotBytes = 64 << 10
)

func (cfg *Config) checkSnapshot() error {
	switch n := len(cfg.SnapshotKey); {
	case n > 0 && n < leastSnapshotKey:
		return fmt.Errorf("nearside: Config.SnapshotKey has %d bytes: use at least %d random ones", n, leastSnapshotKey)
	case cfg.SnapshotMaxBytes != 0 && (cfg.SnapshotMaxBytes < leastSnapshotBytes || cfg.SnapshotMaxBytes > disk.MaxFile):
		return fmt.Errorf("nearside: Config.SnapshotMaxBytes is %d: use %d to %d, or 0 for the most", cfg.SnapshotMaxBytes, leastSnapshotBytes, disk.MaxFile)
	case cfg.SnapshotMaxAge < 0:
		return fmt.Errorf("nearside: Config.SnapshotMaxAge is %s: use 0 for no limit", cfg.SnapshotMaxAge)
	}
	return nil
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
	if err := checkPlace(u); err != nil {
		return "", err
	}
	return u.String(), nil
}
