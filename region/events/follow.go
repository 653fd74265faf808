package events

import (
	"context"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// followStep is how many events are read at once for a follower.
const followStep = 128

// Follow sends the events that q asks for, then those that happen, until ctx ends, send
// fails or the log is closed; it returns that error, nil for the last. Limit and Cursor of q
// mean nothing here. Without After and Since it begins now.
//
// A gap is sent where events are missing: the follower was so slow that they are gone, or
// the ids it knows are of a log that is lost. A bookmark comes when everything kept so far
// was sent, and every api.BookmarkInterval when nothing happens. Only this follower waits
// for send.
func (l *Log) Follow(ctx context.Context, q Query, send func(api.EventFrame) error) error {
	m := newMatcher(&q)
	bookmarks := time.NewTicker(api.BookmarkInterval)
	defer bookmarks.Stop()
	pos, begun := q.After, false
	for {
		l.mu.RLock()
		last, changed, first := l.last, l.changed, l.first()
		l.mu.RUnlock()
		if !begun {
			begun = true
			if q.newest() {
				pos = last
			} else if pos > last {
				if err := send(api.EventFrame{Gap: &api.EventGap{After: pos, Next: first}}); err != nil {
					return err
				}
				pos = 0
			}
			bookmarks.Reset(time.Nanosecond) // the first one as soon as all is sent
		}
		for pos < last {
			frames, next, err := l.step(ctx, m, pos, last, followStep)
			if err != nil {
				return err
			}
			for _, f := range frames {
				if err := send(f); err != nil {
					return err
				}
			}
			pos = next
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-l.closed:
			return nil
		case <-bookmarks.C:
			bookmarks.Reset(api.BookmarkInterval)
			if err := send(api.EventFrame{Last: pos}); err != nil {
				return err
			}
		}
	}
}
