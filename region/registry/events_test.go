package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/sdk/api"
)

// withEvents gives a bed an event log in memory.
func withEvents(t *testing.T) (*events.Log, func(*Config)) {
	t.Helper()
	l, err := events.Open(events.Config{Region: "eu-west", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, func(c *Config) { c.Events = l }
}

// told returns the events so far in short form: kind, subject, cause, actor. A reference is
// told as how many events back it is.
func told(t *testing.T, b *bed, q events.Query) []string {
	t.Helper()
	synctest.Wait()
	list, _, err := b.Events(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list.Events {
		s := fmt.Sprintf("%s %s %s", e.Kind, e.Subject, e.Cause.Kind)
		if e.Cause.Ref != 0 {
			s += fmt.Sprintf("-%d", e.ID-e.Cause.Ref)
		}
		if e.Actor != "" {
			s += " by " + e.Actor
		}
		out = append(out, s)
	}
	return out
}

func wantTold(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("told:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// Every change of an instance is told once, with its revision, cause and author.
func TestEventsOfAnInstance(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, with := withEvents(t)
		b := start(t, with)
		ctx := WithActor(t.Context(), "client 10.0.0.7")
		key := ikey("orders", "o-1")
		r := reg()
		r.Metadata = map[string]string{"password": "hunter2"}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		register := func() {
			t.Helper()
			_, _, err := b.Register(ctx, key, r)
			must(err)
		}
		status := func(s api.Status, note string) {
			t.Helper()
			_, err := b.SetStatus(ctx, key, api.StatusChange{Status: s, Note: note})
			must(err)
		}
		register()
		register() // a refresh is nothing of note
		r.Weight = new(int)
		r.Metadata = map[string]string{"password": "hunter3"}
		register()
		status(api.StatusCritical, "disk")
		status(api.StatusPassing, "")
		r.Incarnation = 7
		register()
		status(api.StatusDraining, "deploy")
		must(b.Deregister(ctx, key, 0))
		register()
		wantTold(
			t, told(t, b, events.Query{}),
			"register orders/o-1 request by client 10.0.0.7",
			"update orders/o-1 change by client 10.0.0.7",
			"status orders/o-1 request by client 10.0.0.7",
			"status orders/o-1 request-1 by client 10.0.0.7",
			"register orders/o-1 new_incarnation-1 by client 10.0.0.7",
			"drain orders/o-1 request by client 10.0.0.7",
			"deregister orders/o-1 drained-1 by client 10.0.0.7",
			"register orders/o-1 returned-1 by client 10.0.0.7",
		)
		list, err := l.Read(t.Context(), events.Query{})
		must(err)
		revision := uint64(0)
		for _, e := range list.Events {
			if e.Revision <= revision || e.Region != "eu-west" || e.Node != "n1" {
				t.Errorf("after revision %d: %+v", revision, e)
			}
			revision = e.Revision
			if strings.Contains(fmt.Sprint(e), "hunter") {
				t.Errorf("a value of metadata is told: %+v", e)
			}
		}
		if d := list.Events[1].Detail; d != "other weight, metadata" {
			t.Error(d)
		}
		if d := list.Events[5].Detail; d != "passing to draining: deploy" {
			t.Error(d)
		}
		if len(b.actors.writing) != 0 {
			t.Errorf("still writing: %v", b.actors.writing)
		}
	})
}

// Evictions are told when they take effect, once, and protection with its arithmetic.
func TestEventsOfTheBrake(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, with := withEvents(t)
		b := start(t, with)
		b.registerMany("orders", 20)
		b.beat(10*time.Second, "orders", 1, 20) // i0 is silent: evicted
		b.beat(10*time.Second, "orders", 6, 20) // five more: too many
		b.beat(5*time.Second, "orders", 1, 20)
		pass(2 * time.Second)
		wantTold(
			t, told(t, b, events.Query{Kinds: []api.EventKind{api.EventEvict, api.EventDeregister, api.EventProtectionOn, api.EventProtectionOff}}),
			"evict orders/i0 heartbeats_stopped by node",
			"protection_on eu-west overdue_share-1 by node",
			"protection_off eu-west within_share-1 by node",
		)
		list, _, err := b.Events(t.Context(), events.Query{Kinds: []api.EventKind{api.EventEvict, api.EventProtectionOn}})
		if err != nil || !strings.HasPrefix(list.Events[0].Detail, "overdue since 2000-01-01T00:00:0") ||
			!strings.Contains(list.Events[1].Detail, "5 overdue and 1 evicted of") {
			t.Errorf("%+v, %v", list.Events, err)
		}
	})
}

// The store's absence, lost history and pauses are told, and recording them needs no store.
func TestEventsOfTheStoreAndTheNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, with := withEvents(t)
		b := start(t, with)
		b.register("orders", "o-1")
		b.store.inner().SetUnavailable(true)
		pass(3 * time.Second)
		b.store.inner().SetUnavailable(false)
		pass(2 * time.Second)
		wantTold(
			t, told(t, b, events.Query{}),
			"register orders/o-1 request",
			"store_away eu-west store_error by node",
			"store_back eu-west store_answers-1 by node",
		)
		// Another store with less history: the epoch rises.
		b.store.swap(newMemstore(t))
		b.store.breakWatch <- errors.New("gone")
		pass(5 * time.Second)
		if err := b.RaiseEpoch(t.Context(), 50); err != nil {
			t.Fatal(err)
		}
		b.Record(api.Event{Kind: api.EventLinkUp, Subject: "us-east", Cause: api.EventCause{Kind: api.BecauseLinkAnswers}})
		synctest.Wait()
		list, _, err := b.Events(t.Context(), events.Query{Kinds: []api.EventKind{api.EventEpoch, api.EventLinkUp}})
		if err != nil || len(list.Events) != 3 {
			t.Fatalf("%+v, %v", list, err)
		}
		lost, ahead, link := list.Events[0], list.Events[1], list.Events[2]
		if lost.Cause.Kind != api.BecauseHistoryLost || lost.Cause.Ref == 0 || ahead.Cause.Kind != api.BecausePeersAhead ||
			!strings.HasPrefix(ahead.Detail, "from ") || link.Subject != "us-east" {
			t.Errorf("%+v", list.Events)
		}
	})
}

// P12: events concern the whole region and need the right to read it. Streams of them count
// as watches. A region without a log says so.
func TestEventsAreAuthorizedAndBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, with := withEvents(t)
		b := start(t, with, func(c *Config) { c.MaxWatches = 1 })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- b.FollowEvents(ctx, events.Query{}, func(api.EventFrame) error { return nil })
		}()
		synctest.Wait()
		b.wantCode(b.FollowEvents(t.Context(), events.Query{}, nil), api.CodeTooManyRequests)
		cancel()
		<-ended

		closed := start(t, with, func(c *Config) { c.Authorizer = TokenAccess([32]byte{1}) })
		_, _, err := closed.Events(t.Context(), events.Query{})
		closed.wantCode(err, api.CodeUnauthorized)
		closed.wantCode(closed.FollowEvents(t.Context(), events.Query{}, nil), api.CodeUnauthorized)

		none := start(t)
		_, _, err = none.Events(t.Context(), events.Query{})
		none.wantCode(err, api.CodeNotFound)
	})
}
