package etcdnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"

	"github.com/nearside/nearside/region/store/internal/zaplog"
)

// Salvage runs one member of a cluster whose quorum is lost for good, alone, so that its
// records can be read. It changes the data directory for ever: give it a copy. Nothing may
// be built on what it runs; write the records to a new store.
//
// Everything in the member's log is taken as having happened, also the end that it does not
// know to be acknowledged: most of that was, by it and one of the lost members, and nobody is left to say which was not.
func Salvage(ctx context.Context, cfg Config) (*Node, error) {
	cfg.Cluster, cfg.UpkeepInterval = nil, -1
	cfg.salvage = true
	return Start(ctx, cfg)
}

// commitAll makes everything in the log count as committed. etcd itself would drop what the
// member has not been told of, which is up to a heartbeat's worth of acknowledged writes.
func (d *dataDir) commitAll(log *zap.Logger) error {
	dir := filepath.Join(d.etcd(), "member", "wal")
	snaps, err := wal.ValidSnapshotEntries(log, dir)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	from := &walpb.Snapshot{}
	if n := len(snaps); n > 0 {
		from = snaps[n-1]
	}
	for repaired := false; ; repaired = true {
		w, err := wal.Open(log, dir, from)
		if err != nil {
			return fmt.Errorf("open the log: %w", err)
		}
		_, state, entries, err := w.ReadAll()
		if errors.Is(err, io.ErrUnexpectedEOF) && !repaired {
			_ = w.Close()
			if !wal.Repair(log, dir) {
				return fmt.Errorf("%w: the log's end is damaged and cannot be repaired", ErrCorrupt)
			}
			continue
		}
		if err != nil {
			return errors.Join(fmt.Errorf("read the log: %w", err), w.Close())
		}
		if n := len(entries); n > 0 {
			if last := entries[n-1].GetIndex(); last > state.GetCommit() {
				state.Commit = &last
				if err := w.Save(state, nil); err != nil {
					return errors.Join(fmt.Errorf("write the log: %w", err), w.Close())
				}
			}
		}
		return w.Close()
	}
}

// prepareSalvage makes the directory ready for a start that forces a new cluster.
func (n *Node) prepareSalvage() error {
	return n.dir.commitAll(zaplog.New(n.cfg.Logger.With("part", "etcd"), n.meaningless))
}
