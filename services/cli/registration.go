package cli

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	nearside "github.com/nearside/nearside/sdk"
	"github.com/nearside/nearside/sdk/api"
)

// registration checks the flags before anything runs.
func (s *session) registration(service string, f registerFlags) (nearside.Registration, error) {
	var none nearside.Registration
	if err := checkService(service); err != nil {
		return none, err
	}
	if (f.port == 0) == (f.serviceAddr == "") {
		return none, usagef(s.cmd, "say where the instance is: either --port or --service-addr")
	}
	host, port := "", f.port
	if f.serviceAddr != "" {
		h, p, err := net.SplitHostPort(f.serviceAddr)
		n, errPort := strconv.Atoi(p)
		if err != nil || errPort != nil || h == "" {
			return none, usagef(s.cmd, "--service-addr %q is not HOST:PORT", f.serviceAddr)
		}
		host, port = h, n
	} else {
		h, err := hostTowards(s.client.addrs[0])
		if err != nil {
			return none, &cliError{exit: ExitUsage, detail: err.Error(), remedy: "give --service-addr HOST:PORT", err: err}
		}
		host = h
	}
	metadata := make(map[string]string, len(f.meta))
	for _, m := range f.meta {
		k, v, ok := strings.Cut(m, "=")
		if !ok || k == "" {
			return none, usagef(s.cmd, "--meta %q is not KEY=VALUE", m)
		}
		metadata[k] = v
	}
	id := f.id
	if id == "" {
		id = defaultID(service, port)
	}
	if err := api.CheckInstanceID(id); err != nil {
		return none, err
	}
	weight := f.weight
	if weight < 1 {
		return none, usagef(s.cmd, "--weight %d is not 1 to %d", weight, api.MaxWeight)
	}
	checked, err := api.Registration{
		Address: host, Port: port, Zone: api.Zone(f.zone), Weight: &weight, Capacity: f.capacity,
		Version: f.version, Tags: f.tags, Metadata: metadata, TTL: api.Duration(f.ttl),
	}.Normalize()
	if err != nil {
		return none, err
	}
	return nearside.Registration{
		Service: service, ID: id, Address: checked.Address, Port: checked.Port, Zone: checked.Zone,
		Weight: weight, Capacity: checked.Capacity, Version: checked.Version,
		Tags: checked.Tags, Metadata: checked.Metadata, TTL: f.ttl,
		DrainDelay: -1, // unregister drains itself: the program's end must cut it short
	}, nil
}

// hostTowards returns the address of this host on the way to a base URL. Nothing is sent.
func hostTowards(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	conn, err := net.Dial("udp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return "", fmt.Errorf("this host's address towards %s is not known: %w", u.Host, err)
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok || local.IP == nil || local.IP.IsUnspecified() {
		return "", fmt.Errorf("this host's address towards %s is not known", u.Host)
	}
	return local.IP.String(), nil
}

// defaultID is the same for the same service, host and port.
func defaultID(service string, port int) string {
	host, _ := os.Hostname()
	host = strings.Map(func(r rune) rune {
		if r < 0x80 && api.ValidInstanceID(string(r)+"x") {
			return r
		}
		return '-'
	}, host)
	if host == "" {
		host = "host"
	}
	tail := "-" + strconv.Itoa(port)
	id := service + "-" + host
	return id[:min(len(id), api.MaxInstanceIDLength-len(tail))] + tail
}
