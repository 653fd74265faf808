package nearside

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		a.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c, key
}

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// serve runs a server whose certificate is for names alone, and returns its address.
func (a *authority) serve(h http.HandlerFunc, names ...string) string {
	a.t.Helper()
	cert, key := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, r.Proto+" "+r.Host+" "+r.TLS.ServerName)
}

// ask returns what a call is answered.
func ask(t *testing.T, web *http.Client, method, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := web.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// P12: a service that is called by https is verified by its name, not by its instances' addresses;
// and a connection that was verified for one name is never used for another.
func TestServicesOverTLS(t *testing.T) {
	w := newWorld(t, "us")
	us := w.regions["us"]
	a := newAuthority(t)
	at := a.serve(hello, "orders")
	us.put("orders", "a", at, nil)
	us.put("payments", "a", at, nil)
	us.put("stock", "a", a.serve(hello, "stock.nearside.internal"), nil)
	c := w.client("us", func(cfg *Config) { cfg.ServiceTLS = &tls.Config{RootCAs: a.roots(), MinVersion: tls.VersionTLS12} })
	web := &http.Client{Transport: c.Transport(nil), Timeout: 20 * time.Second}
	wrong := func(url string) {
		t.Helper()
		var name x509.HostnameError
		if _, err := ask(t, web, http.MethodGet, url); !errors.As(err, &name) {
			t.Errorf("%s: %v", url, err)
		}
	}
	wrong("https://payments/")
	for range 3 {
		if got, err := ask(t, web, http.MethodGet, "https://Orders/v1"); got != "HTTP/2.0 orders orders" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		wrong("https://payments/") // at the same address
	}
	if got, err := ask(t, web, http.MethodGet, "https://stock.nearside.internal/"); got != "HTTP/2.0 stock stock.nearside.internal" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	wrong("https://orders.nearside.internal/")

	// Who trusts only the system refuses all of it.
	strict := &http.Client{Transport: w.client("us", nil).Transport(nil), Timeout: 20 * time.Second}
	var unknown x509.UnknownAuthorityError
	if _, err := ask(t, strict, http.MethodGet, "https://orders/"); !errors.As(err, &unknown) {
		t.Errorf("%v", err)
	}
}

// Nothing of a call is sent to an instance with a wrong certificate: it goes to the next, also
// when it is not safe to repeat, and the instance is left for a while.
func TestWrongCertificateIsLeft(t *testing.T) {
	w := newWorld(t, "us", "eu")
	us := w.regions["us"]
	a := newAuthority(t)
	w.regions["eu"].put("orders", "far", a.serve(func(http.ResponseWriter, *http.Request) { t.Error("a call went abroad") }, "orders"), nil)
	for i := range 4 { // enough to take what one of five leaves
		us.put("orders", fmt.Sprintf("good-%d", i), a.serve(hello, "orders"), nil)
	}
	us.put("orders", "wrong", a.serve(func(http.ResponseWriter, *http.Request) { t.Error("a call came through") }, "payments"), nil)
	c := w.client("us", func(cfg *Config) { cfg.ServiceTLS = &tls.Config{RootCAs: a.roots(), MinVersion: tls.VersionTLS12} })
	web := &http.Client{Transport: c.Transport(nil), Timeout: 20 * time.Second}
	for range 10 {
		if got, err := ask(t, web, http.MethodPost, "https://orders/"); got != "HTTP/2.0 orders orders" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	in := instances(t, c, "orders")["wrong"]
	if in == nil || in.dialed.Load() {
		t.Error("a dial that works does not make the certificate right")
	}
}
