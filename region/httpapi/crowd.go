package httpapi

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/nearside/nearside/sdk/api"
)

// clientShare is the part of a node's watches that one client may hold: one that opens streams without
// end, by mistake or not, must leave some to the others.
const clientShare = 4

// crowd counts the open streams of each client, by its address.
type crowd struct {
	most   func() int // of one client; 0 = no bound
	exempt bool       // loopback is: there everybody has the same address
	mu     sync.Mutex
	open   map[netip.Addr]int
}

// newCrowd asks for the watches of the node when the first is opened.
func newCrowd(watches func() int, dev bool) *crowd {
	return &crowd{
		most:   sync.OnceValue(func() int { return (watches() + clientShare - 1) / clientShare }),
		exempt: dev, open: map[netip.Addr]int{},
	}
}

// enter counts one more stream of a client, until leave is called.
func (c *crowd) enter(remote string) (leave func(), err error) {
	who, ok := clientOf(remote)
	most := c.most()
	if !ok || most == 0 || c.exempt && who.IsLoopback() {
		return func() {}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[who] >= most {
		return nil, &api.Error{
			Code: api.CodeTooManyRequests, Detail: fmt.Sprintf("%s has %d watches here already, as many as one client may", who, most),
			Remedy: "close some, watch several services in one, or ask another node",
		}
	}
	c.open[who]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.open[who]--; c.open[who] == 0 {
			delete(c.open, who)
		}
	}, nil
}

// clientOf returns whose address it is: with IPv6 everybody has a whole network of them.
func clientOf(remote string) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}, false
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is6() && !addr.IsLoopback() {
		if net, err := addr.Prefix(64); err == nil {
			addr = net.Addr()
		}
	}
	return addr, true
}
