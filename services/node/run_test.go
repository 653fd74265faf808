package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// authority issues certificates for tests.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	notAfter time.Time // of what it issues; zero = in an hour
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	p := filepath.Join(a.dir, name)
	if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return p
}

func (a *authority) ca() string { return filepath.Join(a.dir, "ca.pem") }

// issue writes a certificate for 127.0.0.1 and the DNS names.
func (a *authority) issue(name string, dns ...string) (cert, key string) {
	a.t.Helper()
	notAfter := time.Now().Add(time.Hour)
	if !a.notAfter.IsZero() {
		notAfter = a.notAfter
	}
	k := newKey(a.t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: notAfter, DNSNames: dns, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &k.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	kb, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "EC PRIVATE KEY", kb)
}

// running is a node run in this process.
type running struct {
	ready api.ReadyFile
	dir   string
	logs  *logs
	stop  func() error
}

type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }

func (l *logs) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	cfg.ReadyFile = filepath.Join(t.TempDir(), "ready.json")
	cfg.LogLevel, cfg.Version = "info", "1.2.3-test"
	if err := cfg.Normalize(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{dir: cfg.DataDir, logs: &logs{}}
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg, r.logs) }()
	var once sync.Once
	var ended error
	r.stop = func() error {
		once.Do(func() { cancel(); ended = <-done })
		return ended
	}
	t.Cleanup(func() { _ = r.stop() })
	within(t, 20*time.Second, "the node is ready", func() error {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("the node ended at start: %v\n%s", err, r.logs)
		default:
		}
		b, err := os.ReadFile(cfg.ReadyFile)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &r.ready)
	})
	if r.ready.Version != "1.2.3-test" {
		t.Errorf("the ready file tells version %q, not the program's", r.ready.Version)
	}
	return r
}

func within(t *testing.T, patience time.Duration, what string, cond func() error) {
	t.Helper()
	ask := time.NewTicker(20 * time.Millisecond)
	defer ask.Stop()
	late := time.After(patience)
	for {
		err := cond()
		if err == nil {
			return
		}
		select {
		case <-ask.C:
		case <-late:
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
	}
}

func secured(a *authority, region api.Region, cert, key string, peers map[api.Region][]string) Config {
	return Config{
		Region: region, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0", TLSCert: cert, TLSKey: key, TLSCA: a.ca(), Peers: peers,
	}
}

func (a *authority) client(cert, key string) *http.Client {
	a.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	c := &tls.Config{RootCAs: pool}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			a.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	tr := &http.Transport{TLSClientConfig: c}
	a.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 5 * time.Second}
}

func call(c *http.Client, method, url, token, body string, out any) (int, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && out != nil && resp.StatusCode < 300 {
		err = json.Unmarshal(b, out)
	}
	return resp.StatusCode, err
}

func (r *running) token(t *testing.T) string {
	t.Helper()
	p := filepath.Join(r.dir, "token")
	st, err := os.Stat(p)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("token file: %v, %v", st, err)
	}
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// linked waits until a region's link to a peer is up.
func (r *running) linked(t *testing.T, c *http.Client, peer api.Region) {
	t.Helper()
	within(t, 10*time.Second, "the link is up", func() error {
		var f api.FederationInfo
		if _, err := call(c, "GET", r.ready.HTTP+api.PathFederation, r.token(t), "", &f); err != nil {
			return err
		}
		for _, l := range f.Links {
			if l.Peer == peer && l.State == "connected" {
				return nil
			}
		}
		return fmt.Errorf("%+v", f.Links)
	})
}

// P12: without --dev the API wants the token, and peers prove their region by certificate,
// in both directions; an impostor with a certificate of the same CA gets and gives nothing.
func TestRegionsProveWhoTheyAre(t *testing.T) {
	a := newAuthority(t)
	usCert, usKey := a.issue("us", "us-east"+regionSuffix)
	euCert, euKey := a.issue("eu", "eu-west"+regionSuffix)
	us := start(t, secured(a, "us-east", usCert, usKey, nil))
	eu := start(t, secured(a, "eu-west", euCert, euKey, map[api.Region][]string{"us-east": {us.ready.Federation}}))
	c := a.client("", "")
	body := `{"address":"127.0.0.1","port":80}`
	put := us.ready.HTTP + api.PathInstance("orders", "o-1")
	if status, err := call(c, "PUT", put, "", body, nil); status != 401 {
		t.Errorf("without a token: %d, %v", status, err)
	}
	if status, err := call(c, "PUT", put, "wrong", body, nil); status != 401 && status != 403 {
		t.Errorf("with a wrong token: %d, %v", status, err)
	}
	if status, err := call(c, "PUT", put, us.token(t), body, nil); status != 201 {
		t.Fatalf("with the token: %d, %v", status, err)
	}
	eu.linked(t, c, "us-east")
	within(t, 5*time.Second, "the other region knows the service", func() error {
		var r api.Resolution
		if status, err := call(c, "GET", eu.ready.HTTP+api.PathResolve("orders"), eu.token(t), "", &r); status != 200 {
			return fmt.Errorf("%d, %v", status, err)
		}
		return nil
	})

	stream := us.ready.Federation + "/peer/v1/stream?proto=1&reader=eu-west&node=x"
	if _, err := call(c, "GET", stream, "", "", nil); err == nil {
		t.Error("the peer port takes a caller without a certificate")
	}
	clientCert, clientKey := a.issue("client", "some-client.example")
	if status, err := call(a.client(clientCert, clientKey), "GET", stream, "", "", nil); status != 403 && status != 401 {
		t.Errorf("a certificate that names no region: %d, %v", status, err)
	}
	if status, err := call(a.client(euCert, euKey), "GET", us.ready.Federation+"/peer/v1/stream?proto=1&reader=ap-south&node=x", "", "", nil); status != 403 {
		t.Errorf("eu-west reads as ap-south: %d, %v", status, err)
	}
	within(t, 5*time.Second, "the event log tells of both", func() error {
		var told api.EventList
		if status, err := call(c, "GET", us.ready.HTTP+api.PathEvents+"?kind="+string(api.EventReaderRefused), us.token(t), "", &told); status != 200 {
			return fmt.Errorf("%d, %v", status, err)
		}
		causes := map[string]bool{}
		for _, e := range told.Events {
			causes[e.Cause.Kind] = true
		}
		if !causes[api.BecauseNoIdentity] || !causes[api.BecauseCertificate] {
			return fmt.Errorf("%+v", told.Events)
		}
		return nil
	})
	for _, l := range []*logs{us.logs, eu.logs} {
		if strings.Contains(l.String(), us.token(t)) || strings.Contains(l.String(), eu.token(t)) {
			t.Error("a token is in the logs")
		}
	}

	// A peer's address that leads to another region.
	apCert, apKey := a.issue("ap", "ap-south"+regionSuffix)
	ap := start(t, secured(a, "ap-south", apCert, apKey, map[api.Region][]string{"eu-west": {us.ready.Federation}}))
	within(t, 10*time.Second, "the link says whose certificate it met", func() error {
		var f api.FederationInfo
		if _, err := call(c, "GET", ap.ready.HTTP+api.PathFederation, ap.token(t), "", &f); err != nil {
			return err
		}
		if !strings.Contains(f.Links[0].LastError, "certificate is that of region us-east, not of eu-west") {
			return errors.New(f.Links[0].LastError)
		}
		return nil
	})
	for _, r := range []*running{ap, eu, us} {
		if err := r.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
}

// A certificate that does not name the node's own region is refused at start, not by every
// peer later.
func TestOwnCertificateMustNameTheRegion(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("eu", "eu-west"+regionSuffix)
	cfg := secured(a, "us-east", cert, key, nil)
	cfg.DataDir, cfg.LogLevel = t.TempDir(), "info"
	if err := cfg.Normalize(); err != nil {
		t.Fatal(err)
	}
	var u *UsageError
	if err := Run(t.Context(), cfg, io.Discard); !errors.As(err, &u) || !strings.Contains(err.Error(), "us-east"+regionSuffix) {
		t.Fatalf("got %v", err)
	}
}

// A second start by mistake is refused and leaves the first node's files alone.
func TestSecondNodeOnTheSameDataLeavesTheFirstAlone(t *testing.T) {
	cfg := Config{Region: "us-east", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0", DataDir: t.TempDir()}
	first := start(t, cfg)
	ready := first.ready
	cfg.ReadyFile, cfg.LogLevel = filepath.Join(t.TempDir(), "r.json"), "info"
	if err := os.WriteFile(cfg.ReadyFile, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Normalize(); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), cfg, io.Discard); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("the second node: %v", err)
	}
	if _, err := os.Stat(cfg.ReadyFile); err != nil {
		t.Errorf("the ready file is gone: %v", err)
	}
	within(t, 10*time.Second, "the first node is ready", func() error {
		status, err := call(http.DefaultClient, "GET", ready.HTTP+"/readyz", "", "", nil)
		if err == nil && status != 200 {
			err = fmt.Errorf("%d", status)
		}
		return err
	})
}

// A stopping region says goodbye to its readers.
func TestStoppingNodeSaysGoodbye(t *testing.T) {
	us := start(t, Config{Region: "us-east", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0"})
	eu := start(t, Config{
		Region: "eu-west", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0",
		Peers: map[api.Region][]string{"us-east": {us.ready.Federation}},
	})
	var f api.FederationInfo
	link := func(state string) {
		within(t, 10*time.Second, "the link is "+state, func() error {
			if _, err := call(http.DefaultClient, "GET", eu.ready.HTTP+api.PathFederation, "", "", &f); err != nil {
				return err
			}
			if f.Links[0].State != state {
				return fmt.Errorf("%+v", f.Links[0])
			}
			return nil
		})
	}
	link("connected")
	if err := us.stop(); err != nil {
		t.Fatal(err)
	}
	link("unreachable")
	if !strings.Contains(eu.logs.String(), "stopping") {
		t.Errorf("the reader took the end for a failure:\n%s", eu.logs)
	}
}
