package etcdnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// A first start that is killed after it made its log and before it wrote the members into it leaves
// a log without any. etcd goes on from such a log for ever: it has no members, so nobody is
// elected. Nothing was promised there, to a client or to another member, as both need an entry
// that is on disk; so the member begins anew.

func (d *dataDir) member() string { return filepath.Join(d.etcd(), "member") }

// unbegun reports whether a member was made here that never got as far as its first entry. Whatever cannot be read
// is not: etcd finds out what is wrong with it.
func (d *dataDir) unbegun() bool {
	dir := filepath.Join(d.member(), "wal")
	if !wal.Exist(dir) || !d.databaseIsNew() {
		return false
	}
	quiet := zap.NewNop()
	w, err := wal.OpenForRead(quiet, dir, &walpb.Snapshot{})
	if err != nil {
		return false
	}
	defer w.Close()
	_, state, entries, err := w.ReadAll()
	if err != nil {
		return false
	}
	snaps, err := wal.ValidSnapshotEntries(quiet, dir)
	return err == nil && promisedNothing(state, entries, snaps)
}

// promisedNothing reports that a log holds no term, vote or commit. The first write to a log has
// the members and the term together, so members without a term are one that was cut off.
func promisedNothing(state *raftpb.HardState, entries []*raftpb.Entry, snaps []*walpb.Snapshot) bool {
	if state.GetTerm() != 0 || state.GetVote() != 0 || state.GetCommit() != 0 {
		return false
	}
	for _, e := range entries {
		if e.GetType() != raftpb.EntryConfChange {
			return false
		}
	}
	for _, s := range snaps {
		if s.GetIndex() != 0 {
			return false
		}
	}
	return true
}

// databaseIsNew reports that nothing of a log was ever applied to the database: there is none, or
// it has no members.
func (d *dataDir) databaseIsNew() bool {
	name := filepath.Join(d.member(), "snap", "db")
	switch info, err := os.Stat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return true
	case err != nil:
		return false
	case info.Size() == 0:
		return true
	}
	db, err := bbolt.Open(name, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return false
	}
	defer db.Close()
	fresh := true
	err = db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte("members")); b != nil {
			if k, _ := b.Cursor().First(); k != nil {
				fresh = false
			}
		}
		if b := tx.Bucket([]byte("meta")); b != nil {
			if v := b.Get([]byte("consistent_index")); len(v) == 8 && binary.BigEndian.Uint64(v) != 0 {
				fresh = false
			}
		}
		return nil
	})
	return err == nil && fresh
}

// clearUnbegun removes what a first start that was killed has left, and nothing else.
func (n *Node) clearUnbegun() error {
	if !n.dir.unbegun() {
		return nil
	}
	if err := os.RemoveAll(n.dir.member()); err != nil {
		return notWritable(n.dir.path, fmt.Errorf("remove what a first start that was cut off left: %w", err))
	}
	n.cfg.Logger.Info("the first start here was cut off before anything was stored; the store begins anew", "dir", n.dir.etcd())
	return nil
}
