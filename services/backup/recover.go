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
	"strings"
	"time"

	"github.com/nearside/nearside/region/backup"
	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/sdk/api"
)

// Errors of Recover, wrapped with the subject and the remedy.
var (
	ErrNotConfirmed = errors.New("not confirmed")
	ErrNothingLost  = errors.New("nothing to recover from")
	ErrNoData       = errors.New("no data of a member")
)

// RecoverConfig says which node survived.
type RecoverConfig struct {
	Region  api.Region // required
	Node    string     // required; its name
	DataDir string     // required; of the node, which must not run
	Confirm string     // the region's name once more
	Quota   int64      // of the store, as Config.Quota
	Logger  *slog.Logger
}

// Recovered is what a recovery has made.
type Recovered struct {
	Region   api.Region `json:"region"`
	Node     string     `json:"node"`
	DataDir  string     `json:"data_dir"`
	Lost     []string   `json:"lost"` // the other members, as "NAME (URL)"
	Epoch    api.Epoch  `json:"epoch"`
	NewEpoch api.Epoch  `json:"new_epoch"`
	Records  int        `json:"records"`
	Kept     string     `json:"kept"` // where the old store is now
}

// Recovering begins the name of the directory in which a recovery works, below the data
// directory. Once the node is at work on its store, one that is there was left by a recovery that was killed.
const Recovering = ".recovering-"

// Recover makes a region of one node out of what the data directory of a surviving member
// of its cluster holds, in a new epoch. Until the last step nothing in the directory
// changes: the old store is copied, read from the copy through the form of a backup, and
// put aside when the new one takes its place. Errors wrap ErrNotConfirmed,
// ErrNothingLost, ErrNoData, or etcdnode's (ErrLocked for a node that runs) where they apply.
func Recover(ctx context.Context, cfg RecoverConfig) (res Recovered, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return res, err
	}
	if err := HalfDone(dir); err != nil {
		return res, err
	}
	old := filepath.Join(dir, "etcd")
	if _, err := os.Stat(filepath.Join(old, "etcd", "member", "snap", "db")); err != nil {
		return res, fmt.Errorf("%w: %s (%w); give the data directory of the node that survived", ErrNoData, dir, err)
	}
	held, _, err := etcdnode.Hold(old, cfg.Region)
	if err != nil {
		return res, err
	}
	defer held.Close()
	res = Recovered{Region: cfg.Region, Node: cfg.Node, DataDir: dir}
	if res.Lost, err = lost(etcdnode.Peers(old), cfg); err != nil {
		return res, err
	}
	if cfg.Confirm != string(cfg.Region) {
		return res, fmt.Errorf("%w: node %s would be the whole of region %s, in a new epoch; %s must never run again with their present data; what they acknowledged in their last moments and this node has not got is lost; to do it add --confirm %s",
			ErrNotConfirmed, cfg.Node, cfg.Region, strings.Join(res.Lost, " and "), cfg.Region)
	}
	work, err := os.MkdirTemp(dir, Recovering+"*")
	if err != nil {
		return res, err
	}
	defer func() {
		if e := os.RemoveAll(work); e != nil {
			err = errors.Join(err, e)
		}
	}()
	file := filepath.Join(work, "records.nearside")
	if err := salvage(ctx, cfg, old, filepath.Join(work, "copy"), file); err != nil {
		return res, fmt.Errorf("read the store of %s: %w", cfg.Node, err)
	}
	info, err := Inspect(file)
	if err != nil {
		return res, err
	}
	fresh := filepath.Join(work, "etcd")
	if res.NewEpoch, err = fill(ctx, Config{File: file, Quota: cfg.Quota, Logger: cfg.Logger}, info.Header, cfg.Node, fresh); err != nil {
		return res, fmt.Errorf("write the new store: %w", err)
	}
	res.Epoch, res.Records = info.Epoch, info.Records
	res.Kept = filepath.Join(dir, "etcd.before-recover-"+time.Now().UTC().Format("20060102-150405"))
	if err := install(fresh, old, res.Kept); err != nil {
		return res, fmt.Errorf("put the new store in its place: %w", err)
	}
	// The region has its new store, whatever becomes of the note.
	if err := audit(dir, res, cfg.Logger); err != nil {
		cfg.Logger.Error("the recovery is not in the event log", "cause", err)
	}
	return res, nil
}

// install puts the new store in the place of the old one, which is at kept afterwards. The exchange
// comes last: nothing that fails after it could take the old store along with the work directory.
func install(fresh, old, kept string) error {
	if _, err := os.Lstat(kept); err == nil {
		return &os.PathError{Op: "keep the old store at", Path: kept, Err: fs.ErrExist}
	}
	if err := os.Rename(fresh, kept); err != nil {
		return err
	}
	if err := swap(kept, old); err != nil {
		if _, errOld := os.Stat(old); errOld != nil {
			return err // in steps, and not undone: everything stays where it is
		}
		return errors.Join(err, os.Rename(kept, fresh))
	}
	return syncDir(filepath.Dir(old))
}

// lost returns the members other than this node's.
func lost(members []string, cfg RecoverConfig) ([]string, error) {
	if len(members) < 2 {
		return nil, fmt.Errorf("%w: %s is that of a node on its own; start it: it needs nobody", ErrNothingLost, cfg.DataDir)
	}
	var others []string
	for _, m := range members {
		if name, _, _ := strings.Cut(m, " "); name != cfg.Node {
			others = append(others, m)
		}
	}
	if len(others) == len(members) {
		return nil, fmt.Errorf("%w: %s is not the data of node %s, but of a cluster of %s; give the name of the node that this was with --node",
			ErrNothingLost, cfg.DataDir, cfg.Node, strings.Join(members, ", "))
	}
	return others, nil
}

// salvage writes what a copy of the old store holds to a backup file.
func salvage(ctx context.Context, cfg RecoverConfig, old, work, file string) (err error) {
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	if err := copyTree(filepath.Join(old, "etcd"), filepath.Join(work, "etcd")); err != nil {
		return err
	}
	node, err := etcdnode.Salvage(ctx, etcdnode.Config{Region: cfg.Region, Node: cfg.Node, DataDir: work, QuotaBytes: cfg.Quota, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close(), os.RemoveAll(work)) }()
	s, err := etcdstore.Open(ctx, etcdstore.Config{Endpoints: []string{node.Endpoint()}, Region: cfg.Region, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	defer s.Close()
	img, err := s.Load(ctx)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(backup.Write(f, cfg.Region, cfg.Node, time.Now(), img), f.Sync(), f.Close())
}

// copyTree copies the plain files below a directory.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case e.IsDir():
			return os.Mkdir(target, 0o700)
		case e.Type().IsRegular():
			return copyFile(path, target)
		}
		return nil
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// swapInSteps is for file systems that cannot exchange two names. Killed between the steps
// it leaves the old store put aside, which HalfDone tells.
func swapInSteps(a, b string) error {
	aside := b + putAside
	if err := os.Rename(b, aside); err != nil {
		return err
	}
	if err := os.Rename(a, b); err != nil {
		return errors.Join(err, os.Rename(aside, b))
	}
	return os.Rename(aside, a)
}

// audit leaves a note of it in the node's event log.
func audit(dir string, res Recovered, log *slog.Logger) error {
	l, err := events.Open(events.Config{Dir: filepath.Join(dir, "events"), Region: res.Region, Node: res.Node, Logger: log})
	if err != nil {
		return err
	}
	l.Record(api.Event{
		Kind: api.EventRecover, Region: res.Region, Node: res.Node, Subject: res.Node, Actor: fmt.Sprintf("uid %d", os.Getuid()),
		Cause:  api.EventCause{Kind: api.BecauseRequest},
		Detail: fmt.Sprintf("%d records; epoch %s after %s; lost: %s; the old store is %s", res.Records, res.NewEpoch, res.Epoch, strings.Join(res.Lost, ", "), filepath.Base(res.Kept)),
	})
	return l.Close()
}
