// Package backup puts a saved region into a new data directory, while no node runs there.
//
// The directory appears in one step: the records go to a store in a directory beside, which
// is renamed once everything is in it and safe. Whatever ends a restore half-way leaves
// nothing that a node would take for a region, and what it leaves the next restore or node
// sweeps away.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/sdk/api"
)

// Errors of Restore, wrapped with the subject and the remedy.
var (
	ErrNotEmpty    = errors.New("the data directory is not empty")
	ErrWrongRegion = errors.New("the backup is of another region")
	ErrBusy        = errors.New("another restore is at work")
)

// Config says what to restore, and where.
type Config struct {
	File    string
	DataDir string     // of the node to be; missing or empty
	Region  api.Region // the region the backup must be of; "" = whichever it is of
	Quota   int64      // of the store; 0 = etcdnode.DefaultQuota. More than that needs a node with the same
	Logger  *slog.Logger
}

// Result is what a restore has made.
type Result struct {
	backup.Info
	DataDir  string    `json:"data_dir"`
	NewEpoch api.Epoch `json:"new_epoch"`
}

// Inspect says what the backup in a file holds, after checking all of it.
func Inspect(file string) (backup.Info, error) {
	f, err := os.Open(file)
	if err != nil {
		return backup.Info{}, err
	}
	defer f.Close()
	info, err := backup.Inspect(f)
	if err != nil {
		return backup.Info{}, fmt.Errorf("%s: %w", file, err)
	}
	return info, nil
}

// Restore fills an empty data directory from a backup. The region begins a new epoch, one
// generation above the saved one: what was written after the backup was taken is gone, so
// everyone who saw it must start anew. Instances get a full TTL when a node starts there. Errors wrap
// ErrNotEmpty, ErrBusy, ErrWrongRegion, backup.ErrDamaged, or etcdnode's where they apply.
func Restore(ctx context.Context, cfg Config) (res Result, err error) {
	// All of the file is checked before anything is made.
	info, err := Inspect(cfg.File)
	if err != nil {
		return Result{}, err
	}
	if cfg.Region != "" && cfg.Region != info.Region {
		return Result{}, fmt.Errorf("%w: %s holds region %s, and %s is asked for; use --region %s, or another file",
			ErrWrongRegion, cfg.File, info.Region, cfg.Region, info.Region)
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return Result{}, err
	}
	if err := prepare(dir); err != nil {
		return Result{}, err
	}
	work, err := newSite(dir)
	if err != nil {
		return Result{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, work.remove())
		} else {
			err = work.release()
		}
	}()
	epoch, err := fill(ctx, cfg, info.Header, string(info.Region)+"-1", work.path)
	if err != nil {
		return Result{}, fmt.Errorf("restore %s: %w", cfg.File, err)
	}
	// It fails when another restore was quicker: its directory is not empty.
	if err := os.Rename(work.path, filepath.Join(dir, "etcd")); err != nil {
		return Result{}, err
	}
	if err := syncDir(dir); err != nil {
		return Result{}, err
	}
	return Result{Info: info, DataDir: dir, NewEpoch: epoch}, nil
}

// prepare makes the directory, or checks that nothing is in it but what the making of a
// file system left, and what restores left that were killed: that goes.
func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := Sweep(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "lost+found":
		default:
			return fmt.Errorf("%w: %s holds %s; choose an empty one with --data-dir, or move its content away", ErrNotEmpty, dir, api.Quote(name))
		}
	}
	return nil
}

// fill makes the store of the node of that name in work and returns the epoch that it begins.
func fill(ctx context.Context, cfg Config, head backup.Header, name, work string) (_ api.Epoch, err error) {
	node, err := etcdnode.Start(ctx, etcdnode.Config{Region: head.Region, Node: name, DataDir: work, QuotaBytes: cfg.Quota, Logger: cfg.Logger})
	if err != nil {
		return api.Epoch{}, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	s, err := etcdstore.Open(ctx, etcdstore.Config{Endpoints: []string{node.Endpoint()}, Region: head.Region, Room: node.Room, Logger: cfg.Logger})
	if err != nil {
		return api.Epoch{}, err
	}
	defer s.Close()
	f, err := os.Open(cfg.File)
	if err != nil {
		return api.Epoch{}, err
	}
	defer f.Close()
	again, err := put(ctx, s, f)
	if err != nil {
		return api.Epoch{}, err
	}
	if again != head {
		return api.Epoch{}, fmt.Errorf("%w: it changed while it was read", backup.ErrDamaged)
	}
	epoch, err := s.RaiseEpoch(ctx, head.Epoch.Generation)
	if err != nil {
		return api.Epoch{}, err
	}
	img, err := s.Load(ctx)
	if err != nil {
		return api.Epoch{}, err
	}
	if len(img.Records) != head.Records || img.Epoch != epoch {
		return api.Epoch{}, fmt.Errorf("%d of %d records arrived in the store", len(img.Records), head.Records)
	}
	return epoch, nil
}

// put writes the records of a backup into an empty store, as many at once as it takes.
func put(ctx context.Context, s store.Store, r io.Reader) (backup.Header, error) {
	var ops []store.Op
	size := 0
	commit := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, err := s.Commit(ctx, ops)
		ops, size = ops[:0], 0
		return err
	}
	head, err := backup.Read(r, func(rec store.Record) error {
		n := len(rec.Key) + len(rec.Value)
		if len(ops) == store.MaxOps || size+n > store.MaxBytes {
			if err := commit(); err != nil {
				return err
			}
		}
		ops, size = append(ops, store.Op{Key: rec.Key, Value: rec.Value}), size+n
		return nil
	})
	if err != nil {
		return head, err
	}
	return head, commit()
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, fs.ErrInvalid) {
		err = nil // a file system that cannot sync directories
	}
	return errors.Join(err, f.Close())
}
