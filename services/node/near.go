package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/nearside/nearside/federation/mesh"
	"github.com/nearside/nearside/sdk/api"
)

// normalizeNear checks where a node has what it knows of other regions from, when that is the
// region's federation process.
func (c *Config) normalizeNear() error {
	if len(c.FederationURLs) == 0 {
		return nil
	}
	if c.Federated() {
		return usage("drop it, or use --roles region", "--federation-url is for nodes that leave the federation to a process of its own, and --roles names it")
	}
	for i, raw := range c.FederationURLs {
		u, err := url.Parse(raw)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
			return usage("write it like --federation-url https://10.0.0.1:7402", "--federation-url: %s is not a base URL", api.Quote(raw))
		}
		for _, other := range c.FederationURLs[:i] {
			if other == raw {
				return usage("keep one of them", "--federation-url: %s is named twice", raw)
			}
		}
		switch {
		case u.Scheme == "https" && c.Dev:
			return usage("use http, or drop --dev and give certificates", "--federation-url: %s has TLS, and --dev has none", raw)
		case u.Scheme == "http" && !c.Dev:
			return usage("use https", "--federation-url: %s would not prove that it is this region's federation", raw)
		}
	}
	if !c.Dev && (c.TLSCert == "" || c.TLSCA == "") {
		return usage("add --tls-cert, --tls-key and --tls-ca, or try things out with --dev",
			"--federation-url: the processes of a region prove to each other who they are by certificates, and none is given")
	}
	return nil
}

// door returns the base URL at which the region's other nodes reach a listener.
func (c *Config) door(l net.Listener, secured bool) string {
	if secured {
		return "https://" + c.advertised(l)
	}
	return "http://" + c.advertised(l)
}

// near says from which nodes of the region this one may take rows of other regions. callers is nil
// in a region of one node.
func (s *source) near(callers *nodeCaller) mesh.Near {
	if callers == nil {
		return mesh.Near{}
	}
	return mesh.Near{Nodes: s.siblings, Doors: callers.doors}
}

func (s *source) siblings() []mesh.Sibling {
	nodes := s.Nodes()
	out := make([]mesh.Sibling, len(nodes))
	for i, n := range nodes {
		out[i] = mesh.Sibling{Node: n.Node, Address: n.Address}
	}
	return out
}

// doors asks another node of the region where it lets others read what it knows of other regions.
func (n *nodeCaller) doors(ctx context.Context, s mesh.Sibling) ([]string, error) {
	if !strings.HasPrefix(s.Address, n.scheme+"://") {
		return nil, fmt.Errorf("its address %s is not of %s: all nodes of a region need the same TLS settings", api.Quote(s.Address), n.scheme)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Address+api.PathFederation, nil)
	if err != nil {
		return nil, err
	}
	if n.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+n.bearer)
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var info api.FederationInfo
	if err := readAnswer(resp.StatusCode, io.LimitReader(resp.Body, api.MaxNodeAnswerBytes), &info); err != nil {
		return nil, err
	}
	if len(info.Doors) == 0 {
		return nil, errors.New("it reads no other regions")
	}
	return info.Doors, nil
}
