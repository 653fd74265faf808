package etcdnode

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/nearside/nearside/region/store/etcdcluster"
)

// hasData reports whether a member has ever begun here. One whose first start was cut off counts until
// clearUnbegun has removed it.
func (d *dataDir) hasData() bool { return wal.Exist(filepath.Join(d.member(), "wal")) }

// members reads who was a member when the database was last written; nil when it cannot be
// told: then etcd finds out what is wrong.
func (d *dataDir) members() []etcdcluster.Told {
	db, err := bbolt.Open(filepath.Join(d.etcd(), "member", "snap", "db"), 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil
	}
	defer db.Close()
	var out []etcdcluster.Told
	err = db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("members"))
		if b == nil {
			return nil
		}
		return b.ForEach(func(_, v []byte) error {
			var m etcdcluster.Told
			if err := json.Unmarshal(v, &m); err != nil {
				return err
			}
			out = append(out, m)
			return nil
		})
	})
	if err != nil {
		return nil // half a list would be taken for the whole
	}
	return out
}

// checkMode refuses to run one of several members as if it were alone: it would wait for the
// others without a word.
func (d *dataDir) checkMode(cl *etcdcluster.Config) error {
	if cl != nil || !d.hasData() {
		return nil
	}
	members := d.members()
	if len(members) < 2 {
		return nil
	}
	var flags []string
	for _, m := range members {
		if len(m.PeerURLs) > 0 {
			_, addr, _ := strings.Cut(m.PeerURLs[0], "://")
			flags = append(flags, fmt.Sprintf("--cluster %s=%s", m.Name, addr))
		}
	}
	slices.Sort(flags)
	return fmt.Errorf("%w: %s is that of one of %d members; start it with %s, or, if most of the others are lost for good, see nearside region recover --help",
		etcdcluster.ErrNotMember, d.path, len(members), strings.Join(flags, " "))
}
