package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/sdk/api"
)

// events is GET /v1/events: a page of the event log, or with follow=true a stream of it.
func (d *door) events(w http.ResponseWriter, r *request) error {
	follow := r.flag("follow")
	q := r.eventsQuery(follow, time.Now())
	if r.err != nil {
		return r.err
	}
	if follow {
		return d.streaming(w, r, func(ctx context.Context, s *stream) error {
			return d.Registry.FollowEvents(ctx, q, s.sendEvent)
		})
	}
	ctx, cancel := context.WithTimeout(r.Context(), d.Timeout)
	defer cancel()
	list, st, err := d.Registry.Events(ctx, q)
	if err != nil {
		return err
	}
	list.Events = some(list.Events)
	return d.write(w, answer{body: &list, stamp: st}, nil)
}

func (r *request) eventsQuery(follow bool, now time.Time) events.Query {
	q := events.Query{Namespace: r.onlyNamespace(), Subject: r.query.Get("subject"), Kinds: r.eventKinds(), Limit: r.limit(), Cursor: r.cursor()}
	if r.query.Has("subject") {
		r.check(api.CheckEventSubject(q.Subject))
	}
	if r.query.Has("since") {
		r.since(&q, r.query.Get("since"), now)
	}
	if !follow {
		return q
	}
	for _, name := range []string{"limit", "cursor"} {
		if r.query.Has(name) {
			r.fail(api.FieldError(name, name+" means nothing to a stream", "leave it out, or follow"))
		}
	}
	// A browser opens a lost stream again with the same URL and the id it saw last, so the
	// header is the newer of the two.
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		id, err := strconv.ParseUint(last, 10, 64)
		if err != nil {
			r.bad("Last-Event-ID", last, "give back the id of an event")
		}
		q.After, q.HasAfter, q.Since = id, true, time.Time{}
	}
	return q
}

// since reads a place in the log: an id, a moment, or how long ago.
func (r *request) since(q *events.Query, s string, now time.Time) {
	if id, err := strconv.ParseUint(s, 10, 64); err == nil {
		q.After, q.HasAfter = id, true
		return
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		q.Since = now.Add(-ago)
		return
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		r.bad("since", s, "use the id of an event, a time like 2026-11-22T10:00:00Z, or a duration like 30m")
		return
	}
	q.Since = at
}

func (r *request) eventKinds() []api.EventKind {
	if !r.query.Has("kind") {
		return nil
	}
	var list []api.EventKind
	for s := range strings.SplitSeq(r.query.Get("kind"), ",") {
		k := api.EventKind(s)
		if !k.Valid() {
			r.bad("kind", s, "use "+joinKinds()+"; several with commas")
			return nil
		}
		if !slices.Contains(list, k) {
			list = append(list, k)
		}
	}
	return list
}

func joinKinds() string {
	names := make([]string, len(api.EventKinds))
	for i, k := range api.EventKinds {
		names[i] = string(k)
	}
	return strings.Join(names, ", ")
}

// sendEvent writes one frame of a stream of events. Every one that can be resumed from has
// its id.
func (s *stream) sendEvent(f api.EventFrame) error {
	name, data := api.EventFrameBookmark, any(struct {
		Last uint64 `json:"last"`
	}{f.Last})
	switch {
	case f.Event != nil:
		name, data = api.EventFrameEvent, f.Event
	case f.Gap != nil:
		name, data = api.EventFrameGap, f.Gap
	}
	return s.write(func() error {
		b := s.out()
		if f.Gap == nil {
			b.WriteString("id: " + strconv.FormatUint(f.Last, 10) + "\n")
		}
		b.WriteString("event: " + name + "\ndata: ")
		return b.enc.Encode(data) // ends the line
	}, false)
}
