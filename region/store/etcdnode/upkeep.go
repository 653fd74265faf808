package etcdnode

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nearside/nearside/region/store/etcdcluster"
)

// Upkeep is what an etcd otherwise needs an operator for: history is compacted by age and,
// when the quota comes near, by size; the database's file is defragmented when much of it is
// unused; the NOSPACE alarm is disarmed once there is space again (etcd never does it by
// itself, whatever is deleted).

const (
	upkeepTimeout = 5 * time.Second // of a question
	workTimeout   = 2 * time.Minute // of a compaction or defragmentation
)

// Space is what upkeep last saw and what it did since the start.
type Space struct {
	Size  int64 // bytes of the database's file
	InUse int64 // bytes of it that hold data
	Quota int64 // bytes beyond which etcd refuses puts
	Alarm bool  // it does

	DiskFree    uint64 // bytes; 0 also when it cannot be told
	DiskReserve uint64 // bytes below which Room refuses puts

	Compactions, Defragmentations, Disarms uint64

	Looks uint64 // how often upkeep has seen etcd answer
}

// upkeep is the state behind Space; all but the fields below mu belong to keep's goroutine.
type upkeep struct {
	policy policy

	mu    sync.Mutex
	space Space
}

// Space returns what upkeep last saw. It returns at once and is safe for concurrent use.
func (n *Node) Space() Space {
	n.upkeep.mu.Lock()
	s := n.upkeep.space
	n.upkeep.mu.Unlock()
	s.DiskFree, s.DiskReserve = n.room.seen.Load().free, n.room.reserve
	return s
}

func (n *Node) note(f func(*Space)) {
	n.upkeep.mu.Lock()
	defer n.upkeep.mu.Unlock()
	f(&n.upkeep.space)
}

// keep looks after the database until the member ends.
func (n *Node) keep() {
	log := n.cfg.Logger
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopped := make(chan struct{})
	defer close(stopped)
	n.helpers.Go(func() {
		defer cancel()
		select {
		case <-n.closing:
		case <-n.watched:
		case <-stopped:
		}
	})
	client, err := etcdcluster.Dial(ctx, n.Endpoint(), log)
	if err != nil {
		log.Error("the store is not looked after: history grows until it is full", "cause", err)
		return
	}
	defer client.GetLogger().Sync() // nothing comes after the close
	defer client.Close()
	defer func() {
		if n.tender.peers != nil {
			n.tender.peers.Close()
		}
	}()
	n.upkeep.policy = newPolicy(n.cfg.Retention)
	n.upkeep.policy.keepNone = n.cfg.CompactEvery > 0
	tick := time.NewTicker(n.cfg.UpkeepInterval)
	defer tick.Stop()
	failing := false
	for {
		err := n.tend(ctx, client)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			log.Warn("looking after the store failed; it is tried again", "cause", err, "every", n.cfg.UpkeepInterval.String())
		}
		failing = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// tend takes one look and does at most one compaction and one defragmentation.
func (n *Node) tend(ctx context.Context, c *clientv3.Client) error {
	p := &n.upkeep.policy
	s, st, err := n.measure(ctx, c)
	if err != nil {
		return err
	}
	at, err := n.stand(ctx, c, st)
	if err != nil {
		return err
	}
	if at.learns {
		return nil
	}
	if at.cluster {
		if err := n.tendCluster(ctx, c, at); err != nil {
			return err
		}
	}
	now := time.Now()
	p.sample(now, s.head)
	disk := n.room.seen.Load()
	if disk.level == roomNone {
		return nil // all of this writes
	}
	switch wants := p.wantsDefrag(now, s) && (!disk.known || disk.free >= uint64(s.inUse)+minReserve); {
	case !wants:
		n.tender.wantsDefrag = time.Time{}
	case n.myTurn(ctx, c, at, s, now):
		if s, err = n.defragment(ctx, c, s); err != nil {
			return err
		}
		p.defragmented, p.defragHead, n.tender.wantsDefrag = time.Now(), s.head, time.Time{}
	}
	if s.alarm && s.size <= s.enough() {
		disarmed, err := n.disarm(ctx, c, at)
		if err != nil {
			return fmt.Errorf("disarm the alarm: %w", err)
		}
		if disarmed {
			p.stuck = false
			n.note(func(s *Space) { s.Alarm = false; s.Disarms++ })
			n.cfg.Logger.Info("the store takes writes again", "size_bytes", s.size, "in_use_bytes", s.inUse, "quota_bytes", s.quota)
			return nil
		}
		// It is another member's, which does the same once it fits. For that it may need the history dropped.
	}
	if at.leads && !n.tender.led {
		p.done = 0 // what was dropped is known to who did it, and that one may have died before it did
	}
	n.tender.led = at.leads
	if to := p.compactTo(now, s); to > 0 {
		if !at.leads {
			p.compacted(now, s, to) // for all, by the one that leads
			return nil
		}
		return n.compact(ctx, c, s, to, now)
	}
	if s.alarm && s.inUse > s.enough() && !p.stuck {
		p.stuck = true
		n.cfg.Logger.Error("the store is full of records that are in use: deregister what is not needed, or raise its quota with --store-quota", "in_use_bytes", s.inUse, "quota_bytes", s.quota)
	}
	return nil
}

// measure asks etcd for its sizes.
func (n *Node) measure(ctx context.Context, c *clientv3.Client) (sizes, *clientv3.StatusResponse, error) {
	st, err := call(ctx, upkeepTimeout, func(ctx context.Context) (*clientv3.StatusResponse, error) {
		return c.Status(ctx, n.Endpoint())
	})
	if err != nil {
		return sizes{}, nil, fmt.Errorf("ask for the status: %w", err)
	}
	s := sizes{size: st.DbSize, inUse: st.DbSizeInUse, quota: n.cfg.QuotaBytes, head: st.Header.Revision}
	for _, e := range st.Errors {
		s.alarm = s.alarm || strings.Contains(e, etcdserverpb.AlarmType_NOSPACE.String())
	}
	n.note(func(sp *Space) { sp.Size, sp.InUse, sp.Quota, sp.Alarm = s.size, s.inUse, s.quota, s.alarm; sp.Looks++ })
	return s, st, nil
}

// compact drops history up to revision to.
func (n *Node) compact(ctx context.Context, c *clientv3.Client, s sizes, to int64, now time.Time) error {
	begun := time.Now()
	_, err := call(ctx, workTimeout, func(ctx context.Context) (*clientv3.CompactResponse, error) {
		return c.Compact(ctx, to, clientv3.WithCompactPhysical())
	})
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) { // by the run before this one
		return fmt.Errorf("compact to revision %d: %w", to, err)
	}
	n.upkeep.policy.compacted(now, s, to)
	n.note(func(s *Space) { s.Compactions++ })
	level := n.cfg.Logger.Debug
	if s.pressed() {
		level = n.cfg.Logger.Info
	}
	level("store compacted", "to_revision", to, "head", s.head, "size_bytes", s.size, "in_use_bytes_before", s.inUse,
		"quota_bytes", s.quota, "full", s.alarm, "took", time.Since(begun).Round(time.Millisecond).String())
	return nil
}

// defragment writes the database's file anew. Reads and writes wait meanwhile, so it is done
// rarely; with several members it must be done to one after the other, the leader last.
func (n *Node) defragment(ctx context.Context, c *clientv3.Client, s sizes) (sizes, error) {
	begun := time.Now()
	if _, err := call(ctx, workTimeout, func(ctx context.Context) (*clientv3.DefragmentResponse, error) {
		return c.Defragment(ctx, n.Endpoint())
	}); err != nil {
		return s, fmt.Errorf("defragment: %w", err)
	}
	took := time.Since(begun)
	after, _, err := n.measure(ctx, c)
	if err != nil {
		return s, err
	}
	n.note(func(s *Space) { s.Defragmentations++ })
	n.cfg.Logger.Info("store defragmented", "size_bytes_before", s.size, "size_bytes", after.size, "in_use_bytes", after.inUse,
		"quota_bytes", s.quota, "full", s.alarm, "took", took.Round(time.Millisecond).String())
	return after, nil
}

func call[T any](ctx context.Context, timeout time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return f(ctx)
}
