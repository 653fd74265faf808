package events

import (
	"fmt"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// sequence is the sequencer: it alone gives ids.
func (l *Log) sequence() {
	defer close(l.closed)
	for {
		select {
		case e := <-l.queue:
			l.take(e)
		case ack := <-l.flushes:
			l.drain()
			close(ack)
		case <-l.closing:
			l.drain()
			if l.disk != nil {
				close(l.disk.closing)
			}
			l.unobserve()
			return
		}
	}
}

// drain takes everything that is queued now.
func (l *Log) drain() {
	for n := len(l.queue); n > 0; n -= l.batch {
		select {
		case e := <-l.queue:
			l.take(e)
		default:
		}
	}
	if l.dropped.Load() > 0 {
		l.take()
	}
}

// take appends events, and what else is queued behind them, up to the log's batch.
func (l *Log) take(first ...api.Event) {
	batch := first
	for more := true; more && len(batch) < l.batch; {
		select {
		case e := <-l.queue:
			batch = append(batch, e)
		default:
			more = false
		}
	}
	if n := l.dropped.Swap(0); n > 0 {
		batch = append(batch, l.own(api.BecauseQueueFull, fmt.Sprintf("%d events were dropped: more happened at once than the log could take", n)))
	}
	l.append(batch)
}

// own returns an event of the log about itself.
func (l *Log) own(why, detail string) api.Event {
	return api.Event{
		Time: time.Now(), Kind: api.EventDropped, Subject: string(l.cfg.Region), Actor: "node",
		Cause: api.EventCause{Kind: why}, Detail: detail,
	}
}

// append gives the batch its ids and shows it to readers, after the disk has it: what was
// read survives kill -9. A disk that hangs or fails is not waited for.
func (l *Log) append(batch []api.Event) {
	l.mu.Lock()
	next := l.last
	for i := range batch {
		e := &batch[i]
		next++
		e.ID, e.Region, e.Node = next, l.cfg.Region, l.cfg.Node
		e.Time = e.Time.UTC().Truncate(time.Millisecond)
		bound(e)
		e.Namespace, _, _ = e.InstanceSubject()
		l.chain.link(e)
		l.chain.remember(e)
		l.ring.push(*e)
	}
	l.mu.Unlock()
	l.await(next)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = next
	close(l.changed)
	l.changed = make(chan struct{})
}

// await waits until the disk has events up to id, fails, or has no more patience.
func (l *Log) await(id uint64) {
	if l.disk == nil {
		return
	}
	poke(l.wake)
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		l.mu.RLock()
		done, up := l.written >= id, l.durable
		l.mu.RUnlock()
		if done {
			l.stuck = false
		}
		if done || !up || l.stuck {
			return
		}
		select {
		case <-l.moved:
		case <-limit.C:
			l.stuck = true
			l.log.Warn("the event log's disk does not keep up; events are kept in memory until it does", "dir", l.cfg.Dir)
			return
		}
	}
}

// poke signals on a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
