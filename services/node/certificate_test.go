package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P12, catalogue row 28: certificate files are taken over while the node runs. Files that
// cannot be used change nothing: the old certificate is served on, which is counted, logged
// once and told by /readyz, until good files are there.
func TestCertificateReload(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("us", "us-east"+regionSuffix)
	cfg := secured(a, "us-east", cert, key, nil)
	cfg.certificateLook = 50 * time.Millisecond
	r := start(t, cfg)
	c := a.client("", "")
	first := served(t, r)

	metric := func(name string) string {
		t.Helper()
		req, err := c.Get(r.ready.HTTP + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer req.Body.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(req.Body)
		for line := range strings.Lines(b.String()) {
			if strings.HasPrefix(line, name) {
				return strings.TrimSpace(line[strings.LastIndexByte(strings.TrimSpace(line), ' '):])
			}
		}
		t.Fatalf("no metric %s", name)
		return ""
	}
	condition := func() api.ReadinessCheck {
		t.Helper()
		var ready api.Readiness
		if _, err := call(c, "GET", r.ready.HTTP+api.PathReadyz, "", "", &ready); err != nil {
			t.Fatal(err)
		}
		for _, check := range ready.Checks {
			if check.Name == "certificate" {
				return check
			}
		}
		t.Fatalf("/readyz says nothing of the certificate: %+v", ready)
		return api.ReadinessCheck{}
	}
	// The test's certificates live for an hour.
	if got := condition(); !got.OK || !strings.Contains(got.Cause, "ends in 0 days") {
		t.Errorf("/readyz: %+v", got)
	}

	for _, bad := range []struct{ name, file, content, says string }{
		{"no PEM", cert, "not a certificate", "failed to find"},
		{"half a file", cert, "-----BEGIN CERTIFICATE-----\nMIIB", "failed to find"},
		{"another key", key, "", "private key"},
		{"another region", cert, "", "does not say that this is region us-east"},
		{"empty CA", a.ca(), "", "holds no certificate"},
	} {
		goodCert, goodKey, goodCA := content(t, cert), content(t, key), content(t, a.ca())
		switch bad.name {
		case "another key":
			_, other := a.issue("other", "us-east"+regionSuffix)
			bad.content = string(content(t, other))
		case "another region":
			c, k := a.issue("mars", "mars"+regionSuffix)
			bad.content = string(content(t, c))
			replace(t, key, content(t, k))
		}
		replace(t, bad.file, []byte(bad.content))
		within(t, 5*time.Second, "/readyz says that "+bad.name+" cannot be used", func() error {
			if got := condition(); !strings.Contains(got.Cause, bad.says) || !got.OK {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		if now := served(t, r); !now.Equal(first) {
			t.Errorf("%s: the certificate served changed", bad.name)
		}
		replace(t, cert, goodCert)
		replace(t, key, goodKey)
		replace(t, a.ca(), goodCA)
		within(t, 5*time.Second, "the good files are in use", func() error {
			if got := condition(); strings.Contains(got.Cause, "cannot be used") {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
	}
	if metric("nearside_tls_certificate_failures") == "0" {
		t.Error("failures are not counted")
	}
	if n := strings.Count(r.logs.String(), "certificate files cannot be used"); n < 5 || n > 15 {
		t.Errorf("%d lines in the log for five bad files", n)
	}
	newCert, newKey := a.issue("us", "us-east"+regionSuffix) // the same files
	if newCert != cert || newKey != key {
		t.Fatal("the files have other names")
	}
	within(t, 5*time.Second, "the new certificate is served", func() error {
		if served(t, r).Equal(first) {
			return fmt.Errorf("still the old one")
		}
		return nil
	})
	if got := metric("nearside_tls_certificate_reloads"); got == "0" {
		t.Errorf("reloads: %s", got)
	}
}

// Peers go on to believe each other over a change of the certificates and of the CA, and who
// shows one of the old CA is refused from then on.
func TestCertificateReloadOfTheFederation(t *testing.T) {
	a := newAuthority(t)
	usCert, usKey := a.issue("us", "us-east"+regionSuffix)
	euCert, euKey := a.issue("eu", "eu-west"+regionSuffix)
	us := secured(a, "us-east", usCert, usKey, nil)
	us.certificateLook = 50 * time.Millisecond
	r := start(t, us)
	dial := func(cert, key string) error {
		c := a.client(cert, key)
		resp, err := c.Get("https://" + r.ready.FederationAddr + "/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := dial(euCert, euKey); err != nil {
		t.Fatalf("before: %v", err)
	}
	b := newAuthority(t) // the new CA
	bUS, bUSKey := b.issue("us", "us-east"+regionSuffix)
	bEU, bEUKey := b.issue("eu", "eu-west"+regionSuffix)
	replace(t, usCert, content(t, bUS))
	replace(t, usKey, content(t, bUSKey))
	replace(t, a.ca(), content(t, b.ca()))
	a.cert = b.cert // what the client trusts
	within(t, 5*time.Second, "a peer of the new CA is believed", func() error { return dial(bEU, bEUKey) })
	if err := dial(euCert, euKey); err == nil {
		t.Error("P12: a certificate of the CA from before is still believed")
	}
}

// The end of a certificate is told two weeks before, and makes a node unready when it is there.
func TestCertificateEnd(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("us", "us-east"+regionSuffix)
	c, err := newCredentials(Config{Region: "us-east", TLSCert: cert, TLSKey: key})
	if err != nil {
		t.Fatal(err)
	}
	end := c.now.Load().cert.Leaf.NotAfter
	for _, tt := range []struct {
		before time.Duration
		ok     bool
		says   string
	}{
		{15 * 24 * time.Hour, true, ""},
		{13*24*time.Hour + time.Hour, true, "ends in 13 days"},
		{time.Minute, true, "ends in 0 days"},
		{-time.Minute, false, "ended at"},
	} {
		got := c.condition(end.Add(-tt.before))
		if got.OK != tt.ok || !strings.Contains(got.Cause, tt.says) || (tt.says == "") != (got.Cause == "") {
			t.Errorf("%s before its end: %+v", tt.before, got)
		}
	}
}

// The ready file means what /readyz means: a node that has loaded, and is not ready for another
// reason, has none until that is mended.
func TestReadyFileMeansReady(t *testing.T) {
	a := newAuthority(t)
	a.notAfter = time.Now().Add(-time.Minute)
	cert, key := a.issue("ended")
	a.notAfter = time.Time{}
	good, goodKey := a.issue("good")
	cfg := Config{
		Region: "us-east", Roles: []string{"region"}, HTTPAddr: "127.0.0.1:0", DataDir: t.TempDir(), TLSCert: cert, TLSKey: key,
		ReadyFile: filepath.Join(t.TempDir(), "ready.json"), LogLevel: "info", certificateLook: 20 * time.Millisecond,
	}
	if err := cfg.Normalize(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	logs, done := &logs{}, make(chan error, 1)
	go func() { done <- Run(ctx, cfg, logs) }()
	defer func() { cancel(); <-done }()
	within(t, 20*time.Second, "the node has loaded and says why it is not ready", func() error {
		if s := logs.String(); !strings.Contains(s, "not ready yet") || !strings.Contains(s, "certificate: ") {
			return errors.New(s)
		}
		return nil
	})
	if _, err := os.Stat(cfg.ReadyFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the ready file of a node that is not ready: %v", err)
	}
	replace(t, key, content(t, goodKey))
	replace(t, cert, content(t, good))
	within(t, 20*time.Second, "the ready file", func() error { _, err := os.Stat(cfg.ReadyFile); return err })
}

// P12: whoever is to be believed by other nodes must show a certificate of the region, and that is told
// at the start: nodes on an external etcd call each other too, also without the federation.
func TestCertificateMustNameTheRegion(t *testing.T) {
	a := newAuthority(t)
	plain, plainKey := a.issue("api", "registry.example.com")
	other, otherKey := a.issue("other", "eu-west"+regionSuffix)
	for what, tt := range map[string]struct {
		change func(*Config)
		needed bool
	}{
		"alone":         {func(c *Config) {}, false},
		"federated":     {func(c *Config) { c.Roles = append(c.Roles, "federation") }, true},
		"in a cluster":  {func(c *Config) { c.peers = map[string]string{"n1": "10.0.0.1:1"} }, true},
		"external etcd": {func(c *Config) { c.EtcdEndpoints = []string{"https://10.0.0.1:2379"} }, true},
	} {
		for _, pair := range [][2]string{{plain, plainKey}, {other, otherKey}} {
			cfg := Config{Region: "us-east", Roles: []string{"region"}, TLSCert: pair[0], TLSKey: pair[1], TLSCA: a.ca()}
			tt.change(&cfg)
			_, err := newCredentials(cfg)
			var told *UsageError
			if tt.needed != errors.As(err, &told) || !tt.needed && err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// served returns the certificate that the API shows to a new connection.
func served(t *testing.T, r *running) *x509.Certificate {
	t.Helper()
	u, err := url.Parse(r.ready.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// replace puts a file in the place of another in one step, as certificate managers do.
func replace(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
