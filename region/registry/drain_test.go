package registry

import (
	"testing"
	"time"

	"github.com/nearside/nearside/region/events"
	"github.com/nearside/nearside/sdk/api"
)

// The end of a drain takes back the drain and nothing else: who was critical for a reason is
// critical again.
func TestTheEndOfADrainRestoresWhatWasSet(t *testing.T) {
	type step struct {
		do   string // a status set by hand, "drain", "undo" or "register"
		note string
		want string
	}
	for name, story := range map[string]struct {
		checks []api.Check
		steps  []step
	}{
		"passing": {nil, []step{{"drain", "deploy", "draining deploy"}, {"undo", "", "passing"}, {"undo", "", "passing"}}},
		"a warning with its note": {nil, []step{
			{"warning", "slow disk", "warning slow disk"},
			{"drain", "deploy", "draining deploy"},
			{"drain", "another word", "draining another word"}, // no new drain: what was before stays
			{"register", "", "draining another word"},
			{"undo", "", "passing"}, // it registered as passing meanwhile
		}},
		"critical, drained twice": {nil, []step{
			{"critical", "disk", "critical disk"},
			{"drain", "", "draining"},
			{"drain", "again", "draining again"},
			{"undo", "", "critical disk"},
		}},
		"a status set meanwhile ends the drain": {nil, []step{
			{"critical", "disk", "critical disk"},
			{"drain", "", "draining"},
			{"warning", "better", "warning better"},
			{"undo", "", "warning better"},
			{"passing", "", "passing"},
			{"drain", "", "draining"},
			{"undo", "", "passing"},
		}},
		"with checks: passing by hand leaves the word to them": {[]api.Check{ready}, []step{
			{"drain", "deploy", "draining deploy"}, {"undo", "", "passing"},
		}},
		"with checks: what was set by hand counts again": {[]api.Check{ready}, []step{
			{"critical", "disk", "critical disk"},
			{"drain", "deploy", "draining deploy"},
			{"undo", "", "critical disk"},
			{"passing", "", "passing"},
		}},
		"with checks: registering as passing meanwhile": {[]api.Check{ready}, []step{
			{"critical", "disk", "critical disk"},
			{"drain", "deploy", "draining deploy"},
			{"register", "", "draining deploy"},
			{"undo", "", "passing"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := start(t, newClinic().prober)
				key := ikey("orders", "a")
				register := func() {
					t.Helper()
					r := reg()
					r.Checks = story.checks
					if _, _, err := b.Register(t.Context(), key, r); err != nil {
						t.Fatal(err)
					}
				}
				register()
				pass(time.Second)
				b.want("a", "passing")
				for _, s := range story.steps {
					var err error
					switch s.do {
					case "register":
						register()
					case "undo":
						_, err = b.EndDrain(t.Context(), key, 0)
					case "drain":
						_, err = b.SetStatus(t.Context(), key, api.StatusChange{Status: api.StatusDraining, Note: s.note})
					default:
						_, err = b.SetStatus(t.Context(), key, api.StatusChange{Status: api.Status(s.do), Note: s.note})
					}
					if err != nil {
						t.Fatalf("%s: %v", s.do, err)
					}
					if got := b.status("a"); got != s.want {
						t.Errorf("after %s it is %q, want %q", s.do, got, s.want)
					}
					in, _, _ := b.Get(t.Context(), key, ReadOptions{})
					if in.BeforeDrain != nil && in.Status != api.StatusDraining {
						t.Errorf("after %s it still keeps %+v", s.do, *in.BeforeDrain)
					}
				}
			})
		})
	}
}

// What the checks found during a drain counts when it ends, together with what was set before
// it; and P11: a restart in the middle forgets neither.
func TestADrainOverARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		b := start(t, p.prober)
		key := ikey("orders", "a")
		b.admit("a", 1, ready)
		pass(time.Second)
		for _, c := range []api.StatusChange{{Status: api.StatusWarning, Note: "slow disk"}, {Status: api.StatusDraining, Note: "deploy"}} {
			if _, err := b.SetStatus(t.Context(), key, c); err != nil {
				t.Fatal(err)
			}
		}
		b.stop()
		if err := <-b.ended; err != nil {
			t.Error(err)
		}
		b.ended <- nil
		again := newBed(t, p.prober)
		again.store.swap(b.store.inner())
		b = again.run()
		<-b.Loaded()
		p.set("1", "503")
		pass(time.Minute)
		b.want("a", "draining deploy")
		if _, err := b.EndDrain(t.Context(), key, 0); err != nil {
			t.Fatal(err)
		}
		b.want("a", "critical readiness http: 3 × 503")
		p.set("1", "")
		pass(12 * time.Second)
		b.want("a", "warning slow disk")
	})
}

// Whatever changes a status is an event: by the instance or an operator, by its checks, and
// by a liveness check that removes it; each tells from what to what, since when and why.
func TestEventsOfChecks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		l, with := withEvents(t)
		b := start(t, p.prober, with)
		key := ikey("orders", "a")
		b.admit("a", 1, ready, alive)
		pass(time.Second)
		p.set("1/ready", "503")
		pass(35 * time.Second)
		ctx := WithActor(t.Context(), "client 10.0.0.7")
		if _, err := b.SetStatus(ctx, key, api.StatusChange{Status: api.StatusDraining, Note: "look at it"}); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		p.set("1/ready", "")
		pass(12 * time.Second) // the check is well again, the instance drains: nothing of note
		if _, err := b.EndDrain(ctx, key, 0); err != nil {
			t.Fatal(err)
		}
		p.set("1/alive", "refused")
		pass(100 * time.Second)
		wantTold(
			t, told(t, b, events.Query{}),
			"register orders/a request",
			"status orders/a checks by checks",
			"status orders/a checks-1 by checks",
			"drain orders/a request-1 by client 10.0.0.7",
			"status orders/a request-1 by client 10.0.0.7",
			"status orders/a checks-1 by checks",
			"evict orders/a liveness_failed-1 by checks",
		)
		list, err := l.Read(t.Context(), events.Query{})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range map[int]string{
			1: "starting passing starting to passing",
			2: "passing critical passing to critical: readiness http: 3 × 503",
			3: "critical draining critical to draining: look at it",
			4: "draining passing draining to passing",
			5: "passing critical passing to critical: liveness alive: 3 × refused",
		} {
			if i >= len(list.Events) {
				break
			}
			e := list.Events[i]
			if got := string(e.From) + " " + string(e.To) + " " + e.Detail; got != want || e.Since.IsZero() || e.Since.After(e.Time) {
				t.Errorf("%q since %s at %s, want %q", got, e.Since, e.Time, want)
			}
		}
	})
}

// A check that goes to and fro is told each time that its status changes, and damping keeps
// that from filling the log.
func TestEventsOfAFlappingCheck(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newClinic()
		_, with := withEvents(t)
		b := start(t, p.prober, with)
		fast := ready
		fast.Interval, fast.FailuresBeforeCritical = api.Duration(time.Second), 1
		b.admit("a", 1, fast)
		pass(2 * time.Second)
		const flaps = 100
		for range flaps {
			p.set("1/ready", "503")
			pass(3 * time.Second)
			p.set("1/ready", "")
			pass(3 * time.Second)
		}
		list := told(t, b, events.Query{Kinds: []api.EventKind{api.EventStatus}})
		t.Logf("%d changes of what the instance answers, %d events", 2*flaps, len(list))
		if len(list) < 6 || len(list) > 12 {
			t.Errorf("%d events", len(list))
		}
		b.want("a", "critical readiness http: 1 × 503; flapping: passes after 30s without a failure")
	})
}
