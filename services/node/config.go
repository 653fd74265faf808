// Package node is a region node: its configuration, the wiring of store, registry,
// federation and doors, and their orderly start and end.
//
//	listeners (bound first: a busy port is said before anything starts)
//	  └─ etcd (etcdnode) ── etcdstore ── registry ──┬── httpapi    --http-addr
//	                                     │          │
//	                                   mesh ────────┴── peer door  --federation-addr
//
// The registry and the federation meet only here: the mesh reads the registry as its
// Source, the registry reads the mesh as its Replicas.
package node

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/size"
)

// Config is everything a node is told. Build it with Parse, or by hand and call
// Normalize.
type Config struct {
	Region    api.Region
	Zone      api.Zone
	Node      string // name of this node within the region; default REGION-1
	DataDir   string // default /var/lib/nearside, with Dev ./nearside-data/REGION
	Version   string // of the program, for the ready file and the event log; default the module's
	Roles     []string
	Advertise string // host that others reach this node at

	HTTPAddr, FederationAddr string
	// EtcdPeerAddr is where the node's etcd listens for those of the other nodes of Cluster;
	// default: the port of this node's entry there.
	EtcdPeerAddr string
	// Doors that later versions open; accepted so that one configuration serves both.
	GRPCAddr, DNSAddr, ConsulAddr, EurekaAddr string

	Peers map[api.Region][]string // federation base URLs of other regions

	// RegionURLs are base URLs of the API of this region's nodes, for a federation that runs as a
	// process of its own (Roles has no "region").
	RegionURLs []string
	// FederationURLs are base URLs of such a process, for a node without the role federation.
	FederationURLs []string

	// Cluster names every node of the region, this one too, as NODE=HOST:PORT of its etcd peer
	// address; none = the node is alone, or its store is elsewhere.
	Cluster []string
	peers   map[string]string // Cluster, read

	// StoreQuota bounds the database of the node's own etcd; 0 = 512 MiB.
	StoreQuota size.Bytes

	EtcdEndpoints             []string // base URLs of an external etcd; none = the node brings its own
	EtcdCA, EtcdCert, EtcdKey string   // PEM files for it

	Dev            bool // no TLS, no tokens, loopback only
	DevAllowRemote bool

	TLSCert, TLSKey, TLSCA string
	TokenFile              string
	AllowedHosts           []string

	// NoEffect names the settings that were given and do nothing in this version; Run says
	// so in the log.
	NoEffect []string

	// CheckAllowCIDR are the networks that health checks may reach; none = all but what is
	// never allowed. Loopback needs Dev or a network of its own here.
	CheckAllowCIDR []string

	// TestCompactEvery and TestHistory make history short, for tests of whoever follows it:
	// the store forgets it this often, and that many changes are kept for watches. 0 = as
	// in production. Their flags are hidden.
	TestCompactEvery time.Duration
	TestHistory      int
	// TestMaxWatches is how many watches a node bears, for tests of whoever is refused one; 0 =
	// as in production. Its flag is hidden.
	TestMaxWatches int

	// StopDelay is how long a node that was told to stop goes on serving while it says that it
	// is not ready, so that what sends it newcomers looks elsewhere first; 0 to a minute.
	StopDelay time.Duration

	// certificateLook, set by tests, is how often the certificate files are read; 0 = 10 s.
	certificateLook time.Duration

	// federationOff says why the role federation was left out; "" when it was not.
	federationOff string

	// hangups, when not nil, has the SIGHUPs that the process gets.
	hangups <-chan os.Signal

	ReadyFile string
	LogLevel  string
	LogFormat string
}

// Defaults of the flags.
const (
	DefaultHTTPAddr       = ":7400"
	DefaultGRPCAddr       = ":7401"
	DefaultFederationAddr = ":7402"
	DefaultEtcdPeerAddr   = ":7403"
	DefaultDNSAddr        = ":7453"
	DefaultDataDir        = "/var/lib/nearside"
	DefaultStopDelay      = time.Second // with --dev none
)

// UsageError is a configuration that cannot be run: what is wrong, and the remedy.
type UsageError struct {
	Detail string
	Remedy string
}

// Error returns both sentences.
func (e *UsageError) Error() string {
	if e.Remedy == "" {
		return e.Detail
	}
	return e.Detail + "; " + e.Remedy
}

// ExitCode is the pinned exit code for wrong usage.
func (e *UsageError) ExitCode() int { return 2 }

func usage(remedy, format string, args ...any) error {
	return &UsageError{Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Federated reports whether the node links its region to others.
func (c *Config) Federated() bool { return slices.Contains(c.Roles, "federation") }

// Regional reports whether the node is one of its region's registry; otherwise it is a federation
// that follows them.
func (c *Config) Regional() bool { return slices.Contains(c.Roles, "region") }

// Normalize fills in defaults and refuses what cannot work, with a UsageError.
func (c *Config) Normalize() error {
	if c.Region == "" {
		return usage("name it with --region, such as --region us-east", "no region is given")
	}
	if err := api.CheckRegion(string(c.Region)); err != nil {
		return asUsage("--region", err)
	}
	if err := api.CheckZone(string(c.Zone)); err != nil {
		return asUsage("--zone", err)
	}
	if err := c.normalizeRoles(); err != nil {
		return err
	}
	if c.Node == "" {
		c.Node = string(c.Region) + "-1"
		if !c.Regional() {
			c.Node = string(c.Region) + "-federation"
		}
	}
	if !api.ValidLabel(c.Node) {
		return usage("use 1 to 63 of a-z, 0-9 and '-'", "--node: %s is not a valid name", api.Quote(c.Node))
	}
	if c.DataDir == "" {
		c.DataDir = DefaultDataDir
		if c.Dev {
			c.DataDir = "nearside-data/" + string(c.Region)
			if len(c.Cluster) > 0 {
				c.DataDir += "/" + c.Node // its nodes may share the machine
			}
		}
		if !c.Regional() {
			c.DataDir += "-federation" // beside a node on the same machine
		}
	}
	if c.DevAllowRemote && !c.Dev {
		return usage("add --dev, or drop it", "--dev-allow-remote means nothing without --dev")
	}
	if c.Dev && c.TLSCert != "" {
		return usage("drop one of them", "--dev means no TLS, but --tls-cert is given")
	}
	if err := c.normalizePeers(); err != nil {
		return err
	}
	if err := c.normalizeBeside(); err != nil {
		return err
	}
	if err := c.normalizeNear(); err != nil {
		return err
	}
	if err := c.secureFederation(); err != nil {
		return err
	}
	if err := c.normalizeAddrs(); err != nil {
		return err
	}
	if err := c.normalizeCluster(); err != nil {
		return err
	}
	if err := c.normalizeExternal(); err != nil {
		return err
	}
	if err := c.normalizeNodes(); err != nil {
		return err
	}
	if _, err := c.checkNetworks(); err != nil {
		return err
	}
	if c.TestCompactEvery < 0 || c.TestHistory < 0 || c.TestMaxWatches < 0 || !c.Dev && (c.TestCompactEvery > 0 || c.TestHistory > 0 || c.TestMaxWatches > 0) {
		return usage("leave them out", "--test-compact-every, --test-history and --test-max-watches are for tests, with --dev, and not below 0")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return usage("give both", "--tls-cert and --tls-key belong together")
	}
	if c.TLSCA != "" && c.TLSCert == "" {
		return usage("add --tls-cert and --tls-key", "--tls-ca needs a certificate of this node")
	}
	if c.StopDelay < 0 || c.StopDelay > time.Minute {
		return usage("use 0s to 1m", "--stop-delay: %s is out of range", c.StopDelay)
	}
	switch c.LogFormat {
	case "":
		c.LogFormat = "text"
	case "text", "json":
	default:
		return usage("use text or json", "--log-format: %s is not known", api.Quote(c.LogFormat))
	}
	return c.checkAdvertise()
}

// checkAdvertise refuses what others could not dial, with a port behind it.
func (c *Config) checkAdvertise() error {
	if c.Advertise == "" {
		return nil
	}
	ip, err := netip.ParseAddr(c.Advertise)
	_, _, withPort := net.SplitHostPort(c.Advertise)
	remedy := "give a host name or IP address alone"
	switch {
	case err == nil && ip.IsUnspecified():
		return usage("give the one that others reach this node at", "--advertise: %s is every address, and none that others could dial", c.Advertise)
	case err == nil && ip.Zone() == "":
		return nil
	case withPort == nil:
		remedy = "give the host without a port: the ports are those that the node listens on"
	case strings.HasPrefix(c.Advertise, "["):
		remedy = "write the IP address without brackets"
	case !strings.ContainsAny(c.Advertise, "/ @?#*,:[]%") && !strings.HasPrefix(c.Advertise, "."):
		return nil
	}
	return usage(remedy, "--advertise: %s is not a host", api.Quote(c.Advertise))
}

// secureFederation keeps strangers off the peer port: without --dev a peer must prove its
// region by a certificate. A region on its own needs no federation, so it goes without.
func (c *Config) secureFederation() error {
	if c.Dev || !c.Federated() || c.TLSCert != "" && c.TLSCA != "" {
		return nil
	}
	why := ""
	switch {
	case !c.Regional():
		why = "--roles federation"
	case len(c.Peers) > 0:
		why = "--peer"
	}
	if why != "" {
		return usage("add --tls-cert, --tls-key and --tls-ca, or try things out with --dev; a region on its own needs only --roles region",
			"%s: regions prove to each other who they are by certificates, and none is given", why)
	}
	c.federationOff = "without --tls-cert and --tls-ca no peer could prove who it is"
	if c.TLSCert != "" {
		c.federationOff = "--tls-cert is given, and --tls-ca is not: no peer could prove who it is; add --tls-ca, or say --roles region"
	}
	c.Roles = slices.DeleteFunc(slices.Clone(c.Roles), func(r string) bool { return r == "federation" })
	return nil
}

func (c *Config) normalizeRoles() error {
	if len(c.Roles) == 0 {
		c.Roles = []string{"region", "federation"}
	}
	for _, r := range c.Roles {
		if r != "region" && r != "federation" {
			return usage("use region, or federation, or region,federation", "--roles: %s is not a role", api.Quote(r))
		}
	}
	if !c.Federated() && len(c.Peers) > 0 {
		return usage("add the role federation, or drop --peer", "--peer is given, but --roles leaves the federation out")
	}
	return nil
}

func (c *Config) normalizeAddrs() error {
	for _, a := range []struct {
		flag  string
		value *string
		def   string
		used  bool
	}{
		{"--http-addr", &c.HTTPAddr, DefaultHTTPAddr, true},
		{"--federation-addr", &c.FederationAddr, DefaultFederationAddr, c.Federated()},
	} {
		if *a.value == "" {
			*a.value = a.def
		}
		if !a.used {
			continue
		}
		addr, err := c.listenAddr(a.flag, *a.value)
		if err != nil {
			return err
		}
		*a.value = addr
	}
	for flag, v := range map[string]string{
		"--grpc-addr": c.GRPCAddr, "--dns-addr": c.DNSAddr, "--etcd-peer-addr": c.EtcdPeerAddr,
		"--consul-addr": c.ConsulAddr, "--eureka-addr": c.EurekaAddr,
	} {
		if v == "" {
			continue
		}
		if _, _, err := splitAddr(flag, v); err != nil {
			return err
		}
	}
	if c.Federated() && c.HTTPAddr == c.FederationAddr && !strings.HasSuffix(c.HTTPAddr, ":0") {
		return usage("give them different ports", "--http-addr and --federation-addr are both %s", c.HTTPAddr)
	}
	return nil
}

// listenAddr applies the rule that nothing listens beyond loopback without TLS except by
// an explicit flag. With Dev an address without a host means loopback.
func (c *Config) listenAddr(flag, value string) (string, error) {
	host, port, err := splitAddr(flag, value)
	if err != nil {
		return "", err
	}
	if host == "" && c.Dev && !c.DevAllowRemote {
		host = "127.0.0.1"
	}
	if isLoopback(host) || (c.Dev && c.DevAllowRemote) {
		return net.JoinHostPort(host, port), nil
	}
	if c.Dev {
		return "", usage("listen on 127.0.0.1, or add --dev-allow-remote when the network is yours alone",
			"%s %s: --dev has no TLS and no tokens, so it serves this machine only", flag, value)
	}
	if c.TLSCert == "" {
		return "", usage("add --tls-cert and --tls-key, or listen on 127.0.0.1:"+port+", or try things out with --dev",
			"%s %s would listen beyond this machine without TLS", flag, value)
	}
	return net.JoinHostPort(host, port), nil
}

func splitAddr(flag, value string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(value)
	if err != nil {
		return "", "", usage("write it like :7400 or 127.0.0.1:7400", "%s: %s is not HOST:PORT", flag, api.Quote(value))
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", "", usage("use 0 to 65535; 0 picks a free one", "%s: port %s is out of range", flag, api.Quote(port))
	}
	return host, port, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (c *Config) normalizePeers() error {
	for region, urls := range c.Peers {
		if err := api.CheckRegion(string(region)); err != nil {
			return asUsage("--peer", err)
		}
		if region == c.Region {
			return usage("name another region", "--peer %s: a region is not its own peer", region)
		}
		if len(urls) == 0 {
			return usage("write --peer REGION=URL", "--peer %s has no URL", region)
		}
		for _, raw := range urls {
			u, err := url.Parse(raw)
			if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || (u.Path != "" && u.Path != "/") {
				return usage("write it like --peer eu-west=http://10.0.0.1:7402", "--peer %s: %s is not a base URL", region, api.Quote(raw))
			}
			if u.Scheme == "http" && !c.Dev && !isLoopback(u.Hostname()) {
				return usage("use https", "--peer %s: %s would cross the network without TLS", region, api.Quote(raw))
			}
		}
	}
	return nil
}

// addPeer reads one REGION=URL[,URL].
func (c *Config) addPeer(s string) error {
	region, urls, ok := strings.Cut(s, "=")
	if !ok || region == "" || urls == "" {
		return usage("write it like --peer eu-west=http://10.0.0.1:7402", "--peer: %s is not REGION=URL", api.Quote(s))
	}
	if c.Peers == nil {
		c.Peers = map[api.Region][]string{}
	}
	for u := range strings.SplitSeq(urls, ",") {
		if u = strings.TrimRight(strings.TrimSpace(u), "/"); u != "" {
			c.Peers[api.Region(region)] = append(c.Peers[api.Region(region)], u)
		}
	}
	return nil
}

func asUsage(flag string, err error) error {
	if e, ok := err.(*api.Error); ok {
		return &UsageError{Detail: flag + ": " + e.Detail, Remedy: e.Remedy}
	}
	return &UsageError{Detail: flag + ": " + err.Error()}
}
