package etcdstore

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// loadTries bounds how often Load starts over because the revision it reads at was
// compacted under it: that takes a load slower than the store's whole retention.
const loadTries = 3

// Load implements store.Store. The first page and the epoch come from one linearizable
// transaction, the other pages from its revision, so the image is of one moment.
func (s *Store) Load(ctx context.Context) (store.Image, error) {
	if err := s.open(ctx); err != nil {
		return store.Image{}, err
	}
	for try := 1; ; try++ {
		img, err := s.load(ctx)
		if errors.Is(err, store.ErrCompacted) && try < loadTries {
			continue
		}
		return img, err
	}
}

func (s *Store) load(ctx context.Context) (store.Image, error) {
	end := clientv3.GetPrefixRangeEnd(dataRoot)
	page := func(from string, more ...clientv3.OpOption) clientv3.Op {
		return clientv3.OpGet(from, append(more, clientv3.WithRange(end), clientv3.WithLimit(pageSize))...)
	}

	rctx, done := s.request(ctx)
	resp, err := s.client.Txn(rctx).Then(clientv3.OpGet(epochKey), page(dataRoot)).Commit()
	done()
	if err != nil {
		return store.Image{}, s.translate(ctx, err)
	}
	img := store.Image{Revision: uint64(resp.Header.Revision)}
	if img.Epoch, err = epochOf(resp.Responses[0].GetResponseRange().Kvs); err != nil {
		return store.Image{}, err
	}
	first := resp.Responses[1].GetResponseRange()
	img.Records = make([]store.Record, 0, first.Count)
	kvs, more := first.Kvs, first.More
	for {
		for _, kv := range kvs {
			img.Records = append(img.Records, record(kv))
		}
		if !more {
			return img, nil
		}
		next := string(kvs[len(kvs)-1].Key) + "\x00"
		rctx, done := s.request(ctx)
		resp, err := s.client.Do(rctx, page(next, clientv3.WithRev(int64(img.Revision))))
		done()
		if err != nil {
			return store.Image{}, s.translate(ctx, err)
		}
		kvs, more = resp.Get().Kvs, resp.Get().More
	}
}

func record(kv *mvccpb.KeyValue) store.Record {
	return store.Record{Key: string(kv.Key)[len(dataRoot):], Value: kv.Value, Revision: uint64(kv.ModRevision)}
}

// errEmptied: etcd answers, and it is not the store any more. Nothing is written to it: what memory shows is of
// another history, and a write that is acknowledged would not be seen (P1).
var errEmptied = fmt.Errorf("%w: %s is missing: the store was emptied while in use; start this node again to begin a new history", store.ErrUnavailable, epochKey)

// epochOf reads the epoch's record. Its absence means that somebody emptied the store below us.
func epochOf(kvs []*mvccpb.KeyValue) (api.Epoch, error) {
	if len(kvs) == 0 {
		return api.Epoch{}, errEmptied
	}
	return parseEpoch(kvs[0].Value)
}

// Epoch implements store.Store.
func (s *Store) Epoch(ctx context.Context) (api.Epoch, error) {
	if err := s.open(ctx); err != nil {
		return api.Epoch{}, err
	}
	e, _, err := s.epoch(ctx)
	return e, err
}

func (s *Store) epoch(ctx context.Context) (e api.Epoch, revision int64, err error) {
	rctx, done := s.request(ctx)
	defer done()
	resp, err := s.client.Get(rctx, epochKey)
	if err != nil {
		return api.Epoch{}, 0, s.translate(ctx, err)
	}
	if e, err = epochOf(resp.Kvs); err != nil {
		return api.Epoch{}, 0, err
	}
	return e, resp.Kvs[0].ModRevision, nil
}

// RaiseEpoch implements store.Store by compare-and-set, so nodes that raise at once end up
// with one epoch.
func (s *Store) RaiseEpoch(ctx context.Context, above uint64) (api.Epoch, error) {
	if above == ^uint64(0) {
		return api.Epoch{}, errors.New("no epoch is above the highest")
	}
	if err := s.open(ctx); err != nil {
		return api.Epoch{}, err
	}
	for {
		old, rev, err := s.epoch(ctx)
		if err != nil || old.Generation > above {
			return old, err
		}
		nonce, err := newNonce()
		if err != nil {
			return api.Epoch{}, err
		}
		e := api.Epoch{Generation: above + 1, Nonce: nonce}
		rctx, done := s.request(ctx)
		resp, err := s.client.Txn(rctx).
			If(clientv3.Compare(clientv3.ModRevision(epochKey), "=", rev)).
			Then(clientv3.OpPut(epochKey, e.String())).
			Commit()
		done()
		if err != nil {
			return api.Epoch{}, s.translate(ctx, err)
		}
		if resp.Succeeded {
			return e, nil
		}
		// Another node was quicker: look at what it wrote. Each round some node succeeds.
	}
}
