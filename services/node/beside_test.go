package node

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// sharedToken writes a token file.
func sharedToken(t *testing.T) (path, token string) {
	t.Helper()
	token = hex.EncodeToString([]byte(strings.Repeat("t", 32)))
	path = filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, token
}

// link returns what a federation says of its link to a peer.
func link(c *http.Client, url, token string, peer api.Region) (api.LinkInfo, error) {
	var f api.FederationInfo
	if status, err := call(c, "GET", url+api.PathFederation, token, "", &f); err != nil || status != 200 {
		return api.LinkInfo{}, fmt.Errorf("%d, %v", status, err)
	}
	for _, l := range f.Links {
		if l.Peer == peer {
			return l, nil
		}
	}
	return api.LinkInfo{}, fmt.Errorf("no link to %s", peer)
}

// P6, P12: a federation that runs as its own process, with nothing but the region's token and
// certificate, tells peers what the node itself would tell, row by row and under the same versions: a
// peer that goes over from one to the other needs nothing anew.
func TestFederationBesideItsRegion(t *testing.T) {
	a := newAuthority(t)
	usCert, usKey := a.issue("us", "us-east"+regionSuffix)
	euCert, euKey := a.issue("eu", "eu-west"+regionSuffix)
	tokenFile, token := sharedToken(t)
	c := a.client("", "")

	node := secured(a, "us-east", usCert, usKey, nil)
	node.TokenFile = tokenFile
	us := start(t, node)
	cfg := secured(a, "us-east", usCert, usKey, nil)
	cfg.TokenFile, cfg.Roles, cfg.RegionURLs = tokenFile, []string{"federation"}, []string{us.ready.HTTP}
	fed := start(t, cfg)
	if fed.ready.Node != "us-east-federation" || fed.ready.Epoch != us.ready.Epoch {
		t.Errorf("%+v", fed.ready)
	}
	reader := secured(a, "eu-west", euCert, euKey, map[api.Region][]string{"us-east": {fed.ready.Federation}})
	reader.DataDir = t.TempDir()
	eu := start(t, reader)

	for _, path := range []string{api.PathInstance("orders", "o-1"), api.PathInstance("orders", "o-2"), api.PathInstance("carts", "c-1") + "?ns=shop"} {
		body := `{"address":"127.0.0.1","port":80,"zone":"a","version":"1.2","metadata":{"team":"shop"},"tags":["x"],"capacity":7,"ttl":"10m"}`
		if status, err := call(c, "PUT", us.ready.HTTP+path, token, body, nil); status != 201 {
			t.Fatalf("%s: %d, %v", path, status, err)
		}
	}
	if status, err := call(c, "DELETE", us.ready.HTTP+api.PathInstance("orders", "o-2"), token, "", nil); status != 204 {
		t.Fatalf("%d, %v", status, err)
	}
	at := func() uint64 {
		var r api.RegionInfo
		if _, err := call(c, "GET", us.ready.HTTP+api.PathRegion("us-east"), token, "", &r); err != nil {
			t.Fatal(err)
		}
		return r.Revision
	}
	holds := func(what string, eu *running) (l api.LinkInfo) {
		within(t, 10*time.Second, what, func() (err error) {
			if l, err = link(c, eu.ready.HTTP, eu.token(t), "us-east"); err != nil {
				return err
			}
			if l.Services != 2 || l.Replica.Revision < at() || l.State != "connected" || l.Replica.State != api.AgeFresh {
				return fmt.Errorf("%+v", l)
			}
			return nil
		})
		return l
	}
	first := holds("the other region holds both services, through the federation's process", eu)
	if got := first.Replica.Addresses; len(got) != 1 || got[0] != us.ready.HTTP {
		t.Errorf("clients are sent to %v, the region is at %s", got, us.ready.HTTP)
	}
	if err := eu.stop(); err != nil {
		t.Fatal(err)
	}
	reader.Peers = map[api.Region][]string{"us-east": {us.ready.Federation}}
	eu = start(t, reader)
	second := holds("the other region holds both services, through the node", eu)
	if second.Digest != first.Digest || second.Snapshots != 0 || second.Refused != 0 {
		t.Errorf("after the federation's process %+v, after the node %+v", first, second)
	}

	// Proof and repair go over certificates too, for whoever may ask.
	for _, verb := range []string{api.PathVerify, api.PathResync} {
		if status, _ := call(c, "POST", eu.ready.HTTP+verb+"?region=us-east", "", "", nil); status != 401 {
			t.Errorf("%s without a token: %d", verb, status)
		}
		if status, _ := call(c, "POST", fed.ready.HTTP+verb+"?region=us-east", token, "", nil); status != 422 {
			t.Errorf("%s of the process's own region: %d", verb, status)
		}
	}
	var proof api.Verification
	if status, err := call(c, "POST", eu.ready.HTTP+api.PathVerify+"?region=us-east", eu.token(t), "", &proof); status != 200 || err != nil || proof.Result != api.VerifyEqual || proof.Rows != 2 {
		t.Errorf("%d, %v, %+v", status, err, proof)
	}
	var resync api.ResyncInfo
	if status, err := call(c, "POST", eu.ready.HTTP+api.PathResync+"?region=us-east", eu.token(t), "", &resync); status != 202 || err != nil {
		t.Errorf("%d, %v, %+v", status, err, resync)
	}
	within(t, 10*time.Second, "all rows came anew", func() error {
		l, err := link(c, eu.ready.HTTP, eu.token(t), "us-east")
		if err == nil && (l.Resync == nil || l.Resync.State != api.ResyncDone || l.Resync.Changed != 0) {
			err = fmt.Errorf("%+v", l.Resync)
		}
		return err
	})

	// What the process shows, and to whom.
	var info api.FederationInfo
	if status, err := call(c, "GET", fed.ready.HTTP+api.PathFederation, token, "", &info); status != 200 || info.Follows == nil || info.Follows.State != "connected" || info.Follows.Node != us.ready.Node {
		t.Errorf("%d, %v: %+v", status, err, info.Follows)
	}
	for path, want := range map[string]int{api.PathFederation: 401, api.PathServices: 404, api.PathLivez: 200, api.PathReadyz: 200, api.PathMetrics: 200} {
		if status, err := call(c, "GET", fed.ready.HTTP+path, "", "", nil); status != want {
			t.Errorf("%s: %d, %v", path, status, err)
		}
	}
	// The region goes: what is known stays with everyone, and nobody takes it for new.
	if err := us.stop(); err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "the federation says that it does not hear its region", func() error {
		if status, err := call(c, "GET", fed.ready.HTTP+api.PathReadyz, "", "", nil); status != 503 {
			return fmt.Errorf("%d, %v", status, err)
		}
		return nil
	})
	if strings.Contains(fed.logs.String(), token) {
		t.Error("the token is in the log")
	}
}

// P12: a node has what it knows of other regions from its region's federation process, both with the region's
// certificate; a stranger's door, or another region's, is not believed.
func TestNodeOfAFederationProcess(t *testing.T) {
	a := newAuthority(t)
	usCert, usKey := a.issue("us", "us-east"+regionSuffix)
	euCert, euKey := a.issue("eu", "eu-west"+regionSuffix)
	tokenFile, token := sharedToken(t)
	c := a.client("", "")
	eu := start(t, secured(a, "eu-west", euCert, euKey, nil))
	if status, err := call(c, "PUT", eu.ready.HTTP+api.PathInstance("orders", "o-1"), eu.token(t), `{"address":"127.0.0.1","port":80,"ttl":"10m"}`, nil); status != 201 {
		t.Fatalf("%d, %v", status, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := l.Addr().String()
	l.Close()
	nc := secured(a, "us-east", usCert, usKey, nil)
	nc.TokenFile, nc.Roles, nc.FederationURLs = tokenFile, []string{"region"}, []string{"https://" + door}
	us := start(t, nc)
	fc := secured(a, "us-east", usCert, usKey, map[api.Region][]string{"eu-west": {eu.ready.Federation}})
	fc.TokenFile, fc.Roles, fc.RegionURLs, fc.FederationAddr = tokenFile, []string{"federation"}, []string{us.ready.HTTP}, door
	start(t, fc)
	within(t, 20*time.Second, "the node knows the other region", func() error {
		var r api.Resolution
		if status, err := call(c, "GET", us.ready.HTTP+api.PathResolve("orders"), token, "", &r); err != nil || status != 200 {
			return fmt.Errorf("%d, %v", status, err)
		}
		l, err := link(c, us.ready.HTTP, token, "eu-west")
		if err == nil && (len(r.Endpoints) != 1 || l.Via != "us-east" || l.Node != "us-east-federation" || l.State != "connected") {
			err = fmt.Errorf("%d endpoints, %+v", len(r.Endpoints), l)
		}
		return err
	})
	// The door of another region is none of ours.
	nc.DataDir, nc.FederationURLs, nc.Node = t.TempDir(), []string{eu.ready.Federation}, "us-east-2"
	lost := start(t, nc)
	within(t, 20*time.Second, "the node says whose certificate it met", func() error {
		if !strings.Contains(lost.logs.String(), "its certificate is that of region eu-west, not of us-east") {
			return errors.New("not yet")
		}
		return nil
	})
}

// A federation on its own that can not follow its region because of how it was set up says so, and ends.
func TestFederationBesideAnotherRegion(t *testing.T) {
	us := start(t, Config{Region: "us-east", Dev: true, HTTPAddr: "127.0.0.1:0", FederationAddr: "127.0.0.1:0"})
	run := func(cfg Config) error {
		cfg.HTTPAddr, cfg.FederationAddr, cfg.LogLevel = "127.0.0.1:0", "127.0.0.1:0", "info"
		if cfg.DataDir == "" {
			cfg.DataDir = t.TempDir()
		}
		if err := cfg.Normalize(); err != nil {
			return err
		}
		return Run(t.Context(), cfg, io.Discard)
	}
	own := Config{Region: "us-east", Dev: true, Roles: []string{"federation"}, RegionURLs: []string{us.ready.HTTP}, DataDir: us.dir}
	if err := run(own); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("on a node's data directory: %v", err)
	}
	other := Config{Region: "eu-west", Dev: true, Roles: []string{"federation"}, RegionURLs: []string{us.ready.HTTP}}
	var u *UsageError
	if err := run(other); !errors.As(err, &u) || !strings.Contains(err.Error(), "is a node of region \"us-east\", not of eu-west") {
		t.Errorf("with another region's URL: %v", err)
	}

	a := newAuthority(t)
	cert, key := a.issue("us", "us-east"+regionSuffix)
	closed := start(t, secured(a, "us-east", cert, key, nil))
	cfg := secured(a, "us-east", cert, key, nil)
	cfg.TokenFile, _ = sharedToken(t)
	cfg.Roles, cfg.RegionURLs = []string{"federation"}, []string{closed.ready.HTTP}
	if err := run(cfg); !errors.As(err, &u) || !strings.Contains(err.Error(), "the region refuses the federation") {
		t.Errorf("with another token: %v", err)
	}
}
