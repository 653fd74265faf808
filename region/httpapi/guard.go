package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// guard keeps web pages from using a visitor's browser against the node.
//
// DNS rebinding: a page of evil.example lets its own name point at the node's address, and
// is then of the same origin as the node. Its requests still say "Host: evil.example", so
// only names are allowed that a stranger on the internet cannot own: IP addresses,
// localhost, names without a dot (container and service names), and those configured.
//
// Cross-site requests: a write with an Origin (or Sec-Fetch-Site) of another host is
// refused. Programs that are no browsers send neither header.
type guard struct {
	any      bool
	names    map[string]bool
	suffixes []string // each starts with a dot
	origin   *http.CrossOriginProtection
}

func newGuard(allowed []string) guard {
	g := guard{names: make(map[string]bool), origin: http.NewCrossOriginProtection()}
	for _, a := range allowed {
		if a == "*" {
			g.any = true
			continue
		}
		switch a = hostName(strings.TrimPrefix(a, "*")); {
		case a == "":
		case a[0] == '.':
			g.suffixes = append(g.suffixes, a)
		default:
			g.names[a] = true
		}
	}
	return g
}

// check returns an *api.Error with CodeForbidden for a request that a foreign page may
// have made.
func (g *guard) check(r *http.Request) error {
	if !g.allows(r.Host) {
		return &api.Error{
			Code:   api.CodeForbidden,
			Detail: "this node does not answer to the host name " + api.Quote(r.Host),
			Remedy: "call it by IP address or by its advertised name, or add the name to the node's allowed hosts",
		}
	}
	if g.origin.Check(r) != nil {
		return &api.Error{
			Code:   api.CodeForbidden,
			Detail: "a page of another origin may not write here",
			Remedy: "send the request without an Origin header, from a program of your own",
		}
	}
	return nil
}

func (g *guard) allows(hostport string) bool {
	h := hostName(hostport)
	switch {
	case g.any, h == "", h == "localhost", strings.HasSuffix(h, ".localhost"), g.names[h]:
		return true // without a Host there is no browser
	case !strings.Contains(h, "."):
		// A name without a dot, or an IPv6 address.
		return api.ValidLabel(strings.ReplaceAll(h, "_", "-")) || isAddress(h)
	case isAddress(h):
		return true
	}
	for _, s := range g.suffixes {
		if strings.HasSuffix(h, s) {
			return true
		}
	}
	return false
}

func isAddress(h string) bool {
	_, err := netip.ParseAddr(h)
	return err == nil
}

// hostName returns the lower-case host of "host", "host:port", "[v6]" or "[v6]:port".
func hostName(hostport string) string {
	h, _, err := net.SplitHostPort(hostport)
	if err != nil {
		h = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return strings.ToLower(strings.TrimSuffix(h, "."))
}
