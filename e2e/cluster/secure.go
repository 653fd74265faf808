package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Authority is the CA of a federation, which lives for an hour.
type Authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Secure makes the regions run as in earnest, from their next start on: with TLS, a token for the API
// and certificates of one CA, each of which names its region. Clients made from then on show the token.
func (c *Cluster) Secure() *Authority {
	c.t.Helper()
	a := &Authority{t: c.t, dir: c.t.TempDir(), key: newKey(c.t)}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA of a test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	c.secure = a
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *Authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// Issue writes a certificate of a region at 127.0.0.1 and its key, and returns their files.
func (a *Authority) Issue(r api.Region) (cert, key string) {
	a.t.Helper()
	k := newKey(a.t)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{string(r) + ".region.nearside.internal"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, &k.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(string(r)+".pem", "CERTIFICATE", der), a.write(string(r)+".key", "EC PRIVATE KEY", private)
}

// Transport returns a transport of whoever has a region's certificate. The caller closes its idle
// connections.
func (a *Authority) Transport(r api.Region) *http.Transport {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(a.Issue(r))
	if err != nil {
		a.t.Fatal(err)
	}
	trust := a.trust()
	trust.Certificates = []tls.Certificate{pair}
	return &http.Transport{TLSClientConfig: trust}
}

func (a *Authority) trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool}
}

// trust is what a client of the cluster's nodes believes; nil without TLS.
func (c *Cluster) trust() *tls.Config {
	if c.secure == nil {
		return nil
	}
	return c.secure.trust()
}

func (c *Cluster) scheme() string {
	if c.secure == nil {
		return "http://"
	}
	return "https://"
}

// mode are the flags that say how a node is guarded.
func (n *Node) mode() []string {
	if n.c.secure == nil {
		return []string{"--dev"}
	}
	cert, key := n.c.secure.Issue(n.Region)
	return []string{"--tls-cert", cert, "--tls-key", key, "--tls-ca", filepath.Join(n.c.secure.dir, "ca.pem")}
}

// token is what the node's API wants to be shown; "" for nothing.
func (n *Node) token() string {
	if n.c.secure == nil {
		return ""
	}
	b, _ := os.ReadFile(filepath.Join(n.DataDir, "token"))
	return strings.TrimSpace(string(b))
}
