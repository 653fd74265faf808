package etcdcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/nearside/nearside/region/store/internal/zaplog"
	"github.com/nearside/nearside/sdk/api"
)

// Keys of the cluster's own in the store, beside the records.
const (
	root = "/nearside/v1/meta/cluster/"
	// nameRoot has the names of members that were added and have not started, by id: etcd
	// learns a member's name from itself.
	nameRoot = root + "name/"
	// HandoverKey holds the id of a leader that is to hand over; it does so itself.
	HandoverKey = root + "handover"
)

const (
	requestTimeout  = 5 * time.Second
	handoverTimeout = 7 * time.Second
	lookAgain       = 100 * time.Millisecond
	settleTimeout   = 7 * time.Second // longer than etcd's 5 s, shorter than a call of the API may take
	settleAgain     = 250 * time.Millisecond
)

// Members lists and changes the members of a cluster through this node's own. It is safe for
// concurrent use. Changes are made one at a time per node, and by etcd one at a time in all.
type Members struct {
	cfg      Config
	endpoint string
	client   *clientv3.Client
	peers    *PeerClient
	log      *slog.Logger
	changing chan struct{} // capacity 1: held by who changes the members
}

// NewMembers returns the members as the member at endpoint (unix://…) has them. It does not need it
// to answer yet. Close it before the member.
func NewMembers(cfg Config, endpoint string, log *slog.Logger) (*Members, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	client, err := Dial(context.Background(), endpoint, log)
	if err != nil {
		return nil, err
	}
	peers, err := NewPeerClient(cfg)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &Members{cfg: cfg, endpoint: endpoint, client: client, peers: peers, log: log, changing: make(chan struct{}, 1)}, nil
}

// Dial returns a client of one member for its upkeep: it says nothing of its own repeats.
func Dial(ctx context.Context, endpoint string, log *slog.Logger) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, Context: ctx,
		Logger:      zaplog.New(log.With("part", "etcd-upkeep"), func(message, _ string) bool { return strings.HasPrefix(message, "retrying of") }),
		DialOptions: []grpc.DialOption{grpc.WithNoProxy()},
	})
}

// Close releases the connections.
func (m *Members) Close() error {
	m.peers.Close()
	_ = m.client.Close() // the only error is that its context has ended
	_ = m.client.GetLogger().Sync()
	return nil
}

// List returns the members by name of their nodes.
func (m *Members) List(ctx context.Context) ([]api.Member, error) {
	list, leader, err := m.list(ctx)
	if err != nil {
		return nil, err
	}
	return m.describe(ctx, list, leader)
}

// list returns what etcd has, and the leader's id; 0 for none.
func (m *Members) list(ctx context.Context) ([]*etcdserverpb.Member, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	l, err := m.client.MemberList(ctx)
	if err != nil {
		return nil, 0, unavailable(err)
	}
	st, err := m.client.Status(ctx, m.endpoint)
	if err != nil {
		return nil, 0, unavailable(err)
	}
	return l.Members, st.Leader, nil
}

// describe asks every member whether it answers, and gives those that never started the names
// they were added under.
func (m *Members) describe(ctx context.Context, list []*etcdserverpb.Member, leader uint64) ([]api.Member, error) {
	names, err := m.names(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Member, len(list))
	var wg sync.WaitGroup
	for i, e := range list {
		out[i] = api.Member{
			Node: e.Name, ID: hexID(e.ID), Role: api.RoleVoter, Started: len(e.ClientURLs) > 0, Leader: e.ID == leader && leader != 0,
		}
		if out[i].Node == "" {
			out[i].Node = names[hexID(e.ID)]
		}
		if e.IsLearner {
			out[i].Role = api.RoleLearner
		}
		if len(e.PeerURLs) == 0 {
			continue
		}
		out[i].Address = addressOf(e.PeerURLs[0])
		if !out[i].Started {
			continue
		}
		wg.Go(func() {
			v, err := m.peers.Version(ctx, e.PeerURLs[0])
			out[i].Answers, out[i].Version = err == nil, v
		})
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b api.Member) int { return strings.Compare(a.Node+"\x00"+a.ID, b.Node+"\x00"+b.ID) })
	return out, nil
}

func (m *Members) names(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := m.client.Get(ctx, nameRoot, clientv3.WithPrefix())
	if err != nil {
		return nil, unavailable(err)
	}
	names := map[string]string{}
	for _, kv := range resp.Kvs {
		names[strings.TrimPrefix(string(kv.Key), nameRoot)] = string(kv.Value)
	}
	return names, nil
}

// Add lists a node's member as a learner. It becomes a voter once it has started and caught up: whichever
// member leads sees to that.
func (m *Members) Add(ctx context.Context, node, address string) (api.Member, error) {
	if !api.ValidLabel(node) {
		return api.Member{}, api.FieldError("node", "node "+api.Quote(node)+" is not valid", "use 1 to 63 of a-z, 0-9 and '-'")
	}
	if err := CheckAddress(address); err != nil {
		return api.Member{}, api.FieldError("address", "address: "+err.Error(), "give HOST:PORT at which the other members reach the node's --etcd-peer-addr")
	}
	if err := m.begin(ctx); err != nil {
		return api.Member{}, err
	}
	defer m.end()
	list, err := m.List(ctx)
	if err != nil {
		return api.Member{}, err
	}
	voters := 0
	var nameless *api.Member // added before, and whoever asked never heard of it, or its name was not noted
	for _, o := range list {
		switch {
		case o.Node == node && o.Address == address:
			return o, nil
		case o.Node == "" && o.Address == address && o.Role == api.RoleLearner && !o.Started:
			nameless = &o // if no other has the name
			continue
		case o.Node == node:
			return api.Member{}, conflict("remove it first, or give the new node a name of its own", "node %s is a member at %s already", node, o.Address)
		case o.Address == address:
			return api.Member{}, conflict("remove that one first, or give the new node an address of its own", "%s is the address of node %s", address, o.Node)
		case o.Role == api.RoleLearner:
			return api.Member{}, conflict(fmt.Sprintf("start it and wait until it votes, or give it up: nearside region member remove %s", nodeOr(o)),
				"node %s was added and does not vote yet; members are added one by one", nodeOr(o))
		}
		voters++
	}
	if nameless != nil {
		nameless.Node = node
		m.noteName(ctx, *nameless)
		return *nameless, nil
	}
	if voters >= MaxNodes {
		return api.Member{}, conflict("remove one first", "the cluster has %d members, and more make every write slower", voters)
	}
	var resp *clientv3.MemberAddResponse
	if err := settled(ctx, func(ctx context.Context) (err error) {
		resp, err = m.client.MemberAddAsLearner(ctx, []string{m.cfg.URL(address)})
		return err
	}); err != nil {
		return api.Member{}, changeError(err)
	}
	added := api.Member{Node: node, ID: hexID(resp.Member.ID), Address: address, Role: api.RoleLearner}
	m.noteName(ctx, added)
	m.log.Info("member added as a learner", "member", node, "id", added.ID, "address", address)
	return added, nil
}

// noteName keeps the name of a member that has not started, which etcd does not know.
func (m *Members) noteName(ctx context.Context, o api.Member) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := m.client.Put(ctx, nameRoot+o.ID, o.Node); err != nil {
		m.log.Warn("the name of an added member was not noted; until it starts it is known by its address", "node", o.Node, "address", o.Address, "cause", err)
	}
}

// Remove strikes a member off, by the name of its node, its address or its id.
func (m *Members) Remove(ctx context.Context, node string, force bool) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.end()
	list, err := m.List(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(o api.Member) bool { return o.Node == node || o.Address == node || o.ID == node })
	if i < 0 {
		var names []string
		for _, o := range list {
			names = append(names, nodeOr(o))
		}
		return &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("there is no member %s", api.Quote(node)), Remedy: "the members are " + strings.Join(names, ", ")}
	}
	target := list[i]
	if err := mayRemove(list, target); err != nil && !force {
		return err
	}
	if target.Leader && len(list) > 1 {
		if err := m.handOver(ctx, target); err != nil {
			return err
		}
	}
	id, err := parseID(target.ID)
	if err != nil {
		return err
	}
	if err := settled(ctx, func(ctx context.Context) error {
		_, err := m.client.MemberRemove(ctx, id)
		return err
	}); err != nil {
		return changeError(err)
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m.log.Info("member removed", "member", nodeOr(target), "id", target.ID, "address", target.Address)
	if target.Node != m.cfg.Node { // our own member may be gone before it answers
		if _, err := m.client.Delete(rctx, nameRoot+target.ID); err != nil {
			m.log.Debug("the name of a removed member stays noted", "id", target.ID, "cause", err)
		}
	}
	return nil
}

// begin waits for the change before this one, until ctx ends: whoever asked and has gone must
// not be served later.
func (m *Members) begin(ctx context.Context) error {
	select {
	case m.changing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return unavailable(fmt.Errorf("another change of the members is under way: %w", ctx.Err()))
	}
}

func (m *Members) end() { <-m.changing }

// settled makes a change of the members, and again while etcd says that they have not been
// connected to each other for long enough: after any change or start that takes 5 s.
func settled(ctx context.Context, change func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	again := time.NewTicker(settleAgain)
	defer again.Stop()
	var unwell error
	for {
		err := change(ctx)
		switch {
		case errors.Is(err, rpctypes.ErrUnhealthy):
			unwell = err
		case unwell != nil && ctx.Err() != nil:
			return unwell
		default:
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return unwell
		}
	}
}

// mayRemove tells whether the members that answer would still be a quorum.
func mayRemove(list []api.Member, target api.Member) error {
	if target.Role == api.RoleLearner {
		return nil
	}
	voters, answering := 0, 0
	var silent []string
	for _, o := range list {
		switch {
		case o.Role != api.RoleVoter || o.ID == target.ID:
			continue
		case o.Answers:
			answering++
		default:
			silent = append(silent, fmt.Sprintf("%s at %s", nodeOr(o), o.Address))
		}
		voters++
	}
	if voters == 0 {
		return conflict("stop the node and delete its data directory to give up the region; or add another member first",
			"node %s is the only member that votes: without it there is no store", nodeOr(target))
	}
	if need := voters/2 + 1; answering < need {
		return conflict("bring those back first, or remove one of them instead",
			"without node %s %d of the %d members left must answer, and %d would: %s would be missing", nodeOr(target), need, voters, answering, strings.Join(silent, " and "))
	}
	return nil
}

// handOver makes another member lead. Only the leader itself can, so it is asked through the
// store, unless it is our own.
func (m *Members) handOver(ctx context.Context, leader api.Member) error {
	ctx, cancel := context.WithTimeout(ctx, handoverTimeout)
	defer cancel()
	id, err := parseID(leader.ID)
	if err != nil {
		return err
	}
	if leader.Node == m.cfg.Node {
		err = HandOver(ctx, m.client, id)
	} else {
		_, err = m.client.Put(ctx, HandoverKey, leader.ID)
	}
	if err != nil {
		return changeError(err)
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		st, err := m.client.Status(ctx, m.endpoint)
		if err == nil && st.Leader != 0 && st.Leader != id {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &api.Error{
				Code: api.CodeUnavailable, Detail: fmt.Sprintf("node %s leads the cluster and did not hand over within %s; it was not removed", leader.Node, handoverTimeout),
				Remedy: "try again; if it hangs, stop it: another one leads then",
			}
		}
	}
}

// HandOver makes another voter lead than the one with id, which must be the member that client
// speaks to, and lead.
func HandOver(ctx context.Context, client *clientv3.Client, id uint64) error {
	l, err := client.MemberList(ctx)
	if err != nil {
		return err
	}
	err = errors.New("no other member votes")
	for _, o := range l.Members {
		if o.ID == id || o.IsLearner || len(o.ClientURLs) == 0 {
			continue
		}
		// One that does not answer does not take over, and the next one is tried.
		if _, err = client.MoveLeader(ctx, o.ID); err == nil {
			return nil
		}
	}
	return err
}

func nodeOr(o api.Member) string {
	if o.Node != "" {
		return o.Node
	}
	return o.Address
}

func hexID(id uint64) string { return fmt.Sprintf("%016x", id) }

func parseID(s string) (id uint64, err error) {
	_, err = fmt.Sscanf(s, "%x", &id)
	return id, err
}

func addressOf(peerURL string) string {
	_, addr, ok := strings.Cut(peerURL, "://")
	if _, _, err := net.SplitHostPort(addr); !ok || err != nil {
		return ""
	}
	return addr
}

func conflict(remedy, format string, args ...any) *api.Error {
	return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func unavailable(err error) *api.Error {
	return &api.Error{Code: api.CodeUnavailable, Detail: fmt.Sprintf("the cluster's members cannot be told: %v", err), Remedy: "most of them must run; see their logs and /readyz"}
}

// changeError says what etcd's refusal of a change means.
func changeError(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrMemberNotEnoughStarted), errors.Is(err, rpctypes.ErrUnhealthy):
		return conflict("see nearside region member list: those that are silent must come back first",
			"the change would leave too few members that are known to be well (etcd: %v)", err)
	case errors.Is(err, rpctypes.ErrTooManyLearners):
		return conflict("wait until it votes, or remove it", "another member was added and does not vote yet")
	case errors.Is(err, rpctypes.ErrPeerURLExist), errors.Is(err, rpctypes.ErrMemberExist):
		return conflict("see nearside region member list", "the address is a member's already")
	case errors.Is(err, rpctypes.ErrMemberNotFound):
		return &api.Error{Code: api.CodeNotFound, Detail: "the member is gone already"}
	}
	return unavailable(err)
}
