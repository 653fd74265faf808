package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/nearside/nearside/federation/mesh"
	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/sdk/api"
)

// dataProbe returns the probe of another region's endpoints: does a TCP connection come
// about? Nothing is sent. The addresses are what that region says of its instances, so the
// rules of checks hold: no listener of this node, nothing that only this machine or a cloud's own
// services answer at. The socket's own address is what is looked at, whatever a name resolved to.
func dataProbe(guard check.Guard) mesh.Probe {
	guard.Allow = nil // what this region's checks may reach says nothing of other regions
	return func(ctx context.Context, e api.Endpoint) error {
		d := net.Dialer{
			KeepAlive: -1,
			Control: func(_, address string, _ syscall.RawConn) error {
				ap, err := netip.ParseAddrPort(address)
				if err != nil {
					return fmt.Errorf("%w: %s cannot be read", mesh.ErrNotProbed, api.Quote(address))
				}
				if err := guard.Check(e.Address, ap); err != nil {
					return fmt.Errorf("%w: %w", mesh.ErrNotProbed, err)
				}
				return nil
			},
		}
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(e.Address, strconv.Itoa(e.Port)))
		if err != nil {
			var dns *net.DNSError
			if errors.As(err, &dns) {
				// A resolver that does not answer says nothing of the endpoint.
				return fmt.Errorf("%w: %w", mesh.ErrNotProbed, err)
			}
			return err
		}
		return conn.Close()
	}
}
