package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Guard says which addresses checks may reach. Whoever may register an instance chooses
// what this node connects to, so it is asked about every address just before connecting.
type Guard struct {
	// AllowLoopback lets instances that are registered at a loopback address be checked
	// there: on a machine of one's own, no name or route leads there by accident.
	AllowLoopback bool
	// Allow, when not empty, is all that may be reached. It lifts no other rule.
	Allow []netip.Prefix
	// Own are listeners of this node, which no check may reach. An unspecified address
	// stands for every local one.
	Own []netip.AddrPort
	// Local are this machine's addresses, for Own.
	Local []netip.Addr
}

// Refusal is the reason why an address may not be reached.
type Refusal struct {
	Addr netip.Addr
	Why  string
}

// Error returns the sentence.
func (r *Refusal) Error() string { return fmt.Sprintf("checks may not reach %s: %s", r.Addr, r.Why) }

// metadata services of clouds outside of the link-local range; they hand out credentials.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
}

var (
	limitedBroadcast = netip.MustParseAddr("255.255.255.255")
	thisNetwork      = netip.MustParsePrefix("0.0.0.0/8")
	// IPv6 forms that a router or a stack turns into the IPv4 address within.
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	compatible = netip.MustParsePrefix("::/96")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	teredo     = netip.MustParsePrefix("2001::/32")
	// localNAT64 is for translators of one's own (RFC 8215), which take 48 to 96 bits of it.
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
)

// IsLoopbackName reports whether an instance's address is a loopback one as written: an IP
// literal of 127.0.0.0/8 or ::1, or localhost. A name that only resolves to one is not.
func IsLoopbackName(address string) bool {
	if ip, err := netip.ParseAddr(address); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(address, "."), "localhost")
}

// Check returns a *Refusal unless a connection to ap, for an instance registered at
// address, is allowed.
func (g *Guard) Check(address string, ap netip.AddrPort) error {
	ip := ap.Addr().Unmap()
	refuse := func(why string) error { return &Refusal{Addr: ap.Addr(), Why: why} }
	if literal, err := netip.ParseAddr(address); err == nil && literal.Unmap() != ip {
		return refuse("it is not the instance's address")
	}
	if ip.Zone() != "" {
		return refuse("it has a zone")
	}
	for _, a := range append(embedded(ip), ip) {
		if why := g.never(address, a); why != "" {
			return refuse(why)
		}
	}
	if len(g.Allow) > 0 && !slices.ContainsFunc(g.Allow, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return refuse("it is in none of the networks that this node may check")
	}
	for _, own := range g.Own {
		if own.Port() == ap.Port() && g.mine(own.Addr().Unmap(), ip) {
			return refuse("this node listens there")
		}
	}
	return nil
}

// never returns why ip may not be reached by anyone, "" when it may.
func (g *Guard) never(address string, ip netip.Addr) string {
	switch {
	case !ip.IsValid(), ip.IsUnspecified(), thisNetwork.Contains(ip):
		return "nobody can be there"
	case ip.IsMulticast(), ip == limitedBroadcast:
		return "it is not the address of one machine"
	case ip.IsLinkLocalUnicast():
		return "it is link-local"
	case slices.Contains(metadata, ip):
		return "it is a cloud's metadata service"
	case ip.IsLoopback() && !g.AllowLoopback:
		return "it is a loopback address, so it would be this machine"
	case ip.IsLoopback() && !IsLoopbackName(address):
		return "the instance's name leads to this machine's loopback"
	}
	return ""
}

// mine reports whether a connection to ip reaches the listener at own.
func (g *Guard) mine(own, ip netip.Addr) bool {
	if !own.IsUnspecified() {
		return own == ip
	}
	return ip.IsLoopback() || slices.ContainsFunc(g.Local, func(l netip.Addr) bool { return l.Unmap() == ip })
}

// embedded returns the IPv4 addresses that an IPv6 one stands for, or may stand for, on some routes.
func embedded(ip netip.Addr) []netip.Addr {
	if !ip.Is6() {
		return nil
	}
	b := ip.As16()
	switch {
	case nat64.Contains(ip), compatible.Contains(ip) && !ip.IsLoopback() && !ip.IsUnspecified():
		return []netip.Addr{netip.AddrFrom4([4]byte(b[12:16]))}
	case sixToFour.Contains(ip):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	case teredo.Contains(ip): // by way of a server, to a client that is written upside down
		return []netip.Addr{netip.AddrFrom4([4]byte(b[4:8])), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	case localNAT64.Contains(ip):
		return translated(b)
	}
	return nil
}

// translated returns what the translators of RFC 6052 would read from an address, with prefixes of 48,
// 56, 64 and 96 bits. Which one there is nobody here knows; what begins with 0 is no address.
func translated(b [16]byte) (out []netip.Addr) {
	for _, v4 := range [][4]byte{{b[6], b[7], b[9], b[10]}, {b[7], b[9], b[10], b[11]}, [4]byte(b[9:13]), [4]byte(b[12:16])} {
		if v4[0] != 0 {
			out = append(out, netip.AddrFrom4(v4))
		}
	}
	return out
}
