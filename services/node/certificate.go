package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/nearside/nearside/sdk/api"
)

const (
	// certificateLook is how often the files of --tls-cert, --tls-key and --tls-ca are read.
	certificateLook = 10 * time.Second
	// certificateWarning is how long before its end a certificate is spoken of in /readyz.
	certificateWarning = 14 * 24 * time.Hour
)

// credentials are the node's certificate, its key and the federation's CA, as the files last
// were when they could be used. New handshakes use them; connections that are open go on. Its
// methods are safe for concurrent use.
type credentials struct {
	cfg      Config
	now      atomic.Pointer[material]
	refused  atomic.Pointer[refusedFiles] // what the files hold now and cannot be used; nil = they are in use
	reloads  atomic.Int64
	failures atomic.Int64
}

// material is what was in the files at one time. It does not change.
type material struct {
	sum  [sha256.Size]byte
	cert *tls.Certificate
	pool *x509.CertPool // nil without --tls-ca
}

type refusedFiles struct {
	sum   [sha256.Size]byte
	cause string
}

// newCredentials reads the files for the first time: what is wrong with them is a UsageError.
func newCredentials(cfg Config) (*credentials, error) {
	c := &credentials{cfg: cfg}
	m, _, err := c.read()
	if err != nil {
		return nil, err
	}
	c.now.Store(m)
	return c, nil
}

// read reads the files, and says what is wrong with them. The sum is that of what they hold,
// usable or not.
func (c *credentials) read() (*material, [sha256.Size]byte, error) {
	var parts [3][]byte
	var sum [sha256.Size]byte
	for i, f := range []struct{ flag, path string }{
		{"--tls-cert", c.cfg.TLSCert}, {"--tls-key", c.cfg.TLSKey}, {"--tls-ca", c.cfg.TLSCA},
	} {
		if f.path == "" {
			continue
		}
		b, err := os.ReadFile(f.path)
		if err != nil {
			return nil, sum, usage("check "+f.flag, "certificate: %v", err)
		}
		parts[i] = b
	}
	sum = sha256.Sum256(bytes.Join(parts[:], []byte{0}))
	m := &material{sum: sum}
	cert, err := tls.X509KeyPair(parts[0], parts[1])
	if err != nil {
		return nil, sum, usage("check --tls-cert and --tls-key", "certificate: %v", err)
	}
	m.cert = &cert
	if c.cfg.Federated() || c.cfg.several() || len(c.cfg.FederationURLs) > 0 {
		if own, err := regionOf(cert.Leaf); err != nil || own != c.cfg.Region {
			return nil, sum, usage(fmt.Sprintf("use one issued for the DNS name %s%s", c.cfg.Region, regionSuffix),
				"--tls-cert %s does not say that this is region %s, so no peer would believe it", c.cfg.TLSCert, c.cfg.Region)
		}
	}
	if c.cfg.TLSCA != "" {
		m.pool = x509.NewCertPool()
		if !m.pool.AppendCertsFromPEM(parts[2]) {
			return nil, sum, usage("give a PEM file", "CA %s holds no certificate", c.cfg.TLSCA)
		}
	}
	return m, sum, nil
}

// run looks at the files until ctx ends.
func (c *credentials) run(ctx context.Context, every time.Duration, log *slog.Logger) {
	look := time.NewTicker(every)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			c.reload(log)
		}
	}
}

// reload takes the files over when they changed and can be used. Otherwise what is in use
// stays: a certificate that is still good is worth more than a file that is not.
func (c *credentials) reload(log *slog.Logger) {
	m, sum, err := c.read()
	if err != nil {
		c.failures.Add(1)
		if was := c.refused.Load(); was == nil || was.sum != sum || was.cause != err.Error() {
			c.refused.Store(&refusedFiles{sum, err.Error()})
			log.Error("the certificate files cannot be used: those from before stay in use", "cause", err)
		}
		return
	}
	c.refused.Store(nil)
	if m.sum == c.now.Load().sum {
		return
	}
	c.now.Store(m)
	c.reloads.Add(1)
	log.Info("certificate files taken over", "cert", c.cfg.TLSCert, "not_after", m.cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
}

// server returns the configuration of a listener that asks its clients for nothing.
func (c *credentials) server(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load().cert, nil },
	}
}

// mutual returns the configuration of a listener whose clients show a certificate of the CA.
func (c *credentials) mutual() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := c.now.Load()
			own := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*m.cert}}
			if m.pool != nil {
				own.ClientCAs, own.ClientAuth = m.pool, tls.RequireAndVerifyClientCert
			}
			return own, nil
		},
	}
}

// dial connects to a peer.
func (c *credentials) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	m := c.now.Load()
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second},
		Config:    &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*m.cert}, RootCAs: m.pool},
	}
	return d.DialContext(ctx, network, addr)
}

// condition is what /readyz says of the certificate at a time.
func (c *credentials) condition(now time.Time) api.ReadinessCheck {
	end := c.now.Load().cert.Leaf.NotAfter
	out := api.ReadinessCheck{Name: "certificate", OK: true}
	switch left := end.Sub(now); {
	case left <= 0:
		out.OK = false
		out.Cause = fmt.Sprintf("the certificate %s ended at %s; put a new one in its place", c.cfg.TLSCert, end.UTC().Format(time.RFC3339))
	case left < certificateWarning:
		out.Cause = fmt.Sprintf("the certificate %s ends in %d days, at %s; put a new one in its place",
			c.cfg.TLSCert, int(left.Hours()/24), end.UTC().Format(time.RFC3339))
	}
	if was := c.refused.Load(); was != nil {
		if out.Cause != "" {
			out.Cause += "; "
		}
		out.Cause += "its files changed and cannot be used, what they held before stays in use: " + was.cause
	}
	return out
}

// observe publishes when the certificate ends and how often its files were read anew.
func (c *credentials) observe(provider metric.MeterProvider) (stop func(), err error) {
	m := provider.Meter("github.com/nearside/nearside/services/node")
	left, err := m.Float64ObservableGauge("nearside.tls.certificate.remaining", metric.WithUnit("s"),
		metric.WithDescription("Time until the certificate in use ends; negative when it has."))
	if err != nil {
		return nil, fmt.Errorf("certificate metrics: %w", err)
	}
	reloads, err := m.Int64ObservableCounter("nearside.tls.certificate.reloads", metric.WithUnit("1"),
		metric.WithDescription("Times that changed certificate files were taken over."))
	if err != nil {
		return nil, fmt.Errorf("certificate metrics: %w", err)
	}
	failures, err := m.Int64ObservableCounter("nearside.tls.certificate.failures", metric.WithUnit("1"),
		metric.WithDescription("Times that the certificate files could not be used; those from before stay in use."))
	if err != nil {
		return nil, fmt.Errorf("certificate metrics: %w", err)
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveFloat64(left, time.Until(c.now.Load().cert.Leaf.NotAfter).Seconds())
		o.ObserveInt64(reloads, c.reloads.Load())
		o.ObserveInt64(failures, c.failures.Load())
		return nil
	}, left, reloads, failures)
	if err != nil {
		return nil, fmt.Errorf("certificate metrics: %w", err)
	}
	return func() { _ = reg.Unregister() }, nil
}
