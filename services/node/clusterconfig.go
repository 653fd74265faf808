package node

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/nearside/nearside/region/store/etcdcluster"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/services/size"
)

// normalizeCluster reads --cluster and what belongs to it. Every node of a region gets the
// same list.
func (c *Config) normalizeCluster() error {
	if len(c.Cluster) == 0 {
		return nil
	}
	if len(c.EtcdEndpoints) > 0 {
		return usage("keep --cluster for a region whose nodes bring their own etcd, --etcd-endpoints for one that has an etcd elsewhere",
			"--cluster and --etcd-endpoints are both given")
	}
	peers := map[string]string{}
	for _, entry := range c.Cluster {
		node, addr, ok := strings.Cut(entry, "=")
		if !ok || !api.ValidLabel(node) {
			return usage("write it like --cluster us-east-1=10.0.0.1:7403, once for every node", "--cluster: %s is not NODE=HOST:PORT", api.Quote(entry))
		}
		if err := etcdcluster.CheckAddress(addr); err != nil {
			return usage("write it like --cluster "+node+"=10.0.0.1:7403: the address at which the other nodes reach its --etcd-peer-addr", "--cluster %s: %v", node, err)
		}
		for other, at := range peers {
			if other == node {
				return usage("keep one of them", "--cluster: node %s is named twice", node)
			}
			if at == addr {
				return usage("give every node an address of its own", "--cluster: %s and %s have the same address %s", other, node, addr)
			}
		}
		peers[node] = addr
	}
	own, ok := peers[c.Node]
	if !ok {
		return usage("name this node as the list does with --node, or add --cluster "+c.Node+"=HOST:PORT", "--cluster: this node, %s, is not in it", c.Node)
	}
	if n := len(peers); n > etcdcluster.MaxNodes || n%2 == 0 {
		return usage("use 1, 3 or 5: an even number survives no more failures than one less, and more than 5 only make writes slower",
			"--cluster names %d nodes", n)
	}
	_, port, _ := net.SplitHostPort(own)
	if c.EtcdPeerAddr == "" {
		c.EtcdPeerAddr = ":" + port
	}
	listen, err := c.listenAddr("--etcd-peer-addr", c.EtcdPeerAddr)
	if err != nil {
		return err
	}
	host, lp, _ := net.SplitHostPort(listen)
	if lp != port {
		return usage("give both the same port; port 0 is not possible, as the other nodes are told it beforehand",
			"--etcd-peer-addr listens on port %s, and --cluster tells the others port %s for node %s", lp, port, c.Node)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if host != "" && net.ParseIP(host) == nil {
		return usage("use one of this machine, or leave the host out", "--etcd-peer-addr: %s is not an IP address", api.Quote(host))
	}
	c.EtcdPeerAddr = net.JoinHostPort(host, port)
	if c.Dev && !c.DevAllowRemote {
		for node, addr := range peers {
			if h, _, _ := net.SplitHostPort(addr); !isLoopback(h) {
				return usage("use 127.0.0.1, or add --dev-allow-remote when the network is yours alone",
					"--cluster %s=%s: --dev has no TLS, so the nodes of a cluster talk on this machine only", node, addr)
			}
		}
	}
	if !c.Dev && (c.TLSCert == "" || c.TLSKey == "" || c.TLSCA == "") {
		return usage("add --tls-cert, --tls-key and --tls-ca, or try things out with --dev",
			"--cluster: the nodes of a cluster prove to each other who they are by certificates, and none is given")
	}
	c.peers = peers
	return nil
}

// cluster returns the cluster that this node is one of; nil when it is alone.
func (c *Config) cluster() *etcdcluster.Config {
	if len(c.peers) == 0 {
		return nil
	}
	out := &etcdcluster.Config{Region: c.Region, Node: c.Node, Peers: c.peers, Listen: c.EtcdPeerAddr}
	if !c.Dev {
		out.TLS = &etcdcluster.TLS{CertFile: c.TLSCert, KeyFile: c.TLSKey, CAFile: c.TLSCA}
	}
	return out
}

// QuotaUsage is what --help says of --store-quota, here and where a store is made for a node to come.
const QuotaUsage = "bound of the store's database, 16MiB to 8GiB, the same on every node of a region"

// CheckQuota refuses what the node's own etcd would.
func CheckQuota(quota size.Bytes) error {
	if quota < etcdnode.MinQuota || quota > etcdnode.MaxQuota {
		return usage(fmt.Sprintf("use %s to %s", size.Bytes(etcdnode.MinQuota), size.Bytes(etcdnode.MaxQuota)), "--store-quota: %s is out of range", quota)
	}
	return nil
}

// normalizeExternal reads --store-quota, and --etcd-endpoints and what belongs to it.
func (c *Config) normalizeExternal() error {
	if c.StoreQuota == 0 {
		c.StoreQuota = etcdnode.DefaultQuota
	}
	if err := CheckQuota(c.StoreQuota); err != nil {
		return err
	}
	if len(c.EtcdEndpoints) == 0 {
		if c.EtcdCA != "" || c.EtcdCert != "" || c.EtcdKey != "" {
			return usage("add --etcd-endpoints, or drop them", "--etcd-ca, --etcd-cert and --etcd-key are for an external etcd, and none is given")
		}
		return nil
	}
	if c.StoreQuota != etcdnode.DefaultQuota {
		return usage("drop it, and give that etcd its --quota-backend-bytes", "--store-quota is for the node's own etcd, and --etcd-endpoints names another")
	}
	if (c.EtcdCert == "") != (c.EtcdKey == "") {
		return usage("give both", "--etcd-cert and --etcd-key belong together")
	}
	secure := 0
	for i, raw := range c.EtcdEndpoints {
		u, err := url.Parse(raw)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Path != "" && u.Path != "/" {
			return usage("write it like --etcd-endpoints https://10.0.0.1:2379,https://10.0.0.2:2379", "--etcd-endpoints: %s is not a base URL", api.Quote(raw))
		}
		if n, err := strconv.Atoi(u.Port()); err != nil || n < 1 || n > 65535 {
			return usage("etcd's own is 2379", "--etcd-endpoints: %s has no port", api.Quote(raw))
		}
		if slices.Contains(c.EtcdEndpoints[:i], raw) {
			return usage("keep one of them", "--etcd-endpoints: %s is named twice", raw)
		}
		if u.Scheme == "https" {
			secure++
			continue
		}
		if !isLoopback(u.Hostname()) && !(c.Dev && c.DevAllowRemote) {
			return usage("use https, or --dev with --dev-allow-remote when the network is yours alone", "--etcd-endpoints: %s would cross the network without TLS", api.Quote(raw))
		}
	}
	switch {
	case secure > 0 && secure < len(c.EtcdEndpoints):
		return usage("use https for all", "--etcd-endpoints: some are https and some are http")
	case secure == 0 && (c.EtcdCA != "" || c.EtcdCert != ""):
		return usage("use https, or drop them", "--etcd-ca and --etcd-cert mean nothing with http endpoints")
	}
	return nil
}

// etcdTLS is how an external etcd is spoken to; nil for plain text.
func (c *Config) etcdTLS() (*tls.Config, error) {
	if len(c.EtcdEndpoints) == 0 || !strings.HasPrefix(c.EtcdEndpoints[0], "https:") {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12} // what etcd itself offers at least
	if c.EtcdCA != "" {
		pem, err := os.ReadFile(c.EtcdCA)
		if err != nil {
			return nil, usage("check --etcd-ca", "CA of the external etcd: %v", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usage("give a PEM file", "--etcd-ca %s holds no certificate", c.EtcdCA)
		}
	}
	if c.EtcdCert != "" {
		if _, err := tls.LoadX509KeyPair(c.EtcdCert, c.EtcdKey); err != nil {
			return nil, usage("check --etcd-cert and --etcd-key", "certificate for the external etcd: %v", err)
		}
		// Read anew for every connection, so that it may be replaced before it expires.
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(c.EtcdCert, c.EtcdKey)
			return &cert, err
		}
	}
	return out, nil
}
