// Package etcdstore keeps a region's records in etcd, through etcd's ordinary client over
// gRPC. The member may be an etcdnode of this process or a cluster elsewhere that others use
// as well: everything lives below one prefix.
//
//	/nearside/v1/meta/region   the region's name: the stamp
//	/nearside/v1/meta/epoch    the epoch, "generation-nonce"
//	/nearside/v1/data/…        the records
//
// A watch is of all three, so that every node learns at once of an epoch that another one raised.
// Revisions are etcd's own. They also rise for what others write and for the epoch, so a
// revision may pass without a batch.
//
// Not the in-process client (v3client): it wedges when 50 watches are cancelled while writes
// flow (etcd #18879); the same over gRPC does not, and a test holds that.
package etcdstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/region/store/internal/zaplog"
	"github.com/nearside/nearside/sdk/api"
)

const (
	root      = "/nearside/v1/"
	regionKey = root + "meta/region"
	epochKey  = root + "meta/epoch"
	dataRoot  = root + "data/"
)

// pageSize is how many records one request of Load brings: with records of about 500 bytes
// some 1 MB, small enough not to hold up other requests.
const pageSize = 2000

var _ store.Store = (*Store)(nil)

// Store implements store.Store.
type Store struct {
	cfg    Config
	client *clientv3.Client
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	term     atomic.Uint64 // the highest of the leaders that answered
	stamped  atomic.Bool   // the store is known to be this region's
	stamping chan struct{} // capacity 1: held by who looks at the stamp

	mu      sync.Mutex
	watches map[*watch]struct{} // the running ones, for Barrier to nudge
}

// Open connects to etcd, stamps an empty store with the region and its first epoch, and
// checks the stamp of a used one (store.ErrWrongRegion). It needs etcd to answer within
// cfg.RequestTimeout, else store.ErrUnavailable, unless cfg.Lazy. ctx bounds Open only.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	sctx, cancel := context.WithCancel(context.Background())
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints,
		TLS:       cfg.TLS,
		Context:   sctx,
		// A member that vanished without a word is noticed after 10 + 5 s.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		Logger:               zaplog.New(cfg.Logger.With("part", "etcd-client"), meaningless),
		DialOptions: []grpc.DialOption{
			// gRPC's own back-off grows to two minutes: too long for a region to stay
			// read-only after its store is back.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
				MinConnectTimeout: 3 * time.Second,
			}),
			grpc.WithNoProxy(), // the store is infrastructure, never behind a web proxy
		},
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("etcd at %v: %w", cfg.Endpoints, err)
	}
	s := &Store{cfg: cfg, client: client, ctx: sctx, cancel: cancel, watches: make(map[*watch]struct{}), stamping: make(chan struct{}, 1)}
	if cfg.Lazy {
		return s, nil
	}
	if err := s.open(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// open makes sure, once, that the store is this region's. Calls before that take turns.
func (s *Store) open(ctx context.Context) error {
	if s.stamped.Load() {
		return nil
	}
	rctx, done := s.request(ctx)
	defer done()
	select {
	case s.stamping <- struct{}{}:
		defer func() { <-s.stamping }()
	case <-rctx.Done():
		return s.translate(ctx, fmt.Errorf("it has not answered yet: %w", context.Cause(rctx)))
	}
	if s.stamped.Load() {
		return nil
	}
	err := s.stamp(ctx) // with a time-out of its own for each request
	if err == nil {
		s.stamped.Store(true)
	}
	return err
}

// Hurry makes the client try again at once, instead of at the end of its back-off of up to 2 s:
// for a caller that knows that etcd is back.
func (s *Store) Hurry() { s.client.ActiveConnection().ResetConnectBackoff() }

// meaningless: the client logs a warning for every try of a request while etcd is away; the
// caller gets the error and says it once.
func meaningless(message, _ string) bool {
	return message == "retrying of unary invoker failed" || message == "retrying of streaming invoker failed"
}

// stamp makes the store this region's, or finds that it is.
func (s *Store) stamp(ctx context.Context) error {
	for {
		// Look first: etcd charges a transaction for its puts before it looks at the guards, so
		// one that only might write is refused by a store that has no space left.
		stamped, err := s.checkStamp(ctx)
		if stamped || err != nil {
			return err
		}
		if err := s.writeStamp(ctx); err != nil {
			return err
		}
		// Written, or another node was quicker. Looking again tells what stands.
	}
}

// checkStamp reports whether the store is this region's; false when it has no stamp yet.
func (s *Store) checkStamp(ctx context.Context) (bool, error) {
	rctx, done := s.request(ctx)
	defer done()
	resp, err := s.client.Txn(rctx).Then(clientv3.OpGet(regionKey), clientv3.OpGet(epochKey)).Commit()
	if err != nil {
		return false, s.translate(ctx, err)
	}
	region, epoch := resp.Responses[0].GetResponseRange().Kvs, resp.Responses[1].GetResponseRange().Kvs
	switch {
	case len(region) == 0 && len(epoch) == 0:
		return false, nil
	case len(region) == 0 || len(epoch) == 0:
		return false, fmt.Errorf("etcd at %v: one of %s and %s is missing, so its records cannot be told from another history's; restore a backup, or delete everything below %s to start empty",
			s.cfg.Endpoints, regionKey, epochKey, root)
	case string(region[0].Value) != string(s.cfg.Region):
		return false, fmt.Errorf("%w: etcd at %v holds region %s, and this node is of region %s; start it with --region %s, or give it a store of its own",
			store.ErrWrongRegion, s.cfg.Endpoints, api.Quote(string(region[0].Value)), api.Quote(string(s.cfg.Region)), api.Quote(string(region[0].Value)))
	}
	_, err = parseEpoch(epoch[0].Value)
	return err == nil, err
}

// writeStamp stamps a store that has no stamp; it does nothing when it has one.
func (s *Store) writeStamp(ctx context.Context) error {
	nonce, err := newNonce()
	if err != nil {
		return err
	}
	rctx, done := s.request(ctx)
	defer done()
	// One transaction: nodes of a new region that open at once agree on one epoch.
	_, err = s.client.Txn(rctx).
		If(clientv3.Compare(clientv3.ModRevision(regionKey), "=", 0), clientv3.Compare(clientv3.ModRevision(epochKey), "=", 0)).
		Then(
			clientv3.OpPut(regionKey, string(s.cfg.Region)),
			clientv3.OpPut(epochKey, api.Epoch{Generation: 1, Nonce: nonce}.String())).
		Commit()
	return s.translate(ctx, err)
}

func newNonce() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("random nonce of an epoch: %w", err)
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

func parseEpoch(text []byte) (api.Epoch, error) {
	e, err := api.ParseEpoch(string(text))
	if err == nil && e.IsZero() {
		err = fmt.Errorf("it is empty")
	}
	if err != nil {
		return api.Epoch{}, fmt.Errorf("the store's epoch at %s: %w", epochKey, err)
	}
	return e, nil
}

// request bounds one call to etcd by the caller's ctx, the request time-out and Close.
func (s *Store) request(ctx context.Context) (context.Context, context.CancelFunc) {
	rctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	stop := context.AfterFunc(s.ctx, cancel)
	return rctx, func() { stop(); cancel() }
}

// Commit implements store.Store with one etcd transaction.
func (s *Store) Commit(ctx context.Context, ops []store.Op) (uint64, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	if len(ops) == 0 {
		return s.Barrier(ctx)
	}
	var guards []clientv3.Cmp
	writes := make([]clientv3.Op, 0, len(ops))
	for _, op := range ops {
		key := dataRoot + op.Key
		if op.Guarded {
			// The revision of a missing key is 0, so one form serves both kinds of guard.
			guards = append(guards, clientv3.Compare(clientv3.ModRevision(key), "=", int64(op.If)))
		}
		switch {
		case op.Check:
		case op.Delete:
			writes = append(writes, clientv3.OpDelete(key))
		default:
			writes = append(writes, clientv3.OpPut(key, string(op.Value)))
		}
	}
	if s.cfg.Room != nil && len(writes) > 0 {
		if err := s.cfg.Room(store.Puts(ops)); err != nil {
			return 0, err
		}
	}
	if err := s.open(ctx); err != nil {
		return 0, err
	}
	rctx, done := s.request(ctx)
	defer done()
	changed := s.underOneLeader(rctx, done)
	if len(guards) < store.MaxOps { // etcd takes no more; in an emptied store that many guards do not all hold
		guards = append(guards, clientv3.Compare(clientv3.CreateRevision(epochKey), ">", 0))
	}
	resp, err := s.client.Txn(rctx).If(guards...).Then(writes...).Else(clientv3.OpGet(epochKey, clientv3.WithKeysOnly())).Commit()
	if err != nil && changed.Load() && ctx.Err() == nil && s.ctx.Err() == nil {
		return 0, fmt.Errorf("%w: another member leads it since the commit began", store.ErrUnavailable)
	}
	if err != nil {
		return 0, s.translate(ctx, err)
	}
	s.sawTerm(resp.Header.RaftTerm)
	if !resp.Succeeded {
		if len(resp.Responses[0].GetResponseRange().Kvs) == 0 {
			return 0, errEmptied
		}
		return 0, store.ErrConflict
	}
	return uint64(resp.Header.Revision), nil
}

// Barrier implements store.Store with a linearizable read of one small key.
func (s *Store) Barrier(ctx context.Context) (uint64, error) {
	if err := s.open(ctx); err != nil {
		return 0, err
	}
	rctx, done := s.request(ctx)
	defer done()
	resp, err := s.client.Get(rctx, epochKey, clientv3.WithKeysOnly())
	if err != nil {
		return 0, s.translate(ctx, err)
	}
	s.sawTerm(resp.Header.RaftTerm)
	if len(resp.Kvs) == 0 {
		return 0, errEmptied
	}
	rev := uint64(resp.Header.Revision)
	s.nudge(rev)
	return rev, nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.cancel()
	// The only error is that of the context just ended.
	_ = s.client.Close()
	_ = s.client.GetLogger().Sync()
	return nil
}
