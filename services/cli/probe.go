package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// probe asks a program on this host whether it is ready to be called.
type probe struct {
	kind  string   // "tcp", "http" or "none"
	hosts []string // tried in order; one that answers is enough
	port  int
	path  string // http
}

// The probe's pace: it starts quick, for programs that start quick, and slows down. There
// is no event to wait for: a port says nothing when it opens.
const (
	probeFirst   = 50 * time.Millisecond
	probeSlowest = time.Second
	probeTimeout = time.Second
)

// parseProbe reads the --check flag: tcp, tcp=PORT, http=/PATH, http=:PORT/PATH or none.
// host and port are the instance's own.
func parseProbe(s, host string, port int) (probe, error) {
	p := probe{hosts: []string{"127.0.0.1", "::1"}, port: port}
	if host != "127.0.0.1" && host != "::1" && host != "localhost" {
		p.hosts = append(p.hosts, host)
	}
	kind, rest, has := strings.Cut(s, "=")
	p.kind = kind
	other := ""
	switch {
	case kind == "none" && !has, kind == "tcp" && !has:
	case kind == "tcp":
		other = rest
	case kind == "http" && strings.HasPrefix(rest, "/"):
		p.path = rest
	case kind == "http" && strings.HasPrefix(rest, ":"):
		var path string
		other, path, _ = strings.Cut(rest[1:], "/")
		p.path = "/" + path
	default:
		return p, fmt.Errorf("--check %q is not tcp, tcp=PORT, http=/PATH, http=:PORT/PATH or none", s)
	}
	if other != "" {
		n, err := strconv.Atoi(other)
		if err != nil || n < 1 || n > 65535 {
			return p, fmt.Errorf("--check %q: %q is not a port", s, other)
		}
		p.port = n
	}
	return p, nil
}

func (p probe) String() string {
	if p.kind == "http" {
		return fmt.Sprintf("GET http://127.0.0.1:%d%s to succeed", p.port, p.path)
	}
	return fmt.Sprintf("port %d to accept connections", p.port)
}

// wait returns nil when the probe passes, or ctx's error.
func (p probe) wait(ctx context.Context) error {
	if p.kind == "none" {
		return ctx.Err()
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // no proxy: it is this host
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	pause := probeFirst
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		for _, host := range p.hosts {
			if p.passes(ctx, client, host) {
				return nil
			}
		}
		timer.Reset(pause)
		pause = min(pause*3/2, probeSlowest)
	}
}

func (p probe) passes(ctx context.Context, client *http.Client, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	address := hostPort(host, p.port)
	if p.kind == "tcp" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+p.path, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode >= 200 && resp.StatusCode < 400
}
