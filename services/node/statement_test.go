package node

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"
)

// P12, failure 55: what a third region passes on is believed only under the key of the region whose rows they
// are, certified as a handshake with it would demand; with every kind of key that serves TLS.
func TestStatementsAreHeldToTheRegion(t *testing.T) {
	a := newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	holder := func(by *authority, key crypto.Signer, notAfter time.Time, usage x509.ExtKeyUsage, dns ...string) *credentials {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(3), NotAfter: notAfter, DNSNames: dns, ExtKeyUsage: []x509.ExtKeyUsage{usage}}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, by.cert, key.Public(), by.key)
		if err != nil {
			t.Fatal(err)
		}
		c := &credentials{}
		c.now.Store(&material{cert: &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool: pool})
		return c
	}
	ec := newKey(t)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	big, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	later, server := time.Now().Add(time.Hour), x509.ExtKeyUsageServerAuth
	reader := holder(a, ec, later, server, "us-east"+regionSuffix)
	said := []byte("these are my rows")
	for _, c := range []struct {
		name  string
		from  *credentials
		wrong string // "" = it is believed
	}{
		{"ECDSA P-256", holder(a, ec, later, server, "eu-west"+regionSuffix), ""},
		{"ECDSA P-384", holder(a, big, later, server, "eu-west"+regionSuffix), ""},
		{"Ed25519", holder(a, ed, later, server, "eu-west"+regionSuffix), ""},
		{"RSA", holder(a, rs, later, server, "eu-west"+regionSuffix), ""},
		{"another region", holder(a, ec, later, server, "ap-south"+regionSuffix), "signed by region ap-south, not by eu-west"},
		{"no region", holder(a, ec, later, server, "client.example"), "names no region"},
		{"a client's certificate", holder(a, ec, later, x509.ExtKeyUsageClientAuth, "eu-west"+regionSuffix), "incompatible key usage"},
		{"ended", holder(a, ec, time.Now().Add(-time.Minute), server, "eu-west"+regionSuffix), "expired"},
		{"another authority", holder(newAuthority(t), ec, later, server, "eu-west"+regionSuffix), "unknown authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sig, err := c.from.Sign(said)
			if err != nil {
				t.Fatal(err)
			}
			err = reader.verifyOrigin("eu-west", said, sig, c.from.Chain())
			if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Fatalf("%v, want %q", err, c.wrong)
			}
			if c.wrong != "" {
				return
			}
			for name, err := range map[string]error{
				"other words": reader.verifyOrigin("eu-west", []byte("these are his rows"), sig, c.from.Chain()),
				"no sig":      reader.verifyOrigin("eu-west", said, nil, c.from.Chain()),
				"no chain":    reader.verifyOrigin("eu-west", said, sig, nil),
				"garbage":     reader.verifyOrigin("eu-west", said, sig, [][]byte{{1, 2, 3}}),
				"long chain":  reader.verifyOrigin("eu-west", said, sig, append(c.from.Chain(), make([][]byte, 20)...)),
			} {
				if err == nil {
					t.Errorf("%s: believed", name)
				}
			}
		})
	}
}
