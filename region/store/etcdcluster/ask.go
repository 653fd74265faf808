package etcdcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
)

// HeaderWaiting is in the answer of a node that has no data and waits for the others, as
// "REGION/NODE".
const HeaderWaiting = "Nearside-Waiting"

// PathMembers is where a member's peer listener tells its list, and a waiting node that it waits.
const PathMembers = "/members"

const (
	askTimeout = 2 * time.Second
	maxList    = 1 << 20
)

// Told is a member in the list that a running member gives to its peers.
type Told struct {
	ID         uint64   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}

// Started reports whether the member has ever joined.
func (t Told) Started() bool { return len(t.ClientURLs) > 0 }

// Answer is what one node said.
type Answer struct {
	Node    string
	Waiting string // "REGION/NODE" of a node without data
	Cluster string // id of the cluster that its member is in; "" without one
	Members []Told
	Err     error // it gave no answer
}

// Ask asks every node but our own for its list of members, all at once, and returns their
// answers in order of name. It takes 2 s at most.
func Ask(ctx context.Context, c Config) ([]Answer, error) {
	client, err := NewPeerClient(c)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var out []Answer
	for _, name := range c.Names() {
		if name != c.Node {
			out = append(out, Answer{Node: name})
		}
	}
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() {
			a := &out[i]
			a.Err = client.get(ctx, c.URL(c.Peers[a.Node])+PathMembers, func(h http.Header, body []byte) error {
				if a.Waiting = h.Get(HeaderWaiting); a.Waiting != "" {
					return nil
				}
				a.Cluster = h.Get("X-Etcd-Cluster-ID")
				if err := json.Unmarshal(body, &a.Members); err != nil || len(a.Members) == 0 || a.Cluster == "" {
					return errors.New("it answers, and is no member of a cluster")
				}
				return nil
			})
		})
	}
	wg.Wait()
	return out, nil
}

// PeerClient asks other members over their peer listeners.
type PeerClient struct {
	http *http.Client
	tr   *http.Transport
}

// NewPeerClient returns a client; it fails when the files of c.TLS cannot be used.
func NewPeerClient(c Config) (*PeerClient, error) {
	tr, err := transport.NewTransport(c.TLSInfo(), askTimeout)
	if err != nil {
		return nil, fmt.Errorf("peer TLS: %w", err)
	}
	tr.Proxy = nil // members are infrastructure
	tr.DisableKeepAlives = true
	return &PeerClient{
		http: &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		tr:   tr,
	}, nil
}

// Close drops idle connections.
func (p *PeerClient) Close() { p.tr.CloseIdleConnections() }

// Version asks a member for its version: whether it answers at all.
func (p *PeerClient) Version(ctx context.Context, peerURL string) (version string, err error) {
	err = p.get(ctx, peerURL+"/version", func(_ http.Header, body []byte) error {
		var v struct {
			Server string `json:"etcdserver"`
		}
		if err := json.Unmarshal(body, &v); err != nil {
			return err
		}
		version = v.Server
		return nil
	})
	return version, err
}

func (p *PeerClient) get(ctx context.Context, url string, take func(http.Header, []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return plainly(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxList))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK && resp.Header.Get(HeaderWaiting) == "" {
		return fmt.Errorf("it answers with status %d", resp.StatusCode)
	}
	return take(resp.Header, body)
}

// plainly leaves out of an error what its reader knows: the request.
func plainly(err error) error {
	text := err.Error()
	if strings.Contains(text, "server gave HTTP response to HTTPS client") {
		return errPlain
	}
	if strings.Contains(text, "connection refused") {
		return errors.New("connection refused")
	}
	if errors.Is(err, context.DeadlineExceeded) || strings.Contains(text, "i/o timeout") {
		return errors.New("no answer in time")
	}
	if i := strings.LastIndex(text, "\": "); i >= 0 {
		return errors.New(text[i+3:])
	}
	return err
}
