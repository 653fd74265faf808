package shop

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// Command returns "nearside shop" with its verbs run and load. They run until the
// command's context ends.
func Command() *cobra.Command {
	shop := &cobra.Command{
		Use:   "shop",
		Short: "The sample shop: five services that find each other, and their shoppers",
		Long: `The sample shop: five small HTTP services that register themselves and call each other
only by name (http://orders/…) through the SDK, and a load generator that plays shoppers.

  shopper -> storefront -> users
                        -> catalog
                        -> orders -> catalog
                                  -> payments`,
		Example: `  nearside shop run  --region us-east --registry http://127.0.0.1:7400
  nearside shop load --region us-east --registry http://127.0.0.1:7400 --duration 30s`,
	}
	shop.AddCommand(runCommand(), loadCommand())
	return shop
}

// homeFlags adds the flags that both verbs have.
func homeFlags(c *cobra.Command, region, zone *string, registry *[]string, tokenFile, snapshotDir, readyFile *string) {
	f := c.Flags()
	f.StringVar(region, "region", "", "region this runs in (required)")
	f.StringVar(zone, "zone", "", "zone within the region")
	f.StringSliceVar(registry, "registry", nil, "base `URL`s of the region's nodes, comma-separated")
	f.StringVar(tokenFile, "token-file", "", "`FILE` with the registry's API token (none with server --dev)")
	f.StringVar(snapshotDir, "snapshot-dir", "", "keep what is known in `DIR`, to start without a registry")
	f.StringVar(readyFile, "ready-file", "", "write `FILE` (JSON with the pid) when ready; removed at the end")
}

func runCommand() *cobra.Command {
	var cfg Config
	var region, zone string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run services of the shop in this process",
		Long: `Run services of the shop in this process. Each has its own listener and its own
registration, <service>-<instance>-<region>. A registry that does not answer is waited for
in the background. SIGTERM drains, deregisters and ends within about a second.`,
		Example: `  nearside shop run --region us-east --zone a --registry http://127.0.0.1:7400
  nearside shop run --region ap-south --registry http://127.0.0.1:7600 \
      --services storefront,catalog,orders,users        # payments is served by other regions
  nearside shop run --region us-east --registry http://127.0.0.1:7400 --port-base 8080
  curl -i 'http://127.0.0.1:8080/quote?user=u-1&items=sku-1:2,sku-7'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg.Region, cfg.Zone = api.Region(region), api.Zone(zone)
			cfg.Logger = logger(c)
			cfg.OnReady = func(r Ready) {
				for _, name := range Services() {
					if s, ok := r.Services[name]; ok {
						_, _ = fmt.Fprintf(c.OutOrStdout(), "%-10s  http://%s  %s\n", name, s.Addr, s.ID)
					}
				}
			}
			return Run(commandContext(c), cfg)
		},
	}
	homeFlags(c, &region, &zone, &cfg.Registry, &cfg.TokenFile, &cfg.SnapshotDir, &cfg.ReadyFile)
	f := c.Flags()
	f.StringSliceVar(&cfg.Services, "services", []string{"all"}, "`NAMES` of services to run: all, or some of storefront,catalog,orders,payments,users")
	f.StringVar(&cfg.Instance, "instance", "a", "`NAME` that tells copies in one region apart")
	f.StringVar(&cfg.Host, "host", "127.0.0.1", "`ADDRESS` to listen on")
	f.IntVar(&cfg.PortBase, "port-base", 0, "`PORT` of storefront; catalog, orders, payments and users follow, each at its own place (0 = free ports)")
	f.StringVar(&cfg.Advertise, "advertise", "", "`HOST` that others call (default: --host)")
	f.DurationVar(&cfg.TTL, "ttl", defaultTTL, "how long a registration outlives its last heartbeat")
	f.StringVar(&cfg.TraceFile, "trace-file", "", "append spans to `FILE` as JSON lines; at 8 MiB it becomes FILE.1")
	return c
}

func loadCommand() *cobra.Command {
	var cfg LoadConfig
	var region, zone string
	c := &cobra.Command{
		Use:   "load",
		Short: "Play shoppers, and report each second",
		Long: `Play shoppers against http://storefront/… through the SDK, at a fixed rate whatever becomes
of the calls: 45 % GET /, 25 % GET /products/…, 20 % GET /quote, 10 % POST /checkout with an
Idempotency-Key. A call that gets no answer within 5 s, or a status of 500 and more, failed.
GETs and keyed POSTs are safe to repeat ("safe" in the report), so all of these are.

Counting begins when each kind of call has succeeded once, or after --warmup. Each second one
line of JSON goes to the report; the last line ("final") has the totals and the longest time
without a success.`,
		Example: `  nearside shop load --region us-east --registry http://127.0.0.1:7400
  nearside shop load --region us-east --registry http://127.0.0.1:7400 --rate 200 --duration 1m --report load.ndjson`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg.Region, cfg.Zone = api.Region(region), api.Zone(zone)
			if c.Flags().Changed("warmup") && cfg.Warmup == 0 {
				cfg.Warmup = -1
			}
			if c.Flags().Changed("rate") && cfg.Rate == 0 {
				return usagef("rate 0 is out of range; use more than 0, to %d calls per second", maxRate)
			}
			cfg.Out, cfg.Logger = c.OutOrStdout(), logger(c)
			return Load(commandContext(c), cfg)
		},
	}
	homeFlags(c, &region, &zone, &cfg.Registry, &cfg.TokenFile, &cfg.SnapshotDir, &cfg.ReadyFile)
	f := c.Flags()
	f.Float64Var(&cfg.Rate, "rate", defaultRate, "calls per second")
	f.DurationVar(&cfg.Duration, "duration", 0, "how long to count (0 = until interrupted)")
	f.DurationVar(&cfg.Warmup, "warmup", defaultWarmup, "longest time before counting begins")
	f.Uint64Var(&cfg.Seed, "seed", 0, "seed of the shoppers' choices (0 = any; the report tells it)")
	f.StringVar(&cfg.Report, "report", "-", "`FILE` to append the report to (- = standard output)")
	return c
}

func logger(c *cobra.Command) *slog.Logger {
	return slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
}

// commandContext returns the command's context; there is none when Execute was called
// without.
func commandContext(c *cobra.Command) context.Context {
	if ctx := c.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}
