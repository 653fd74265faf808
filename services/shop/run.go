package shop

import (
	"context"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/readyfile"
)

const defaultTTL = 5 * time.Second

// Config says which services Run hosts, and where.
type Config struct {
	Region   api.Region
	Zone     api.Zone
	Registry []string // base URLs of nodes of Region
	Services []string // names, or "all"; empty = all
	// Instance tells copies of the shop in one region apart; "" = "a". A service's id is
	// <service>-<instance>-<region>.
	Instance string
	Host     string // to listen on; "" = 127.0.0.1
	// PortBase is the port of storefront; the others follow in the order of Services,
	// whether or not all of them run here. 0 = free ports.
	PortBase int
	// Advertise is the host that others use; "" = Host, or the machine's name when Host
	// means all addresses.
	Advertise   string
	TTL         time.Duration // of the registrations; 0 = 5 s
	TokenFile   string        // with the API token of the registry; "" = none
	SnapshotDir string        // "" = no snapshots
	ReadyFile   string        // "" = none
	TraceFile   string        // "" = spans are not recorded
	Logger      *slog.Logger  // nil = none
	// OnReady, if set, is called once, with what the ready file says.
	OnReady func(Ready)
}

// Ready is the content of the ready file.
type Ready struct {
	PID      int                     `json:"pid"`
	Services map[string]ReadyService `json:"services"`
}

// ReadyService is one service of a Ready.
type ReadyService struct {
	Addr string `json:"addr"` // host:port that it registered
	ID   string `json:"id"`   // of the instance
}

// Run hosts the services until ctx ends, then drains, deregisters and returns nil within
// about a second. It returns early with an error when the settings cannot be, a port is
// taken, or a registry refuses a registration for good; a registry that does not answer
// is no error.
func Run(ctx context.Context, cfg Config) error { return run(ctx, cfg, dialRegion) }

func run(ctx context.Context, cfg Config, dial dialer) error {
	cfg, err := cfg.normalize()
	if err != nil {
		return err
	}
	if err := readyfile.Remove(cfg.ReadyFile); err != nil {
		return err
	}
	traces, err := newTracing(cfg.TraceFile, cfg.Logger)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &process{cfg: cfg, traces: traces, failed: make(chan error, 2*len(cfg.Services))}
	defer p.close()
	defer cancel() // first: registrations under way end with it
	// Ports first: a taken one should end the program before it says anything to anybody.
	if err := p.listen(ctx, dial); err != nil {
		return err
	}
	p.serve()
	p.register(ctx)
	if err := p.announce(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-p.failed:
		return err
	}
}

func (c Config) normalize() (Config, error) {
	if err := checkHome(c.Region, c.Zone, c.Registry, c.SnapshotDir); err != nil {
		return c, err
	}
	if c.Instance == "" {
		c.Instance = "a"
	}
	if !api.ValidInstanceID(c.id(Storefront)) {
		return c, usagef("instance %s is not a valid name; use letters, digits and '-'", api.Quote(c.Instance))
	}
	services, err := parseServices(c.Services)
	if err != nil {
		return c, err
	}
	c.Services = services
	if last := c.PortBase + len(Services()) - 1; c.PortBase < 0 || last > 65535 {
		return c, usagef("port base %d is out of range; use 1 to %d, or 0 for free ports", c.PortBase, 65535-len(Services())+1)
	}
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	if c.Advertise == "" {
		c.Advertise = c.Host
		if ip := net.ParseIP(c.Host); ip != nil && ip.IsUnspecified() {
			if c.Advertise, err = os.Hostname(); err != nil {
				return c, usagef("%s means all addresses; say which one others use: --advertise HOST", c.Host)
			}
		}
	}
	if c.TTL == 0 {
		c.TTL = defaultTTL
	}
	if c.TTL < api.MinTTL || c.TTL > api.MaxTTL {
		return c, usagef("ttl %s is out of range; use %s to %s", c.TTL, api.MinTTL, api.MaxTTL)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func (c Config) id(service string) string {
	return service + "-" + c.Instance + "-" + string(c.Region)
}
