package etcdnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nearside/nearside/region/store/etcdcluster"
)

// What upkeep does besides, when the member is one of several. Each member looks after its own
// database and address; what concerns all of them is done by whichever leads.

// standing is the member's place in its cluster, as of one look.
type standing struct {
	id      uint64
	leads   bool
	cluster bool // it is one of several, or could be
	learns  bool // it does not vote yet, and looks after its disk only
	members []*etcdserverpb.Member
}

// tender is what upkeep remembers of the cluster; it belongs to keep's goroutine.
type tender struct {
	peers       *etcdcluster.PeerClient
	atOwn       bool            // the cluster knows our present address
	silent      map[uint64]bool // members that do not answer the leader
	led         bool            // the member led at the last look
	wantsDefrag time.Time       // since when; zero: it does not
}

// stand asks for the members.
func (n *Node) stand(ctx context.Context, c *clientv3.Client, st *clientv3.StatusResponse) (standing, error) {
	at := standing{id: st.Header.MemberId, leads: true}
	if n.cfg.Cluster == nil {
		return at, nil
	}
	at.leads, at.cluster, at.learns = st.Leader == at.id, true, st.IsLearner
	if at.learns {
		return at, nil // it may not ask
	}
	l, err := call(ctx, upkeepTimeout, func(ctx context.Context) (*clientv3.MemberListResponse, error) { return c.MemberList(ctx) })
	if err != nil {
		return at, fmt.Errorf("ask for the members: %w", err)
	}
	at.members = l.Members
	slices.SortFunc(at.members, func(a, b *etcdserverpb.Member) int { return cmp.Compare(a.ID, b.ID) })
	return at, nil
}

// tendCluster does what the cluster needs of this member.
func (n *Node) tendCluster(ctx context.Context, c *clientv3.Client, at standing) error {
	err := n.keepAddress(ctx, c, at)
	if !at.leads {
		n.tender.silent = nil
		return err
	}
	n.tellSilent(ctx, at)
	return errors.Join(err, n.promote(ctx, c, at), n.handOverIfAsked(ctx, c, at))
}

// keepAddress makes the cluster know the address that the configuration has: of a single
// member that becomes the first of several, or of a node that moved.
func (n *Node) keepAddress(ctx context.Context, c *clientv3.Client, at standing) error {
	if n.tender.atOwn {
		return nil
	}
	own := n.cfg.Cluster.Own()
	i := slices.IndexFunc(at.members, func(m *etcdserverpb.Member) bool { return m.ID == at.id })
	if i < 0 {
		return nil
	}
	if old := at.members[i].PeerURLs; !slices.Equal(old, []string{own}) {
		if _, err := call(ctx, upkeepTimeout, func(ctx context.Context) (*clientv3.MemberUpdateResponse, error) {
			return c.MemberUpdate(ctx, at.id, []string{own})
		}); err != nil {
			return fmt.Errorf("tell the cluster the member's address %s: %w", own, err)
		}
		n.cfg.Logger.Info("the member's address is now "+own, "before", fmt.Sprint(old), "members", len(at.members),
			"next", "nearside region member add NODE=HOST:PORT adds further nodes")
	}
	n.tender.atOwn = true
	return nil
}

// promote makes learners that have caught up vote. Only a voter may, and the leader is one.
func (n *Node) promote(ctx context.Context, c *clientv3.Client, at standing) error {
	for _, m := range at.members {
		if !m.IsLearner || len(m.ClientURLs) == 0 {
			continue
		}
		_, err := call(ctx, upkeepTimeout, func(ctx context.Context) (*clientv3.MemberPromoteResponse, error) { return c.MemberPromote(ctx, m.ID) })
		switch {
		case err == nil:
			n.cfg.Logger.Info("the member has caught up and votes from now on", "member", m.Name)
		case errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
			n.cfg.Logger.Debug("a learner has not caught up yet", "member", m.Name)
		default:
			return fmt.Errorf("let member %s vote: %w", m.Name, err)
		}
	}
	return nil
}

// handOverIfAsked gives up leading for whoever wants to remove this member.
func (n *Node) handOverIfAsked(ctx context.Context, c *clientv3.Client, at standing) error {
	resp, err := call(ctx, upkeepTimeout, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.Get(ctx, etcdcluster.HandoverKey)
	})
	if err != nil || len(resp.Kvs) == 0 {
		return err
	}
	if string(resp.Kvs[0].Value) == fmt.Sprintf("%016x", at.id) {
		if err := n.handOver(ctx, c, at, "it is to be removed"); err != nil {
			return err
		}
	}
	_, err = call(ctx, upkeepTimeout, func(ctx context.Context) (*clientv3.DeleteResponse, error) {
		return c.Delete(ctx, etcdcluster.HandoverKey)
	})
	return err
}

func (n *Node) handOver(ctx context.Context, c *clientv3.Client, at standing, why string) error {
	if _, err := call(ctx, 2*upkeepTimeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, etcdcluster.HandOver(ctx, c, at.id)
	}); err != nil {
		return fmt.Errorf("hand over the lead: %w", err)
	}
	n.cfg.Logger.Info("the member handed over the lead", "why", why)
	return nil
}

// tellSilent logs who stopped answering and who answers again; etcd's own words for it would
// fill the log.
func (n *Node) tellSilent(ctx context.Context, at standing) {
	if n.tender.peers == nil {
		p, err := etcdcluster.NewPeerClient(*n.cfg.Cluster)
		if err != nil {
			return
		}
		n.tender.peers = p
	}
	type answer struct {
		m   *etcdserverpb.Member
		err error
	}
	answers := make(chan answer, len(at.members))
	asked := 0
	for _, m := range at.members {
		if m.ID == at.id || len(m.ClientURLs) == 0 || len(m.PeerURLs) == 0 {
			continue
		}
		asked++
		go func() {
			_, err := n.tender.peers.Version(ctx, m.PeerURLs[0])
			answers <- answer{m, err}
		}()
	}
	silent := map[uint64]bool{}
	for range asked {
		a := <-answers
		switch was := n.tender.silent[a.m.ID]; {
		case a.err != nil && ctx.Err() == nil:
			silent[a.m.ID] = true
			if !was {
				n.cfg.Logger.Warn("a member of the cluster does not answer", "member", a.m.Name, "address", a.m.PeerURLs[0], "cause", a.err)
			}
		case was:
			n.cfg.Logger.Info("a member of the cluster answers again", "member", a.m.Name)
		}
	}
	n.tender.silent = silent
}

// myTurn reports whether this member's database may be written anew now: one member at a time,
// the leader last, and not while it leads.
func (n *Node) myTurn(ctx context.Context, c *clientv3.Client, at standing, s sizes, now time.Time) bool {
	if !at.cluster || len(at.members) <= 1 {
		return true
	}
	if n.tender.wantsDefrag.IsZero() {
		n.tender.wantsDefrag = now
	}
	slot := slotLength
	if s.alarm {
		slot = slotLengthFull
	}
	index := slices.IndexFunc(at.members, func(m *etcdserverpb.Member) bool { return m.ID == at.id })
	if !turn(now, slot, index, len(at.members)) {
		return false
	}
	if !at.leads {
		return true
	}
	if !leadsLast(n.tender.wantsDefrag, now, slot, len(at.members)) {
		return false
	}
	if err := n.handOver(ctx, c, at, "its database is to be written anew"); err != nil {
		n.cfg.Logger.Warn("nobody takes over the lead; the leader's database is written anew all the same", "cause", err)
		return true
	}
	return false // at the next look it does not lead any more
}

// disarm lifts the NOSPACE alarms that this member may lift: its own, and, when it leads, those
// of members that are gone or do not answer: they cannot do it, and one that comes back with too large a database
// arms its alarm again. It reports whether there were any.
func (n *Node) disarm(ctx context.Context, c *clientv3.Client, at standing) (bool, error) {
	l, err := call(ctx, upkeepTimeout, func(ctx context.Context) (*clientv3.AlarmResponse, error) { return c.AlarmList(ctx) })
	if err != nil {
		return false, err
	}
	some := false
	for _, a := range l.Alarms {
		// Only this alarm: one that says the data is corrupt must stay.
		if a.Alarm != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		if !mayDisarm(at, n.tender.silent, a.MemberID) {
			continue
		}
		if _, err := call(ctx, upkeepTimeout, func(ctx context.Context) (*clientv3.AlarmResponse, error) {
			return c.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: a.MemberID, Alarm: a.Alarm})
		}); err != nil {
			return some, err
		}
		some = true
	}
	return some, nil
}

// mayDisarm reports whether the member that stands at lifts member's alarm, given who does not answer.
func mayDisarm(at standing, silent map[uint64]bool, member uint64) bool {
	if member == at.id {
		return true
	}
	listed := slices.ContainsFunc(at.members, func(m *etcdserverpb.Member) bool { return m.ID == member })
	return at.cluster && at.leads && (!listed || silent[member])
}
