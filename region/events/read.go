package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// Query says which events are wanted. The zero Query is the newest api.DefaultEventLimit.
type Query struct {
	// After and Since ask for events with ids above After (when HasAfter is set) and times
	// of Since or later (when it is not zero). Without either, reading gives the newest
	// events, and following begins now.
	After    uint64
	HasAfter bool
	Since    time.Time

	Kinds   []api.EventKind // any of; empty = all
	Subject string          // see api.MatchesSubject
	// Namespace, when not empty, asks for events of its instances alone; Subject is one within
	// it then, without the namespace in front.
	Namespace api.Namespace
	Limit     int    // of a read: 0 = api.DefaultEventLimit; more than api.MaxListLimit is cut to it
	Cursor    string // of the page before
}

// newest reports whether q asks for no place in the log.
func (q *Query) newest() bool { return !q.HasAfter && q.Since.IsZero() }

// matcher decides which events are wanted, without decoding those that are not.
type matcher struct {
	q     *Query
	kinds [][]byte
	since int64
}

func newMatcher(q *Query) *matcher {
	m := &matcher{q: q}
	for _, k := range q.Kinds {
		m.kinds = append(m.kinds, []byte(`"kind":"`+string(k)+`"`))
	}
	if !q.Since.IsZero() {
		m.since = q.Since.UnixMilli()
	}
	return m
}

func (m *matcher) wants(e *api.Event) bool {
	return (m.since == 0 || e.Time.UnixMilli() >= m.since) && m.about(e) && (len(m.q.Kinds) == 0 || slices.Contains(m.q.Kinds, e.Kind))
}

func (m *matcher) about(e *api.Event) bool {
	subject := e.Subject
	if m.q.Namespace != "" {
		ns, rest, ok := e.InstanceSubject()
		if !ok || ns != m.q.Namespace {
			return false
		}
		subject = rest
	}
	return api.MatchesSubject(m.q.Subject, subject)
}

// decode returns the event of a frame; nil when it is not wanted or cannot be read.
func (m *matcher) decode(fr frame) *api.Event {
	if m.since != 0 && fr.at < m.since {
		return nil
	}
	if len(m.kinds) > 0 && !slices.ContainsFunc(m.kinds, func(k []byte) bool { return bytes.Contains(fr.payload, k) }) {
		return nil
	}
	if m.q.Subject != "" && !bytes.Contains(fr.payload, []byte(m.q.Subject)) {
		return nil
	}
	var e api.Event
	if json.Unmarshal(fr.payload, &e) != nil || e.ID != fr.id || !m.wants(&e) {
		return nil
	}
	return &e
}

// Read returns one page of events by rising id. A page that is full has a cursor for the
// next; the last page may be empty.
func (l *Log) Read(ctx context.Context, q Query) (api.EventList, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = api.DefaultEventLimit
	}
	limit = min(limit, api.MaxListLimit)
	if q.Cursor != "" {
		id, err := strconv.ParseUint(q.Cursor, 10, 64)
		if err != nil {
			return api.EventList{}, api.FieldError("cursor", "cursor "+api.Quote(q.Cursor)+" is not valid", "give back the cursor of the last page, unchanged")
		}
		q.After, q.HasAfter = max(q.After, id), true
	}
	m := newMatcher(&q)
	l.mu.RLock()
	out := api.EventList{
		Region: l.cfg.Region, Node: l.cfg.Node, Events: []api.Event{}, First: l.first(), Last: l.last, Durable: l.durable,
	}
	l.mu.RUnlock()
	if q.newest() {
		var err error
		out.Events, err = l.tail(ctx, m, limit)
		return out, err
	}
	pos := q.After
	if pos > out.Last {
		out.Gap, pos = true, 0 // of a log that is lost: everything here is news
	}
	for pos < out.Last && len(out.Events) < limit {
		frames, next, err := l.step(ctx, m, pos, out.Last, limit-len(out.Events))
		if err != nil {
			return api.EventList{}, err
		}
		for _, f := range frames {
			if f.Gap != nil {
				out.Gap = true
			} else {
				out.Events = append(out.Events, *f.Event)
			}
		}
		pos = next
	}
	if pos < out.Last {
		out.Cursor = strconv.FormatUint(pos, 10)
	}
	return out, nil
}

// first returns the oldest id that is kept; l.mu is held.
func (l *Log) first() uint64 {
	for i := range l.segments {
		if l.segments[i].last != 0 {
			return l.segments[i].first
		}
	}
	return l.ring.first()
}

// step reads on from pos, not beyond last: at most most events that are wanted, and the
// gaps between them. next is the new position, above pos.
func (l *Log) step(ctx context.Context, m *matcher, pos, last uint64, most int) (out []api.EventFrame, next uint64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, pos, err
	}
	var segments []segment
	var recent []api.Event
	l.mu.RLock()
	if inMemory := l.ring.first(); inMemory == 0 || pos+1 < inMemory {
		for i := range l.segments {
			if s := &l.segments[i]; s.last > pos {
				segments = append(segments, *s)
			}
		}
	}
	if len(segments) == 0 {
		recent = l.ring.after(pos, max(most, 64))
	}
	l.mu.RUnlock()

	c := &collector{m: m, pos: pos, last: last, most: most}
	if len(segments) > 0 {
		if err := l.scan(ctx, c, segments); err != nil {
			return nil, pos, err
		}
		if c.pos == pos || len(c.out) == 0 && c.pos < last {
			// Nothing more of the disk: memory goes on, or the rest is gone.
			c.pos = max(c.pos, min(last, newest(segments)))
		}
		return c.out, c.pos, nil
	}
	for i := range recent {
		e := &recent[i]
		if !c.meets(e.ID) {
			break
		}
		if m.wants(e) {
			c.out = append(c.out, api.EventFrame{Event: e, Last: e.ID})
			c.events++
		}
	}
	if c.pos == pos {
		c.pos = last
	}
	return c.out, c.pos, nil
}

// collector gathers what one step finds.
type collector struct {
	m         *matcher
	pos, last uint64
	most      int
	events    int
	out       []api.EventFrame
}

// meets moves the position to id, noting what is missing in between; false when id is not
// to be read any more.
func (c *collector) meets(id uint64) bool {
	if id > c.last || c.events >= c.most {
		return false
	}
	if c.pos != 0 && id > c.pos+1 {
		c.out = append(c.out, api.EventFrame{Gap: &api.EventGap{After: c.pos, Next: id}, Last: c.pos})
	}
	c.pos = id
	return true
}

// scan reads segments into c.
func (l *Log) scan(ctx context.Context, c *collector, segments []segment) error {
	release, err := l.reader(ctx)
	if err != nil {
		return err
	}
	defer release()
	for i := range segments {
		s := &segments[i]
		since := c.m.since
		if c.pos != 0 {
			since = 0 // what is older must still be met, or it would look missing
		} else if since != 0 && s.newest < since {
			continue
		}
		more := true
		err := s.frames(s.seek(c.pos, since), func(fr frame) bool {
			if fr.id <= c.pos {
				return true
			}
			if more = c.meets(fr.id) && ctx.Err() == nil; !more {
				return false
			}
			if e := c.m.decode(fr); e != nil {
				c.out = append(c.out, api.EventFrame{Event: e, Last: e.ID})
				c.events++
			}
			return true
		})
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile: a gap
		case err != nil:
			return err
		}
		if !more {
			return ctx.Err()
		}
	}
	return nil
}

// reader waits for a turn to read from disk.
func (l *Log) reader(ctx context.Context) (release func(), err error) {
	select {
	case l.readers <- struct{}{}:
		return func() { <-l.readers }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tail returns the newest events that are wanted, by rising id.
func (l *Log) tail(ctx context.Context, m *matcher, limit int) ([]api.Event, error) {
	l.mu.RLock()
	lowest := l.last + 1
	var out []api.Event // the newest first
	for i := len(l.ring.buf) - 1; i >= 0 && len(out) < limit; i-- {
		e := l.ring.at(i)
		if e.ID > l.last {
			continue
		}
		lowest = e.ID
		if m.wants(e) {
			out = append(out, *e)
		}
	}
	segments := slices.Clone(l.segments)
	l.mu.RUnlock()
	if len(out) < limit && len(segments) > 0 {
		release, err := l.reader(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	for i := len(segments) - 1; i >= 0 && len(out) < limit; i-- {
		s := &segments[i]
		if s.last == 0 || s.first >= lowest {
			continue
		}
		var found []api.Event
		need := limit - len(out)
		err := s.frames(int64(len(magic)), func(fr frame) bool {
			if fr.id >= lowest || ctx.Err() != nil {
				return false
			}
			if e := m.decode(fr); e != nil {
				if found = append(found, *e); len(found) >= 2*need {
					found = found[:copy(found, found[len(found)-need:])]
				}
			}
			return true
		})
		if err == nil {
			err = ctx.Err()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		slices.Reverse(found)
		out = append(out, found[:min(need, len(found))]...)
		lowest = s.first
	}
	slices.Reverse(out)
	if out == nil {
		out = []api.Event{}
	}
	return out, nil
}
