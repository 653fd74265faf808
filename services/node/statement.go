package node

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/nearside/nearside/sdk/api"
)

// Sign signs b with the key of the node's certificate; it is what makes its region's rows
// believable when another region passes them on.
func (c *credentials) Sign(b []byte) ([]byte, error) {
	key, ok := c.now.Load().cert.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key of --tls-key cannot sign")
	}
	switch key.Public().(type) {
	case ed25519.PublicKey:
		return key.Sign(rand.Reader, b, crypto.Hash(0))
	case *rsa.PublicKey:
		sum := sha256.Sum256(b)
		return key.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	}
	sum := sha256.Sum256(b)
	return key.Sign(rand.Reader, sum[:], crypto.SHA256)
}

// Chain returns the node's certificate and those that lead to its authority.
func (c *credentials) Chain() [][]byte { return c.now.Load().cert.Certificate }

// verifyOrigin returns an error unless sig is a signature of b by the owner of a certificate that a
// handshake with the region would take too: of the same authority, naming the region, and valid now.
func (c *credentials) verifyOrigin(want api.Region, b, sig []byte, chain [][]byte) error {
	pool := c.now.Load().pool
	switch {
	case pool == nil:
		return errors.New("there is no --tls-ca to hold its certificate to")
	case len(chain) == 0:
		return errors.New("it shows no certificate of its origin")
	case len(chain) > maxChain:
		return fmt.Errorf("its origin's certificate comes with %d others, %d are allowed", len(chain)-1, maxChain-1)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return fmt.Errorf("its origin's certificate: %w", err)
	}
	between := x509.NewCertPool()
	for _, der := range chain[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("the chain of its origin's certificate: %w", err)
		}
		between.AddCert(cert)
	}
	// No key usages means server authentication, as when we connect to the region.
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between}); err != nil {
		return fmt.Errorf("its origin's certificate: %w", err)
	}
	got, err := regionOf(leaf)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("it is signed by region %s, not by %s", got, want)
	}
	how := x509.ECDSAWithSHA256
	switch leaf.PublicKey.(type) {
	case ed25519.PublicKey:
		how = x509.PureEd25519
	case *rsa.PublicKey:
		how = x509.SHA256WithRSAPSS
	case *ecdsa.PublicKey:
	default:
		return fmt.Errorf("keys of its origin's kind, %T, are not known", leaf.PublicKey)
	}
	if err := leaf.CheckSignature(how, b, sig); err != nil {
		return fmt.Errorf("its origin did not sign this: %w", err)
	}
	return nil
}

// maxChain bounds what is parsed of a stranger's word.
const maxChain = 8
