package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// several reports whether the region may have other nodes than this one. A cluster of one may: others
// are added while it runs, and if it took itself for alone it would evict whoever sends them heartbeats.
func (c *Config) several() bool { return len(c.peers) > 0 || len(c.EtcdEndpoints) > 0 }

// normalizeNodes checks what the nodes of a region need to call each other.
func (c *Config) normalizeNodes() error {
	if !c.several() || c.Dev {
		return nil
	}
	if c.TokenFile == "" {
		return usage("give every node of the region the same file with --token-file",
			"the nodes of a region forward heartbeats to each other with the API token, and without --token-file each would make its own")
	}
	if c.TLSCert != "" && c.TLSCA == "" {
		return usage("add --tls-ca", "the nodes of a region call each other's API, and without --tls-ca they cannot tell each other's certificates from a stranger's")
	}
	return nil
}

// nodeCaller calls the API of the region's other nodes.
type nodeCaller struct {
	client *http.Client
	bearer string // "" with --dev
	scheme string // of every node's address
}

// nodes returns what calls the region's other nodes; nil when there are none.
func (c *Config) nodes(secure tlsParts) (*nodeCaller, error) {
	if !c.several() {
		return nil, nil
	}
	n := &nodeCaller{scheme: "http"}
	if !c.Dev {
		token, err := c.token()
		if err != nil {
			return nil, err
		}
		n.bearer = token
	}
	tr := secure.peers.Transport.(*http.Transport).Clone()
	if secure.api != nil {
		n.scheme = "https"
		tr.DialTLSContext = c.dialHome(tr.DialTLSContext)
	}
	n.client = &http.Client{
		Transport: tr,
		// The token goes to the address that the region's records name, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return n, nil
}

// dialHome makes dial accept nobody but this region: before a token goes over the connection. The
// certificate's CA is the federation's, and its region must be this one.
func (c *Config) dialHome(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		t, ok := conn.(*tls.Conn)
		if !ok {
			conn.Close()
			return nil, fmt.Errorf("%s: no TLS", addr)
		}
		state := t.ConnectionState()
		if err := verifyPeer(c.Region, &state); err != nil {
			conn.Close()
			return nil, fmt.Errorf("%s is no node of this region: %w", addr, err)
		}
		return conn, nil
	}
}

// Report implements registry.Nodes.
func (n *nodeCaller) Report(ctx context.Context, from, _, address string, report api.NodeReport) (api.NodeAnswer, error) {
	var out api.NodeAnswer
	if !strings.HasPrefix(address, n.scheme+"://") {
		return out, fmt.Errorf("its address %s is not of %s: all nodes of a region need the same TLS settings", api.Quote(address), n.scheme)
	}
	body, err := json.Marshal(report)
	if err != nil {
		return out, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address+api.PathNodeReport(from), bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	req.Header.Set("Content-Type", "application/json")
	if n.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+n.bearer)
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	in := io.LimitReader(resp.Body, api.MaxNodeAnswerBytes)
	if err := readAnswer(resp.StatusCode, in, &out); err != nil {
		return api.NodeAnswer{}, err
	}
	_, _ = io.Copy(io.Discard, in) // so that the connection is used again
	return out, nil
}

// readAnswer reads what another node of the region answered into out.
func readAnswer(status int, in io.Reader, out any) error {
	if status != http.StatusOK {
		var p api.Problem
		if json.NewDecoder(in).Decode(&p) != nil || p.Code == "" {
			return fmt.Errorf("it answers with status %d", status)
		}
		return p.Err()
	}
	if err := json.NewDecoder(in).Decode(out); err != nil {
		return fmt.Errorf("its answer cannot be read: %w", err)
	}
	return nil
}
