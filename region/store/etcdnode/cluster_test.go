package etcdnode_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/clustertest"
	"github.com/nearside/nearside/region/store/etcdcluster"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/sdk/api"
)

// secured returns a cluster of three whose members prove themselves by certificates.
func secured(t *testing.T) (*clustertest.Cluster, *clustertest.Authority) {
	t.Helper()
	c := clustertest.New(t, "us-east", 3)
	ca := clustertest.NewAuthority(t)
	tls := ca.Issue("us-east" + etcdcluster.RegionSuffix)
	c.TLS = &tls
	return c, ca
}

// P1, P11: three nodes begin together, keep what any of them was told, go on without one, and
// take it back.
func TestThreeNodesAreOneStore(t *testing.T) {
	c, _ := secured(t)
	begun := time.Now()
	c.StartAll()
	t.Logf("three members serve after %s", time.Since(begun).Round(time.Millisecond))

	s1, err := openStore(t.Context(), c.Node("n1"))
	if err != nil {
		t.Fatal(err)
	}
	defer s1.Close()
	rev, err := s1.Commit(t.Context(), []store.Op{{Key: "a", Value: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	s2, err := openStore(t.Context(), c.Node("n2"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := s2.Load(t.Context())
	if err != nil || len(img.Records) != 1 || img.Revision < rev {
		t.Fatalf("n2 has %+v (%v), want what n1 was told at revision %d", img, err, rev)
	}
	s2.Close()
	c.Stop("n2")
	soon(t, time.Minute, "two of three take writes", func() error {
		_, err := s1.Commit(t.Context(), []store.Op{{Key: "b", Value: []byte("2")}})
		return err
	})
	c.Start("n2")
	c.Await("n2")
	s2, err = openStore(t.Context(), c.Node("n2"))
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if img, err := s2.Load(t.Context()); err != nil || len(img.Records) != 2 {
		t.Fatalf("n2 came back with %+v (%v)", img, err)
	}
}

// P1: nothing begins while the others are away: they may have data.
func TestOneOfThreeWaits(t *testing.T) {
	c, _ := secured(t)
	n := c.Start("n1")
	select {
	case <-n.Ready():
		t.Fatal("one of three serves alone")
	case err := <-n.Err():
		t.Fatal(err)
	case <-time.After(2 * time.Second):
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(c.Dir, "n1", "etcd")); err != nil || len(entries) > 0 {
		t.Errorf("it made %v (%v) while it waited", entries, err)
	}
}

// P1: a node whose disk was lost does not come back under its old name, and one that nobody
// added does not come in: each is told what to do.
func TestWhoDoesNotBelongIsToldWhatToDo(t *testing.T) {
	c, _ := secured(t)
	c.StartAll()
	c.Stop("n3")
	if err := os.RemoveAll(filepath.Join(c.Dir, "n3")); err != nil {
		t.Fatal(err)
	}
	if _, err := etcdnode.Start(t.Context(), c.Config("n3")); !errors.Is(err, etcdcluster.ErrNotMember) || !strings.Contains(err.Error(), "member remove n3") {
		t.Errorf("a lost disk: %v", err)
	}
	stranger := c.Config("n3")
	stranger.Cluster.Peers["n3"] = clustertest.FreeAddr(t)
	stranger.Cluster.Listen = stranger.Cluster.Peers["n3"]
	if _, err := etcdnode.Start(t.Context(), stranger); !errors.Is(err, etcdcluster.ErrNotMember) {
		t.Errorf("another address: %v", err)
	}
	stranger.Node, stranger.Cluster.Node = "n9", "n9"
	stranger.DataDir = t.TempDir()
	stranger.Cluster.Peers["n9"] = stranger.Cluster.Peers["n3"]
	delete(stranger.Cluster.Peers, "n3")
	if _, err := etcdnode.Start(t.Context(), stranger); !errors.Is(err, etcdcluster.ErrNotMember) || !strings.Contains(err.Error(), "member add n9=") {
		t.Errorf("nobody added it: %v", err)
	}
	single := c.Config("n1")
	c.Stop("n1")
	single.Cluster = nil
	if _, err := etcdnode.Start(t.Context(), single); !errors.Is(err, etcdcluster.ErrNotMember) || !strings.Contains(err.Error(), "--cluster n2="+c.Peers["n2"]) {
		t.Errorf("one of three alone: %v", err)
	}
}

// P12: the peer listener is for members of this region alone. A certificate of the same CA for another
// region or for an API client is refused, as are none at all and a TLS that is too old.
func TestPeersProveTheirRegion(t *testing.T) {
	c, ca := secured(t)
	for name := range c.Peers { // one node is enough of a cluster
		if name != "n1" {
			delete(c.Peers, name)
		}
	}
	c.Start("n1")
	c.Await("n1")
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(ca.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots.AppendCertsFromPEM(pem)
	stranger := clustertest.NewAuthority(t)
	pair := func(p etcdcluster.TLS) []tls.Certificate {
		t.Helper()
		cert, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{cert}
	}
	own := pair(*c.TLS)
	for _, a := range []struct {
		who     string
		cert    []tls.Certificate
		version uint16
		let     bool
	}{
		{"a member", own, tls.VersionTLS13, true},
		{"another region", pair(ca.Issue("eu-west" + etcdcluster.RegionSuffix)), tls.VersionTLS13, false},
		{"a region that ends alike", pair(ca.Issue("x.us-east" + etcdcluster.RegionSuffix)), tls.VersionTLS13, false},
		{"an API client", pair(ca.Issue("client.example.internal")), tls.VersionTLS13, false},
		{"the region, by another CA", pair(stranger.Issue("us-east" + etcdcluster.RegionSuffix)), tls.VersionTLS13, false},
		{"nobody", nil, tls.VersionTLS13, false},
		{"a member with an old TLS", own, tls.VersionTLS12, false},
	} {
		for _, path := range []string{"/members", "/raft/probing", "/leases"} {
			tr := &http.Transport{TLSClientConfig: &tls.Config{
				RootCAs: roots, Certificates: a.cert, ServerName: "us-east" + etcdcluster.RegionSuffix, MinVersion: tls.VersionTLS12, MaxVersion: a.version,
			}}
			client := http.Client{Transport: tr, Timeout: 5 * time.Second}
			resp, err := client.Get("https://" + c.Peers["n1"] + path)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != a.let {
				t.Errorf("%s at %s: %v", a.who, path, err)
			}
			tr.CloseIdleConnections()
		}
	}
	// The other way round: a member does not take the answer of whoever listens there.
	fake := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(etcdcluster.HeaderWaiting, "us-east/n2")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	fake.TLS = &tls.Config{Certificates: pair(ca.Issue("eu-west" + etcdcluster.RegionSuffix))}
	fake.StartTLS()
	defer fake.Close()
	cfg := etcdcluster.Config{Region: "us-east", Node: "n1", TLS: c.TLS, Listen: c.Peers["n1"], Peers: map[string]string{"n1": c.Peers["n1"], "n2": fake.Listener.Addr().String()}}
	if answers, err := etcdcluster.Ask(t.Context(), cfg); err != nil || len(answers) != 1 || answers[0].Err == nil {
		t.Errorf("a server of another region was believed: %+v, %v", answers, err)
	}
}

// A single node becomes the first of a cluster: its data stays, and others are added to it, each
// a voter by itself once it has caught up. Then it grows back to what it was by removing them.
func TestSingleNodeBecomesACluster(t *testing.T) {
	c, _ := secured(t)
	single := c.Config("n1")
	single.Cluster = nil
	n, err := etcdnode.Start(t.Context(), single)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStore(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), []store.Op{{Key: "a", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	epoch, err := s.Epoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	c.Start("n1")
	c.Await("n1")
	m, err := etcdcluster.NewMembers(*c.Config("n1").Cluster, c.Node("n1").Endpoint(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	soon(t, time.Minute, "its address is known", func() error {
		list, err := m.List(t.Context())
		if err == nil && (len(list) != 1 || list[0].Address != c.Peers["n1"]) {
			err = fmt.Errorf("%+v", list)
		}
		return err
	})
	if _, err := etcdnode.Start(t.Context(), c.Config("n2")); !errors.Is(err, etcdcluster.ErrNotMember) {
		t.Errorf("n2 came in without being added: %v", err)
	}
	for _, name := range []string{"n2", "n3"} {
		if _, err := m.Add(t.Context(), name, c.Peers[name]); err != nil {
			t.Fatal(err)
		}
		again, err := m.Add(t.Context(), name, c.Peers[name])
		if err != nil || again.Node != name || again.Role != api.RoleLearner {
			t.Errorf("adding %s again: %+v, %v", name, again, err)
		}
		if _, err := m.Add(t.Context(), "n9", "127.0.0.1:1"); api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), name) {
			t.Errorf("adding another one while %s is pending: %v", name, err)
		}
		c.Start(name)
		c.Await(name)
		soon(t, time.Minute, name+" votes", func() error {
			list, err := m.List(t.Context())
			if err != nil {
				return err
			}
			for _, o := range list {
				if o.Node == name && o.Role == api.RoleVoter && o.Answers {
					return nil
				}
			}
			return fmt.Errorf("%+v", list)
		})
	}
	s, err = openStore(t.Context(), c.Node("n3"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	img, err := s.Load(t.Context())
	if err != nil || len(img.Records) != 1 || img.Epoch != epoch {
		t.Errorf("n3 has %+v (%v), want one record in epoch %s", img, err, epoch)
	}

	// A learner that never starts is removed like any other.
	if _, err := m.Add(t.Context(), "n4", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(t.Context(), "n4", false); err != nil {
		t.Errorf("a learner that never started: %v", err)
	}
	if err := m.Remove(t.Context(), "n4", false); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("removed twice: %v", err)
	}
	// The leader hands over and goes; it ends, and says why.
	list, err := m.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(o api.Member) bool { return o.Leader })
	if i < 0 {
		t.Fatalf("nobody leads: %+v", list)
	}
	if err := m.Remove(t.Context(), list[i].Node, false); err != nil {
		t.Fatalf("remove the leader %s: %v", list[i].Node, err)
	}
	select {
	case err := <-c.Node(list[i].Node).Err():
		if !errors.Is(err, etcdcluster.ErrNotMember) {
			t.Errorf("the removed member ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the removed member runs on")
	}
}

// Adding again what was added without an answer, so that no name was noted, gives the member that is pending.
func TestMemberIsAddedAgainAfterALostAnswer(t *testing.T) {
	c := clustertest.New(t, "us-east", 1)
	c.StartAll()
	cl, err := etcdcluster.Dial(t.Context(), c.Node("n1").Endpoint(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	cfg := *c.Config("n1").Cluster
	address := clustertest.FreeAddr(t)
	if _, err := cl.MemberAddAsLearner(t.Context(), []string{cfg.URL(address)}); err != nil {
		t.Fatal(err)
	}
	m, err := etcdcluster.NewMembers(cfg, c.Node("n1").Endpoint(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Add(t.Context(), "n1", address); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("under the name of another member: %v", err)
	}
	for range 2 {
		o, err := m.Add(t.Context(), "n2", address)
		if err != nil || o.Node != "n2" || o.Address != address || o.Role != api.RoleLearner {
			t.Fatalf("added again: %+v, %v", o, err)
		}
	}
	if _, err := m.Add(t.Context(), "n3", address); api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "n2") {
		t.Errorf("another node at its address: %v", err)
	}
	if err := m.Remove(t.Context(), "n2", false); err != nil {
		t.Errorf("removed by its name: %v", err)
	}
}

// A member that was removed while it was down learns it from the others: it ends and says why, instead of starting
// over for ever.
func TestMemberRemovedWhileItWasDownIsTold(t *testing.T) {
	c := clustertest.New(t, "us-east", 3)
	c.StartAll()
	m, err := etcdcluster.NewMembers(*c.Config("n1").Cluster, c.Node("n1").Endpoint(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	c.Stop("n3")
	soon(t, time.Minute, "n3 is removed", func() error {
		err := m.Remove(t.Context(), "n3", false)
		if api.CodeOf(err) == api.CodeNotFound {
			err = nil
		}
		return err
	})
	n := c.Start("n3")
	select {
	case err := <-n.Err():
		if !errors.Is(err, etcdcluster.ErrNotMember) || !strings.Contains(err.Error(), "member add n3="+c.Peers["n3"]) {
			t.Errorf("the removed member ended with %v", err)
		}
	case <-n.Ready():
		t.Error("the removed member serves")
	case <-time.After(time.Minute):
		t.Error("the removed member waits on")
	}
}
