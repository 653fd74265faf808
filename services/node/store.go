package node

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/etcdchild"
	"github.com/nearside/nearside/region/store/etcdcluster"
	"github.com/nearside/nearside/region/store/etcdnode"
	"github.com/nearside/nearside/region/store/etcdstore"
	"github.com/nearside/nearside/services/backup"
)

// openedStore is where a node keeps its region's records, whichever mode the configuration
// asks for. What a mode does not have is nil.
type openedStore struct {
	Store   store.Store
	Room    func(grows bool) error // why the disk takes no puts (true) or nothing (false)
	Trouble func() string          // why the store cannot answer, from who looks after it; "" = it can
	Changed <-chan struct{}        // receives after Trouble has changed
	Fatal   <-chan error           // the store cannot be started, and nobody but a human helps
	Space   func() etcdnode.Space  // sizes and upkeep, for the metrics
	Members registry.Members       // the region's members, to list, add and remove

	closers []func() error // in the order of closing
}

// Close ends the store. The registry must have ended before.
func (o *openedStore) Close() error {
	var errs []error
	for _, c := range o.closers {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// What helps when the quota is reached, by who looks after the etcd.
const (
	whenFull         = "deregister what is not needed, and the rest is done by the node; or start every node of the region with a larger --store-quota"
	whenFullExternal = "it is not looked after from here: compact it (etcdctl compaction), then etcdctl defrag every member, then etcdctl alarm disarm; or raise its --quota-backend-bytes"
)

// openStore locks the data directory and begins to open the store that cfg names: once it has returned,
// everything in there is this node's. It does not wait for the store to answer: until it does, every
// call to it gets store.ErrUnavailable. ctx bounds the opening only. The caller closes what is returned.
func openStore(ctx context.Context, cfg Config, log *slog.Logger) (*openedStore, error) {
	if len(cfg.EtcdEndpoints) > 0 {
		return openExternal(ctx, cfg, log)
	}
	return openEmbedded(ctx, cfg, log)
}

// openEmbedded runs a member beside this node: alone, or one of a cluster.
func openEmbedded(ctx context.Context, cfg Config, log *slog.Logger) (_ *openedStore, err error) {
	if err := backup.HalfDone(cfg.DataDir); err != nil {
		return nil, err
	}
	changed := make(chan struct{}, 1)
	var client atomic.Pointer[etcdstore.Store]
	cluster := cfg.cluster()
	etcd, err := etcdchild.Start(etcdchild.Config{
		Config: etcdnode.Config{
			Region: cfg.Region, Node: cfg.Node, DataDir: filepath.Join(cfg.DataDir, "etcd"), Cluster: cluster, Logger: log, CompactEvery: cfg.TestCompactEvery,
			QuotaBytes: int64(cfg.StoreQuota),
		},
		OnChange: func(st etcdchild.State) {
			if c := client.Load(); c != nil && st.Phase == etcdchild.Ready {
				c.Hurry()
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return nil, err
	}
	o := &openedStore{Room: etcd.Room, Trouble: etcd.Trouble, Changed: changed, Fatal: etcd.Err(), Space: etcd.Space, closers: []func() error{etcd.Close}}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	records, err := etcdstore.Open(ctx, etcdstore.Config{Endpoints: []string{etcd.Endpoint()}, Region: cfg.Region, Room: etcd.Room, WhenFull: whenFull, Lazy: true, Logger: log})
	if err != nil {
		return nil, err
	}
	client.Store(records)
	o.Store, o.closers = records, slices.Insert(o.closers, 0, records.Close)
	if cluster != nil {
		members, err := etcdcluster.NewMembers(*cluster, etcd.Endpoint(), log)
		if err != nil {
			return nil, err
		}
		o.Members, o.closers = members, slices.Insert(o.closers, 0, members.Close)
	}
	return o, nil
}

// openExternal uses an etcd that others run. It may be away, for as long as it likes.
func openExternal(ctx context.Context, cfg Config, log *slog.Logger) (*openedStore, error) {
	secure, err := cfg.etcdTLS()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cfg.DataDir, "etcd")
	held, member, err := etcdnode.Hold(dir, cfg.Region)
	if err != nil {
		return nil, err
	}
	if member {
		return nil, errors.Join(usage("save it with nearside snapshot save on a node without --etcd-endpoints, or move it away if its records are of no use",
			"--etcd-endpoints: %s holds the records of an embedded store, which would be left aside", dir), held.Close())
	}
	records, err := etcdstore.Open(ctx, etcdstore.Config{Endpoints: cfg.EtcdEndpoints, Region: cfg.Region, TLS: secure, WhenFull: whenFullExternal, Lazy: true, Logger: log})
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	log.Info("the store is an external etcd", "endpoints", cfg.EtcdEndpoints)
	return &openedStore{Store: records, closers: []func() error{records.Close, held.Close}}, nil
}
