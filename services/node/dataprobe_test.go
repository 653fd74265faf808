package node

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/mesh"
	"github.com/nearside/nearside/sdk/api"
)

// P12: a probe of another region's endpoint connects where something listens, fails where
// nothing does, and says nothing about addresses that this node must not call on somebody
// else's word: its own listeners, this machine outside of development, and what only clouds answer at.
func TestDataProbe(t *testing.T) {
	listen := func() (net.Listener, int) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l, l.Addr().(*net.TCPAddr).Port
	}
	own, ownPort := listen()
	_, otherPort := listen()
	gone, gonePort := listen()
	gone.Close()
	dev := Config{Dev: true, CheckAllowCIDR: []string{"10.9.9.0/24"}} // of checks; other regions are elsewhere
	strict := Config{}
	const ok, failed, notProbed = "ok", "failed", "not probed"
	for _, c := range []struct {
		name    string
		cfg     Config
		address string
		port    int
		want    string
	}{
		{"an endpoint", dev, "127.0.0.1", otherPort, ok},
		{"a name", dev, "localhost", otherPort, ok},
		{"nobody listens", dev, "127.0.0.1", gonePort, failed},
		{"an own listener", dev, "127.0.0.1", ownPort, notProbed},
		{"an own listener by another name", dev, "localhost", ownPort, notProbed},
		{"this machine, not in development", strict, "127.0.0.1", otherPort, notProbed},
		{"a cloud's metadata", dev, "169.254.169.254", 80, notProbed},
		{"nobody in particular", dev, "0.0.0.0", otherPort, notProbed},
		{"a name that is not known", dev, "no-such-host.invalid", otherPort, notProbed},
	} {
		g, err := c.cfg.guard(own)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err = dataProbe(g)(ctx, api.Endpoint{Address: c.address, Port: c.port})
		cancel()
		got := failed
		switch {
		case err == nil:
			got = ok
		case errors.Is(err, mesh.ErrNotProbed):
			got = notProbed
		}
		if got != c.want {
			t.Errorf("%s: %s (%v), want %s", c.name, got, err, c.want)
		}
	}
}
