package shop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/readyfile"
)

// shopper is the name under which the load generator calls; it registers nothing.
const shopper = "shopper"

const (
	defaultRate   = 40
	maxRate       = 10_000
	defaultWarmup = 10 * time.Second
)

// LoadConfig says how Load shops.
type LoadConfig struct {
	Region      api.Region
	Zone        api.Zone
	Registry    []string // base URLs of nodes of Region
	TokenFile   string   // with the API token of the registry; "" = none
	SnapshotDir string   // "" = no snapshot
	Rate        float64  // calls per second, to 10,000; 0 = 40
	// Duration of the counted part; 0 = until ctx ends.
	Duration time.Duration
	// Warmup is the longest time before counting begins. It begins earlier, as soon as
	// every kind of call succeeded once: so a cold start is not counted, and a shop that
	// never works is. Negative = count from the start; 0 = 10 s.
	Warmup time.Duration
	Seed   uint64 // of the draws; 0 = any, told in the report
	// Report is a file to append to; "" or "-" = Out.
	Report    string
	Out       io.Writer // nil = nowhere
	ReadyFile string    // written when counting begins: {"pid": …}; "" = none
	Logger    *slog.Logger
}

// Load plays shoppers until ctx or the duration ends and reports each second as a line of
// JSON, a [Tick]; the last line is the summary. Being interrupted is no error, and failed
// calls are none: they are what it counts.
func Load(ctx context.Context, cfg LoadConfig) error { return load(ctx, cfg, dialRegion) }

func load(ctx context.Context, cfg LoadConfig, dial dialer) (err error) {
	cfg, err = cfg.normalize()
	if err != nil {
		return err
	}
	if err := readyfile.Remove(cfg.ReadyFile); err != nil {
		return err
	}
	out := cfg.Out
	if cfg.Report != "" && cfg.Report != "-" {
		f, _, err := openLines(cfg.Report)
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	client, err := dial(peerConfig{
		app: shopper, region: cfg.Region, zone: cfg.Zone, registry: cfg.Registry,
		snapshotDir: cfg.SnapshotDir, tokenFile: cfg.TokenFile, attempt: patienceOf(shopper).attempt, log: cfg.Logger,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close(), readyfile.Remove(cfg.ReadyFile)) }()
	cfg.Logger.Info("shopping", "region", cfg.Region, "rate", cfg.Rate, "seed", cfg.Seed)
	return newLoader(cfg, client.Transport(nil), out).run(ctx)
}

func (c LoadConfig) normalize() (LoadConfig, error) {
	if err := checkHome(c.Region, c.Zone, c.Registry, c.SnapshotDir); err != nil {
		return c, err
	}
	if c.Rate == 0 {
		c.Rate = defaultRate
	}
	if !(c.Rate > 0 && c.Rate <= maxRate) { // NaN is neither
		return c, usagef("rate %v is out of range; use more than 0, to %d calls per second", c.Rate, maxRate)
	}
	if c.Duration < 0 {
		return c, usagef("duration %s is negative; use 0 to go on until interrupted", c.Duration)
	}
	if c.Warmup == 0 {
		c.Warmup = defaultWarmup
	}
	for c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
