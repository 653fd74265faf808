package node

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store/etcdcluster"
	"github.com/nearside/nearside/sdk/api"
)

// regionSuffix makes a region's name a DNS name that a certificate can carry.
const regionSuffix = etcdcluster.RegionSuffix

// authorizer returns who may do what: everyone with --dev, else the holder of the token.
func (c *Config) authorizer() (registry.Authorizer, error) {
	if c.Dev {
		return registry.OpenAccess(), nil
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	return registry.TokenAccess(sha256.Sum256([]byte(token))), nil
}

// token reads the token file; without --token-file one is made at first start.
func (c *Config) token() (string, error) {
	path := c.TokenFile
	if path == "" {
		path = filepath.Join(c.DataDir, "token")
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && c.TokenFile == "" {
		raw := make([]byte, 32)
		if _, err := rand.Read(raw); err != nil {
			return "", fmt.Errorf("making a token: %w", err)
		}
		b = []byte(hex.EncodeToString(raw) + "\n")
		if err := renameio.WriteFile(path, b, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
			return "", fmt.Errorf("token file %s: %w", path, err)
		}
	} else if err != nil {
		return "", usage("check --token-file", "token file: %v", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < 16 {
		return "", usage("use at least 16 characters; 32 random bytes in hex are best", "token file %s: the token is too short", path)
	}
	return token, nil
}

// transport security of both listeners and of calls to peers.
type tlsParts struct {
	credentials     *credentials // nil = plaintext
	api, federation *tls.Config  // nil = plaintext
	peers           *http.Client
	// Who is at the other end: a reader of ours, and the one whose stream we read. nil
	// with --dev: then everyone's word is taken.
	peerRegion func(*http.Request) (api.Region, error)
	verifyPeer func(api.Region, *tls.ConnectionState) error
	// What we say of our rows is signed, and what others say of theirs is held to it when a third
	// region passes it on. nil with --dev: then everyone's word is taken.
	signer       peer.Signer
	verifyOrigin func(region api.Region, b, sig []byte, chain [][]byte) error
}

func (c *Config) tlsParts() (tlsParts, error) {
	p := tlsParts{}
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.Proxy = nil
	tr.ForceAttemptHTTP2 = false
	tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS13}
	p.peers = &http.Client{Transport: tr}
	if c.TLSCert == "" {
		return p, nil
	}
	var err error
	if p.credentials, err = newCredentials(*c); err != nil {
		return p, err
	}
	p.api, p.federation = p.credentials.server("h2", "http/1.1"), p.credentials.mutual()
	tr.DialTLSContext = p.credentials.dial
	if c.TLSCA != "" {
		p.peerRegion, p.verifyPeer = readerRegion, verifyPeer
		p.signer, p.verifyOrigin = p.credentials, p.credentials.verifyOrigin
	}
	return p, nil
}

// readerRegion returns the region that the certificate of a request's sender names.
func readerRegion(r *http.Request) (api.Region, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", &api.Error{Code: api.CodeUnauthorized, Detail: "no client certificate was shown", Remedy: "show one of the federation's CA"}
	}
	region, err := regionOf(r.TLS.VerifiedChains[0][0])
	if err != nil {
		return "", &api.Error{Code: api.CodeForbidden, Detail: err.Error(), Remedy: "issue it for REGION" + regionSuffix}
	}
	return region, nil
}

// verifyPeer checks that a server that answered is the region it was taken for: its
// address proves nothing about that.
func verifyPeer(want api.Region, conn *tls.ConnectionState) error {
	if conn == nil || len(conn.VerifiedChains) == 0 {
		return errors.New("it shows no certificate; its URL must be https")
	}
	got, err := regionOf(conn.VerifiedChains[0][0])
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("its certificate is that of region %s, not of %s", got, want)
	}
	return nil
}

// regionOf reads the region that a certificate names. One that names none (an API client's,
// say) is not a region's.
func regionOf(cert *x509.Certificate) (api.Region, error) {
	for _, name := range cert.DNSNames {
		if region, ok := strings.CutSuffix(name, regionSuffix); ok && api.ValidLabel(region) {
			return api.Region(region), nil
		}
	}
	return "", errors.New("the certificate names no region")
}
