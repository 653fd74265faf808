package etcdcluster

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"

	"github.com/nearside/nearside/sdk/api"
)

// MaxNodes is the most members a cluster has: with more, every write waits for more disks and
// nothing is won.
const MaxNodes = 5

// Config is the cluster as a node is told of it. It holds no secrets and survives JSON.
type Config struct {
	Region api.Region `json:"region"` // required
	Node   string     `json:"node"`   // this one; one of Peers
	// Peers are all nodes, this one too, by name: HOST:PORT at which the others reach the
	// member. 1, 3 or 5. They say where to look at the first start; afterwards the members'
	// own list counts, and these only have to name one that is still there.
	Peers map[string]string `json:"peers"`
	// Listen is HOST:PORT to listen on for the others; an empty host means all addresses.
	Listen string `json:"listen"`
	// TLS is what members prove themselves with; nil means plain text: whoever reaches Listen
	// may then change every record.
	TLS *TLS `json:"tls,omitempty"`
}

// TLS names PEM files. Certificate and key are read again for every connection, so they may be
// replaced; the CA's is read when the member's process starts.
type TLS struct {
	CertFile string `json:"cert_file"` // names REGION.region.nearside.internal; for both directions
	KeyFile  string `json:"key_file"`
	CAFile   string `json:"ca_file"` // whose certificates the other members show
}

// RegionSuffix makes a region's name a DNS name that a certificate can carry.
const RegionSuffix = ".region.nearside.internal"

// Validate tells what cannot work.
func (c Config) Validate() error {
	if err := api.CheckRegion(string(c.Region)); err != nil {
		return err
	}
	if n := len(c.Peers); n < 1 || n > MaxNodes || n%2 == 0 {
		return fmt.Errorf("a cluster of %d nodes: choose 1, 3 or 5; an even number survives no more failures than one node less", n)
	}
	own, ok := c.Peers[c.Node]
	if !ok {
		return fmt.Errorf("node %s is not among the cluster's nodes %s", api.Quote(c.Node), strings.Join(c.Names(), ", "))
	}
	owner := map[string]string{}
	for _, name := range c.Names() {
		addr := c.Peers[name]
		if err := CheckAddress(addr); err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
		if other, taken := owner[addr]; taken {
			return fmt.Errorf("nodes %s and %s have the same address %s", other, name, addr)
		}
		owner[addr] = name
	}
	_, listen, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("peer address to listen on: %s is not HOST:PORT", api.Quote(c.Listen))
	}
	if _, port, _ := net.SplitHostPort(own); port != listen {
		return fmt.Errorf("the others are told port %s for node %s, and it would listen on port %s", port, c.Node, listen)
	}
	return nil
}

// CheckAddress tells whether a is HOST:PORT with a port that others can dial.
func CheckAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" {
		return fmt.Errorf("%s is not HOST:PORT", api.Quote(a))
	}
	if strings.ContainsAny(host, "/ @?#*,%[]") {
		return fmt.Errorf("%s is not a host name or an IP address", api.Quote(host))
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%s is every address of a machine and none that others could dial", host)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %s is not one of 1 to 65535", api.Quote(port))
	}
	return nil
}

// Names returns the nodes' names, sorted.
func (c Config) Names() []string { return slices.Sorted(maps.Keys(c.Peers)) }

// Own returns this node's peer URL.
func (c Config) Own() string { return c.URL(c.Peers[c.Node]) }

// URL returns the peer URL of HOST:PORT.
func (c Config) URL(address string) string {
	if c.TLS == nil {
		return "http://" + address
	}
	return "https://" + address
}

// Identity is the DNS name that every member's certificate must carry.
func (c Config) Identity() string { return string(c.Region) + RegionSuffix }

// TLSInfo is how members prove themselves to each other, both as clients and as servers: by a
// certificate of the CA that names the region, whatever address it comes from. So neither a
// certificate of another region nor one of an API client will do, and no DNS is believed.
func (c Config) TLSInfo() transport.TLSInfo {
	if c.TLS == nil {
		return transport.TLSInfo{}
	}
	return transport.TLSInfo{
		CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, TrustedCAFile: c.TLS.CAFile,
		ClientCertAuth: true, AllowedHostnames: []string{c.Identity()}, ServerName: c.Identity(),
		SkipClientSANVerify: true, // would ask DNS whether the client's names are its address
		MinVersion:          tls.VersionTLS13,
	}
}

// errPlain is what a plain-text listener looks like to a TLS client, in words that help.
var errPlain = errors.New("it answers without TLS")
