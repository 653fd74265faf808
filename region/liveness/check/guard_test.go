package check

import (
	"net/netip"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	plain, dev := Guard{}, Guard{AllowLoopback: true}
	nets := Guard{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	own := Guard{
		AllowLoopback: true, Own: []netip.AddrPort{netip.MustParseAddrPort("[::]:7400"), netip.MustParseAddrPort("127.0.0.1:7402")},
		Local: []netip.Addr{netip.MustParseAddr("10.0.0.5")},
	}
	for _, tc := range []struct {
		name    string
		g       Guard
		address string // as registered
		to      string // the socket's
		why     string // "" = allowed
	}{
		{"private", plain, "10.0.0.9", "10.0.0.9:80", ""},
		{"public", plain, "203.0.113.7", "203.0.113.7:80", ""},
		{"public 6", plain, "2001:db8::1", "[2001:db8::1]:80", ""},
		{"unique local 6", plain, "fd12::1", "[fd12::1]:80", ""},
		{"a name", plain, "orders-1.internal", "10.0.0.9:80", ""},
		{"mapped by the stack", plain, "10.0.0.9", "[::ffff:10.0.0.9]:80", ""},
		{"another than its own", plain, "10.0.0.9", "10.0.0.8:80", "not the instance's"},
		{"loopback", plain, "127.0.0.1", "127.0.0.1:80", "loopback"},
		{"loopback net", plain, "127.9.9.9", "127.9.9.9:80", "loopback"},
		{"loopback 6", plain, "::1", "[::1]:80", "loopback"},
		{"mapped loopback", plain, "::ffff:127.0.0.1", "[::ffff:127.0.0.1]:80", "loopback"},
		{"a name to loopback", plain, "evil.example", "127.0.0.1:80", "loopback"},
		{"dev: loopback", dev, "127.0.0.1", "127.0.0.1:80", ""},
		{"dev: loopback 6", dev, "::1", "[::1]:80", ""},
		{"dev: localhost", dev, "localhost", "[::1]:80", ""},
		{"dev: a name to loopback", dev, "evil.example", "127.0.0.1:80", "leads to"},
		{"metadata", dev, "169.254.169.254", "169.254.169.254:80", "link-local"},
		{"mapped metadata", dev, "::ffff:169.254.169.254", "[::ffff:169.254.169.254]:80", "link-local"},
		{"metadata by NAT64", dev, "64:ff9b::a9fe:a9fe", "[64:ff9b::a9fe:a9fe]:80", "link-local"},
		{"metadata by a NAT64 of one's own", dev, "64:ff9b:1::a9fe:a9fe", "[64:ff9b:1::a9fe:a9fe]:80", "link-local"},
		{"the same, of a prefix of 48 bits", dev, "64:ff9b:1:a9fe:a9:fe00::", "[64:ff9b:1:a9fe:a9:fe00::]:80", "link-local"},
		{"of 56 bits", dev, "64:ff9b:1:a9:fe:a9fe::", "[64:ff9b:1:a9:fe:a9fe::]:80", "link-local"},
		{"of 64 bits", dev, "64:ff9b:1:0:a9:fea9:fe00:0", "[64:ff9b:1:0:a9:fea9:fe00:0]:80", "link-local"},
		{"an instance by a NAT64 of one's own", plain, "64:ff9b:1::a01:203", "[64:ff9b:1::a01:203]:80", ""},
		{"metadata by Teredo", dev, "2001:0:a01:203::5601:5601", "[2001:0:a01:203::5601:5601]:80", "link-local"},
		{"a Teredo server that is none", dev, "2001:0:a9fe:a9fe::f5fe:fdfc", "[2001:0:a9fe:a9fe::f5fe:fdfc]:80", "link-local"},
		{"an instance by Teredo", plain, "2001:0:a01:203::f5fe:fdfc", "[2001:0:a01:203::f5fe:fdfc]:80", ""},
		{"metadata by 6to4", dev, "2002:a9fe:a9fe::1", "[2002:a9fe:a9fe::1]:80", "link-local"},
		{"metadata, compatible", dev, "::a9fe:a9fe", "[::a9fe:a9fe]:80", "link-local"},
		{"a name to metadata", dev, "rebind.example", "169.254.169.254:80", "link-local"},
		{"another cloud's", dev, "100.100.100.200", "100.100.100.200:80", "metadata"},
		{"link-local 6", dev, "fe80::1", "[fe80::1]:80", "link-local"},
		{"unspecified", dev, "x.example", "0.0.0.0:80", "nobody"},
		{"unspecified 6", dev, "x.example", "[::]:80", "nobody"},
		{"this network", dev, "x.example", "0.1.2.3:80", "nobody"},
		{"multicast", dev, "x.example", "224.0.0.1:80", "one machine"},
		{"multicast 6", dev, "x.example", "[ff02::1]:80", "one machine"},
		{"broadcast", dev, "x.example", "255.255.255.255:80", "one machine"},
		{"in the networks", nets, "10.1.2.3", "10.1.2.3:80", ""},
		{"in the networks 6", nets, "fd12::1", "[fd12::1]:80", ""},
		{"not in the networks", nets, "192.168.0.1", "192.168.0.1:80", "none of the networks"},
		{"own API", own, "127.0.0.1", "127.0.0.1:7400", "listens"},
		{"own API, elsewhere on loopback", own, "127.0.0.9", "127.0.0.9:7400", "listens"},
		{"own API, by the machine's address", own, "10.0.0.5", "10.0.0.5:7400", "listens"},
		{"own peers", own, "127.0.0.1", "127.0.0.1:7402", "listens"},
		{"another port", own, "127.0.0.1", "127.0.0.1:7401", ""},
		{"the same port elsewhere", own, "10.0.0.6", "10.0.0.6:7400", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.g.Check(tc.address, netip.MustParseAddrPort(tc.to))
			switch {
			case tc.why == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.why != "" && (err == nil || !strings.Contains(err.Error(), tc.why)):
				t.Errorf("%v, want a refusal that says %q", err, tc.why)
			}
		})
	}
}
