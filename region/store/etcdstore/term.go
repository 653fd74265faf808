package etcdstore

import (
	"context"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A commit whose leader dies is lost without a word: a follower has handed it on, and waits for
// an answer that never comes until the request times out. So a commit that is slow looks
// whether the leader is still the one it began under, and gives up soon when it is not. Its outcome is
// as unknown as after a time-out, and the caller may try again at once.
const (
	slowCommit = 250 * time.Millisecond // from which on a commit looks
	termLook   = 100 * time.Millisecond // between two looks
	lateAnswer = 150 * time.Millisecond // for an answer of the new leader's: it may have the commit
)

// sawTerm notes the term of an answer.
func (s *Store) sawTerm(term uint64) {
	for {
		old := s.term.Load()
		if term <= old || s.term.CompareAndSwap(old, term) {
			return
		}
	}
}

// underOneLeader cancels a commit once another leader than the one it began under leads. It ends with rctx.
func (s *Store) underOneLeader(rctx context.Context, cancel context.CancelFunc) (changed *atomic.Bool) {
	changed = &atomic.Bool{}
	began := s.term.Load()
	if began == 0 {
		return changed // nothing to compare with
	}
	timer := time.AfterFunc(slowCommit, func() {
		for wait(rctx, termLook) {
			term, ok := s.askTerm(rctx)
			if !ok || term <= began {
				continue
			}
			s.sawTerm(term)
			if wait(rctx, lateAnswer) {
				changed.Store(true)
				cancel()
			}
			return
		}
	})
	context.AfterFunc(rctx, func() { timer.Stop() })
	return changed
}

// askTerm returns the term in which somebody leads now.
func (s *Store) askTerm(rctx context.Context) (uint64, bool) {
	if len(s.cfg.Endpoints) == 1 {
		st, err := s.client.Status(rctx, s.cfg.Endpoints[0])
		if err != nil || st.Leader == 0 {
			return 0, false
		}
		return st.RaftTerm, true
	}
	// Any of several members may answer; a linearizable read is answered under a leader only.
	resp, err := s.client.Get(rctx, epochKey, clientv3.WithKeysOnly())
	if err != nil {
		return 0, false
	}
	return resp.Header.RaftTerm, true
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
