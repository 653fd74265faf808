package clustertest_test

import (
	"errors"
	"fmt"
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

// P10, P11: a member that reached the quota and died before it could shrink keeps nobody from writing. While it
// lives its alarm stands, and the leader drops the history that it has to be rid of.
func TestFullMemberThatIsAwayHoldsUpNobody(t *testing.T) {
	c := clustertest.New(t, storetest.Region, 3)
	c.Change = func(cfg *etcdnode.Config) {
		cfg.QuotaBytes, cfg.UpkeepInterval = 16<<20, 50*time.Millisecond
		if cfg.Node == "n3" {
			cfg.UpkeepInterval = -1 // it does nothing about it
		}
	}
	c.StartAll()
	client := func(node string) *clientv3.Client {
		cl, err := clientv3.New(clientv3.Config{Endpoints: []string{c.Node(node).Endpoint()}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cl.Close() })
		return cl
	}
	first, third := client("n1"), client("n3")
	var id uint64
	soon(t, func() error {
		st, err := third.Status(t.Context(), c.Node("n3").Endpoint())
		if err != nil {
			return err
		}
		if id = st.Header.MemberId; st.Leader == id {
			err = etcdcluster.HandOver(t.Context(), third, id)
		}
		return err
	})
	s, err := etcdstore.Open(t.Context(), etcdstore.Config{Endpoints: []string{c.Node("n1").Endpoint()}, Region: storetest.Region})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func() error {
		_, err := s.Commit(t.Context(), []store.Op{{Key: "a", Value: []byte("1")}})
		return err
	}
	soon(t, put)
	if _, err := etcdserverpb.NewMaintenanceClient(first.ActiveConnection()).Alarm(t.Context(), &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: etcdserverpb.AlarmType_NOSPACE,
	}); err != nil {
		t.Fatal(err)
	}
	soon(t, func() error {
		if n := c.Node("n1").Space().Compactions + c.Node("n2").Space().Compactions; n == 0 {
			return errors.New("nobody dropped the history")
		}
		return nil
	})
	if err := put(); !errors.Is(err, store.ErrFull) {
		t.Fatalf("a put while a member that answers is full: %v", err)
	}
	_ = third.Close()
	c.Stop("n3")
	soon(t, func() error {
		if err := put(); err != nil {
			return fmt.Errorf("with the full member away: %w", err)
		}
		return nil
	})
}
