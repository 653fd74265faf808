package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

var (
	drained = api.Event{
		ID: 17, Time: noon.Add(-time.Minute), Region: "eu-west", Node: "n1", Revision: 41, Kind: api.EventDrain, Subject: "orders/o-1",
		Cause: api.EventCause{Kind: api.BecauseRequest}, Actor: "client 10.0.0.9", Detail: "passing to draining: \x1b[31mdeploy",
	}
	left = api.Event{
		ID: 19, Time: noon, Region: "eu-west", Node: "n1", Revision: 43, Kind: api.EventDeregister, Subject: "orders/o-1",
		Cause: api.EventCause{Kind: api.BecauseDrained, Ref: 17},
	}
)

func eventList(gap bool, cursor string, events ...api.Event) api.EventList {
	return api.EventList{Region: "eu-west", Node: "n1", Events: events, First: 17, Last: 19, Gap: gap, Durable: true, Cursor: cursor}
}

func TestEvents(t *testing.T) {
	node := newNode(t, map[string]reply{
		"GET /v1/events":                                      {body: eventList(true, "", drained, left)},
		"GET /v1/events?limit=1000&since=30m":                 {body: eventList(false, "17", drained)},
		"GET /v1/events?cursor=17&limit=1000&since=30m":       {body: eventList(false, "", left)},
		"GET /v1/events?kind=evict%2Cdrain&subject=orders":    {body: api.EventList{Region: "eu-west"}},
		"GET /v1/events?limit=1&since=18":                     {body: eventList(false, "", left)},
		"GET /v1/events?limit=1&since=16":                     {body: eventList(false, "17", drained)},
		"GET /v1/events?limit=1&since=4":                      {body: eventList(true, "17", drained)},
		"GET /v1/events?kind=evict&limit=5&ns=shop&subject=x": {body: eventList(false, "")},
		"GET /v1/events?limit=1000&since=yesterday":           problemReply(api.FieldError("since", "since is not valid", "use 30m")),
		"GET /v1/events?limit=1000&since=2026-11-22T10:00:00": problemReply(api.FieldError("since", "since is not valid", "use 30m")),
	})
	table := `
ID  TIME                  KIND        SUBJECT     CAUSE        DETAIL
17  2026-11-22T11:59:00Z  drain       orders/o-1  request      passing to draining: ` + "\ufffd" + `[31mdeploy
19  2026-11-22T12:00:00Z  deregister  orders/o-1  drained<-17  -
`
	r := run(t, node.URL, "events")
	wantCode(t, r, ExitOK)
	wantText(t, "stdout", r.stdout, table)
	wantContains(t, "stderr", r.stderr, "the oldest kept has the id 17")

	r = run(t, node.URL, "events", "--since", "30m") // over two pages
	wantCode(t, r, ExitOK)
	wantText(t, "stdout", r.stdout, table)
	wantText(t, "stderr", r.stderr, "")

	r = run(t, node.URL, "events", "-o", "name")
	wantText(t, "names", r.stdout, "17\n19\n")
	r = run(t, node.URL, "events", "-o", "json")
	wantJSON(t, r.stdout, eventList(true, "", drained, left))

	r = run(t, node.URL, "events", "--kind", "evict,drain", "--subject", "orders")
	wantCode(t, r, ExitOK)
	wantContains(t, "stderr", r.stderr, "no such events")
	wantContains(t, "stderr", r.stderr, "in memory only")

	// The namespace is part of a subject.
	r = run(t, node.URL, "events", "--kind", "evict", "--subject", "x", "--ns", "shop", "--limit", "5")
	wantCode(t, r, ExitOK)

	r = run(t, node.URL, "events", "--why", "19")
	wantCode(t, r, ExitOK)
	wantText(t, "stdout", r.stdout, `
19  2026-11-22T12:00:00Z  deregister orders/o-1  (drained)
<- 17  2026-11-22T11:59:00Z  drain orders/o-1  (request)
      passing to draining: `+"\ufffd"+`[31mdeploy, by client 10.0.0.9
`)
	r = run(t, node.URL, "events", "--why", "19", "-o", "json")
	wantJSON(t, r.stdout, []api.Event{left, drained})
	r = run(t, node.URL, "events", "--why", "5")
	wantCode(t, r, ExitNotFound)
	wantContains(t, "stderr", r.stderr, "there is no event 5")

	for _, args := range [][]string{
		{"--kind", "explode"},
		{"--subject", "a b"},
		{"--limit", "-1"},
		{"--why", "0"},
		{"--why", "3", "-f"},
		{"-f", "--limit", "3"},
		{"--since", "yesterday"},
		{"-f", "-o", "yaml"},
		{"extra"},
	} {
		wantCode(t, run(t, node.URL, append([]string{"events"}, args...)...), ExitUsage)
	}
	wantCode(t, run(t, closedAddr(t), "events", "-f"), ExitUnreachable)
}

// A stream that breaks is taken up behind the last event that came; gaps are told.
func TestEventsFollowGoesOnWhereItBroke(t *testing.T) {
	t.Parallel() // it waits for a second or two, as the program does
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var streams atomic.Int32
	frame := func(w http.ResponseWriter, id, name string, data any) {
		b, _ := json.Marshal(data)
		fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", id, name, b)
		w.(http.Flusher).Flush()
	}
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		switch streams.Add(1) {
		case 1:
			frame(w, "17", "event", drained)
			frame(w, "18", "bookmark", map[string]int{"last": 18})
		case 2:
			if got := r.URL.RawQuery; got != "follow=true&kind=drain&since=18" {
				t.Errorf("taken up with %q", got)
			}
			frame(w, "", "gap", api.EventGap{After: 18, Next: 19})
			frame(w, "19", "event", left)
		default:
			interrupt()
			<-r.Context().Done()
		}
	}))
	defer node.Close()
	r := program{env: map[string]string{"NEARSIDE_ADDR": node.URL}}.run(ctx, "events", "--kind", "drain", "-f", "-o", "jsonl")
	wantCode(t, r, ExitInterrupted)
	one, _ := json.Marshal(drained)
	two, _ := json.Marshal(left)
	wantText(t, "stdout", r.stdout, string(one)+"\n"+string(two)+"\n")
	wantContains(t, "stderr", r.stderr, "the stream broke (it ended)")
	wantContains(t, "stderr", r.stderr, "between the ids 18 and 19 events may be missing")
}
