package node

import (
	"net"
	"testing"
)

func TestCheckNetworks(t *testing.T) {
	for _, s := range []string{"10.0.0.0", "10.0.0.0/33", "x", "::ffff:10.0.0.0/104"} {
		c := Config{CheckAllowCIDR: []string{"10.0.0.0/8", s}}
		if _, err := c.checkNetworks(); err == nil {
			t.Errorf("%s is taken for a network", s)
		}
	}
}

// P12: what a node listens on is not to be reached through it, and loopback only with
// --dev or by name of the network.
func TestProberOfANode(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	own := l.Addr().(*net.TCPAddr).Port
	for _, tc := range []struct {
		name    string
		cfg     Config
		address string
		port    int
		ok      bool
	}{
		{"elsewhere", Config{}, "10.9.8.7", 80, true},
		{"loopback", Config{}, "127.0.0.1", own + 1, false},
		{"dev: loopback", Config{Dev: true}, "127.0.0.1", own + 1, true},
		{"dev: own port", Config{Dev: true}, "127.0.0.1", own, false},
		{"loopback by network", Config{CheckAllowCIDR: []string{"127.0.0.0/8"}}, "127.0.0.1", own + 1, true},
		{"other networks", Config{CheckAllowCIDR: []string{"10.0.0.0/8"}}, "127.0.0.1", own + 1, false},
		{"not in the networks", Config{CheckAllowCIDR: []string{"10.0.0.0/8"}}, "192.168.1.1", 80, false},
		{"the members' port, on all addresses", clustered(":7403"), "127.0.0.1", 7403, false},
		{"the members' port, on one", clustered("127.0.0.1:7403"), "127.0.0.1", 7403, false},
		{"beside the members' port", clustered(":7403"), "127.0.0.1", own + 1, true},
		{"metadata", Config{Dev: true, CheckAllowCIDR: []string{"0.0.0.0/0"}}, "169.254.169.254", 80, false},
	} {
		p, err := tc.cfg.prober(l, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Admit(tc.address, tc.port); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// clustered is the configuration of a node whose etcd listens for others.
func clustered(peerAddr string) Config {
	return Config{Dev: true, EtcdPeerAddr: peerAddr, peers: map[string]string{"n1": "10.0.0.1:7403"}}
}
