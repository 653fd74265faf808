package clustertest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/clustertest"
	"github.com/nearside/nearside/region/store/etcdcluster"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/region/store/storetest"
)

// These tests are not in etcdstore, which holds that no goroutine is left: members that shared a
// process leave etcd's own connections to each other behind.

// shared runs the suite on one etcd that all its tests share: each begins by emptying it.
type shared struct {
	cfg     etcdstore.Config
	restart func(t *testing.T) // as a crash would
}

func (h shared) client(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: h.cfg.Endpoints, TLS: h.cfg.TLS, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (h shared) open(t *testing.T) store.Store {
	t.Helper()
	var s *etcdstore.Store
	soon(t, func() (err error) {
		s, err = etcdstore.Open(t.Context(), h.cfg)
		return err
	})
	return s
}

func soon(t *testing.T, try func() error) {
	t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-late.C:
			t.Fatal(err)
		}
	}
}

func (h shared) run(t *testing.T) {
	storetest.Run(t, storetest.Kit{
		Open: func(t *testing.T) store.Store {
			c := h.client(t)
			soon(t, func() error {
				_, err := c.AlarmDisarm(t.Context(), &clientv3.AlarmMember{})
				return err
			})
			if _, err := c.Delete(t.Context(), "/nearside/v1/", clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
			return h.open(t)
		},
		Reopen: func(t *testing.T, s store.Store) store.Store {
			_ = s.Close()
			h.restart(t)
			return h.open(t)
		},
		Compact: func(t *testing.T, _ store.Store, rev uint64) {
			if _, err := h.client(t).Compact(t.Context(), int64(rev)); err != nil {
				t.Fatal(err)
			}
		},
		Fill: func(t *testing.T, _ store.Store) {
			c := h.client(t)
			members, err := c.MemberList(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, err = etcdserverpb.NewMaintenanceClient(c.ActiveConnection()).Alarm(t.Context(), &etcdserverpb.AlarmRequest{
				Action: etcdserverpb.AlarmRequest_ACTIVATE, MemberID: members.Members[0].ID, Alarm: etcdserverpb.AlarmType_NOSPACE,
			})
			if err != nil {
				t.Fatal(err)
			}
		},
	})
}

// The suite, on a member of a cluster of three that prove themselves by certificates.
func TestStoreOnACluster(t *testing.T) {
	c := clustertest.New(t, storetest.Region, 3)
	pair := clustertest.NewAuthority(t).Issue(string(storetest.Region) + etcdcluster.RegionSuffix)
	c.TLS = &pair
	c.Change = func(cfg *etcdnode.Config) { cfg.UpkeepInterval = -1 } // a full store stays full
	c.StartAll()
	shared{
		cfg: etcdstore.Config{Endpoints: []string{c.Node("n1").Endpoint()}, Region: storetest.Region},
		restart: func(t *testing.T) {
			c.Stop("n1")
			c.Start("n1")
			c.Await("n1")
		},
	}.run(t)
}

func clientTLS(t *testing.T, p etcdcluster.TLS) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(p.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: roots}
}

// The suite, on an etcd process that is not ours, over TLS.
func TestStoreOnAnExternalEtcd(t *testing.T) {
	pair := clustertest.NewAuthority(t).Issue("etcd.test")
	e := clustertest.NewExternal(t, &pair)
	e.Start()
	shared{
		cfg:     etcdstore.Config{Endpoints: []string{e.URL}, Region: storetest.Region, TLS: clientTLS(t, pair)},
		restart: func(*testing.T) { e.Kill(); e.Start() },
	}.run(t)
}

// Failure 21, P11: a store that is away when the node starts is opened once it is there; the
// stamp is checked before anything is read or written.
func TestLazyStoreOpensWhenEtcdComes(t *testing.T) {
	e := clustertest.NewExternal(t, nil)
	cfg := etcdstore.Config{Endpoints: []string{e.URL}, Region: storetest.Region, Lazy: true, RequestTimeout: 500 * time.Millisecond}
	s, err := etcdstore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("open while etcd is away: %v", err)
	}
	defer s.Close()
	for what, call := range map[string]func(context.Context) error{
		"load":    func(ctx context.Context) error { _, err := s.Load(ctx); return err },
		"commit":  func(ctx context.Context) error { _, err := s.Commit(ctx, []store.Op{{Key: "a"}}); return err },
		"barrier": func(ctx context.Context) error { _, err := s.Barrier(ctx); return err },
		"epoch":   func(ctx context.Context) error { _, err := s.Epoch(ctx); return err },
		"raise":   func(ctx context.Context) error { _, err := s.RaiseEpoch(ctx, 1); return err },
		"watch": func(ctx context.Context) error {
			return s.Watch(ctx, 0, func(store.Batch) error { return nil }, nil)
		},
	} {
		if err := call(t.Context()); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s while etcd is away: %v", what, err)
		}
	}
	e.Start()
	soon(t, func() error { _, err := s.Commit(t.Context(), []store.Op{{Key: "a", Value: []byte("1")}}); return err })

	cfg.Region = "us-east"
	other, err := etcdstore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Commit(t.Context(), []store.Op{{Key: "a", Value: []byte("2")}}); !errors.Is(err, store.ErrWrongRegion) {
		t.Errorf("another region's commit: %v", err)
	}
	if img, err := s.Load(t.Context()); err != nil || len(img.Records) != 1 || string(img.Records[0].Value) != "1" {
		t.Errorf("another region wrote: %+v, %v", img, err)
	}
}

// Failure 8 and 15: a commit whose leader is gone is given up as soon as another one leads.
func TestCommitsDoNotWaitForALeaderThatIsGone(t *testing.T) {
	c := clustertest.New(t, storetest.Region, 3)
	c.StartAll()
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{c.Node("n1").Endpoint()}, Region: storetest.Region, RequestTimeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Commit(t.Context(), []store.Op{{Key: "a"}}); err != nil {
		t.Fatal(err)
	}
	// Nothing is on its way when a leader hands over in good order, so this shows that a commit
	// survives a change of leader; that a lost one ends soon needs a kill: scenarios.TestLeaderKill3.
	m, err := etcdcluster.NewMembers(etcdcluster.Config{Region: storetest.Region, Node: "n1", Peers: c.Peers, Listen: c.Peers["n1"]}, c.Node("n1").Endpoint(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	list, err := m.List(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("members %+v, %v", list, err)
	}
	for _, o := range list {
		if !o.Answers || !o.Started || o.Role != "voter" || o.Version == "" || o.Address != c.Peers[o.Node] {
			t.Errorf("member %+v", o)
		}
	}
	for _, o := range list {
		if o.Leader && o.Node != "n1" {
			c.Stop(o.Node)
		}
	}
	soon(t, func() error { _, err := s.Commit(t.Context(), []store.Op{{Key: "b"}}); return err })
}
