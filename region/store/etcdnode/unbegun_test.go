package etcdnode_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/pkg/v3/pbutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/clustertest"
	"github.com/nearside/nearside/region/store/etcdnode"
)

// cutOff leaves in dir what a first start leaves that is killed between making its log and
// writing into it.
func cutOff(t *testing.T, dir string) {
	t.Helper()
	member := filepath.Join(dir, "etcd", "member")
	if err := os.MkdirAll(filepath.Join(member, "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	node, cluster := uint64(1), uint64(2)
	who := pbutil.MustMarshalMessage(&etcdserverpb.Metadata{NodeID: &node, ClusterID: &cluster})
	w, err := wal.Create(zap.NewNop(), filepath.Join(member, "wal"), who)
	if err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(member, "snap", "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// P11: a first start that is killed before its log has an entry leaves nothing that a later one
// trips over, alone and in a cluster.
func TestFirstStartThatWasCutOffBeginsAnew(t *testing.T) {
	dir := t.TempDir()
	cutOff(t, dir)
	n := start(t, config(dir))
	s, err := openStore(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), []store.Op{{Key: "a", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), n.Close()); err != nil {
		t.Fatal(err)
	}
	// What has begun is kept.
	s, err = openStore(t.Context(), start(t, config(dir)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if img, err := s.Load(t.Context()); err != nil || len(img.Records) != 1 {
		t.Errorf("the second start has %+v (%v)", img, err)
	}

	c := clustertest.New(t, "us-east", 3)
	cutOff(t, c.Config("n1").DataDir)
	c.StartAll()
}

// P11: kill -9 at any moment of the very first start.
func TestFirstStartMayBeKilledAtAnyMoment(t *testing.T) {
	for range 8 {
		dir := t.TempDir()
		c := startChild(t, "node", dir)
		// Until the log's directory is there, and then up to 20 ms more: around its first entries.
		logs := filepath.Join(dir, "etcd", "member")
		soon(t, 30*time.Second, "the first start makes its files", func() error {
			_, err := os.Stat(logs)
			return err
		})
		<-time.After(rand.N(20 * time.Millisecond))
		c.kill()
		n, err := etcdnode.Start(t.Context(), config(dir))
		if err != nil {
			t.Fatalf("the start after it: %v", err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
