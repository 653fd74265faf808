package nearside

import (
	"crypto/tls"
	"net/http"
	"sync"
	"time"
)

// secure are the transports for services that are called over https. An attempt dials an
// instance's address, but its certificate is for the name by which the service is called.
// There is one for each name, so that a connection that was verified for one is never used
// for another at the same address.
type secure struct {
	cfg *tls.Config // of Config.ServiceTLS; nil = the system's roots

	mu sync.Mutex
	of map[string]*http.Transport
}

// mostSecure bounds the names. Beyond it connections of all of them are made anew.
const mostSecure = maxServices

// named returns the transport for a name.
func (s *secure) named(name string) *http.Transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.of[name]; t != nil {
		return t
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.cfg != nil {
		cfg = s.cfg.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName = name
	}
	t := newBase()
	t.TLSClientConfig = cfg
	t.ForceAttemptHTTP2 = true
	// Calls share a connection: one that is half open would take all of them.
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 2 * time.Second}
	if len(s.of) >= mostSecure {
		s.dropLocked()
	}
	if s.of == nil {
		s.of = map[string]*http.Transport{}
	}
	s.of[name] = t
	return t
}

// close closes the connections that nobody uses.
func (s *secure) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked()
}

func (s *secure) dropLocked() {
	for _, t := range s.of {
		t.CloseIdleConnections()
	}
	s.of = nil
}
