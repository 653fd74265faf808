package node

import (
	"net"
	"net/netip"
	"strings"

	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/region/liveness/check/probe"
	"github.com/nearside/nearside/sdk/api"
)

// checkNetworks reads --check-allow-cidr.
func (c *Config) checkNetworks() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range c.CheckAllowCIDR {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return nil, usage("write it like 10.0.0.0/8 or fd00::/8", "--check-allow-cidr: %s is not a network", api.Quote(s))
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// prober makes what runs the health checks of instances. They may not reach the node's
// own listeners: what it tells this machine alone is not for whoever registers.
func (c *Config) prober(listeners ...net.Listener) (*probe.Prober, error) {
	g, err := c.guard(listeners...)
	if err != nil {
		return nil, err
	}
	return probe.New(probe.Config{Guard: g}), nil
}

// guard says what this node may connect to on the word of others.
func (c *Config) guard(listeners ...net.Listener) (check.Guard, error) {
	g := check.Guard{AllowLoopback: c.Dev}
	var err error
	if g.Allow, err = c.checkNetworks(); err != nil {
		return g, err
	}
	for _, p := range g.Allow {
		g.AllowLoopback = g.AllowLoopback || p.Addr().IsLoopback()
	}
	for _, l := range listeners {
		if l == nil {
			continue
		}
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			ap := a.AddrPort()
			g.Own = append(g.Own, netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()))
		}
	}
	if len(c.peers) > 0 {
		addr := c.EtcdPeerAddr
		if strings.HasPrefix(addr, ":") {
			addr = "[::]" + addr // as listeners say it
		}
		ap, err := netip.ParseAddrPort(addr)
		if err != nil {
			return g, err
		}
		g.Own = append(g.Own, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return g, err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				g.Local = append(g.Local, ip.Unmap())
			}
		}
	}
	return g, nil
}
