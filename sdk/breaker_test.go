package nearside

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/nearside/nearside/sdk/api"
)

func testInstance(clock func() time.Duration) (*instance, *int) {
	notes := 0
	e := &api.Endpoint{ID: "a", Region: "us", Address: "a", Port: 80}
	return newInstance(e, &regionHealth{hold: time.Second}, clock, func() { notes++ }), &notes
}

// Row 20 of the tests: what opens a breaker, and what does not.
func TestWhatOpensABreaker(t *testing.T) {
	cases := []struct {
		name     string
		outcomes string // + ok, - failed, d down, . ignored
		want     gobreaker.State
	}{
		{"two failures", "--", gobreaker.StateClosed},
		{"three failures in a row", "---", gobreaker.StateOpen},
		{"three failures with an answer between", "--+-", gobreaker.StateClosed},
		{"half of ten", "-+-+-+-+--", gobreaker.StateOpen},
		{"half of nine", "-+-+-+-+-", gobreaker.StateClosed},
		{"nothing listens", "+++d", gobreaker.StateOpen},
		{"cancelled calls say nothing", "....................", gobreaker.StateClosed},
		{"cancelled calls do not excuse", "-.-.-", gobreaker.StateOpen},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			in, notes := testInstance(func() time.Duration { return 0 })
			for _, o := range tc.outcomes {
				l := in.admit(&call{})
				if l == nil {
					t.Fatal("not admitted")
				}
				l.report(map[rune]outcome{'+': outcomeOK, '-': outcomeFailed, 'd': outcomeDown, '.': outcomeIgnored}[o])
				l.release()
			}
			if got := gobreaker.State(in.state.Load()); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			if (tc.want == gobreaker.StateOpen) != (*notes == 1) {
				t.Errorf("%d notes", *notes)
			}
		})
	}
}

// A half-open breaker lets one trial through at a time; one that is never reported gives
// its place up, and late outcomes of calls before it opened say nothing.
func TestHalfOpenIsBoundedAndNeverWedges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		in, _ := testInstance(func() time.Duration { return time.Since(start) })
		time.Sleep(time.Second)
		early := in.admit(&call{})
		in.admit(&call{}).report(outcomeDown)
		if in.admit(&call{safe: true}) != nil {
			t.Fatal("open, and yet admitted")
		}
		time.Sleep(4 * time.Second)
		in.cb.State()
		if !in.is(gobreaker.StateHalfOpen) {
			t.Fatal("not half-open")
		}
		early.report(outcomeOK)
		if !in.is(gobreaker.StateHalfOpen) {
			t.Error("an outcome from before it opened closed it")
		}
		if in.admit(&call{}) != nil {
			t.Error("a call that cannot be repeated was taken as the first trial")
		}
		lost := in.admit(&call{safe: true}) // never reported
		if lost == nil || in.admit(&call{safe: true}) != nil {
			t.Error("one trial at a time")
		}
		time.Sleep(trialLimit + time.Second)
		if in.admit(&call{}) == nil {
			t.Error("after a while any call is a trial, and the lost one holds no place")
		}
		in.lease.Load().report(outcomeOK)
		if !in.is(gobreaker.StateClosed) || in.admit(&call{}) == nil {
			t.Error("a trial that is answered closes it")
		}
	})
}

// Errors given to Picked.Done, and errors of attempts, by what they mean.
func TestKindsOfErrors(t *testing.T) {
	dial := func(err error) error { return fmt.Errorf("call: %w", &net.OpError{Op: "dial", Net: "tcp", Err: err}) }
	for _, tc := range []struct {
		err  error
		kind kind
		out  outcome
	}{
		{dial(syscall.ECONNREFUSED), kindDown, outcomeDown},
		{dial(syscall.EHOSTUNREACH), kindDown, outcomeDown},
		{dial(context.DeadlineExceeded), kindNoDial, outcomeDown},
		{dial(&net.DNSError{Err: "no such host"}), kindNoDial, outcomeDown},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, kindBroken, outcomeFailed},
		{errors.New("unexpected EOF"), kindBroken, outcomeFailed},
		{context.DeadlineExceeded, kindTimeout, outcomeFailed},
		{context.Canceled, kindGivenUp, outcomeIgnored},
	} {
		if got := kindOf(tc.err); got != tc.kind {
			t.Errorf("%v: %s, want %s", tc.err, got, tc.kind)
		}
		if got := outcomeOf(tc.err); got != tc.out {
			t.Errorf("%v: outcome %d, want %d", tc.err, got, tc.out)
		}
	}
	if outcomeOf(nil) != outcomeOK {
		t.Error("nil is an answer")
	}
}

// P8: what is kept about instances is dropped with them, and made anew when an id moves to
// another address.
func TestInstancesAreDroppedWithTheirEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		us := w.regions["us"]
		us.put("orders", "a", "a:80", nil)
		us.put("orders", "b", "b:80", nil)
		c := w.client("us", nil)
		p, err := c.Pick(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		p.Done(syscall.ECONNREFUSED)
		synctest.Wait()
		other := "b"
		if p.Endpoint.ID == "b" {
			other = "a"
		}
		for range 4 {
			q, err := c.Pick(t.Context(), "orders")
			if err != nil || string(q.Endpoint.ID) != other {
				t.Fatal(q.Endpoint.ID, err)
			}
			q.Done(nil)
		}
		us.put("orders", string(p.Endpoint.ID), "elsewhere:80", nil)
		synctest.Wait()
		seen := map[api.InstanceID]int{}
		for range 4 {
			q, _ := c.Pick(t.Context(), "orders")
			q.Done(nil)
			seen[q.Endpoint.ID]++
		}
		if seen["a"] != 2 || seen["b"] != 2 {
			t.Errorf("a new address starts with a closed breaker: %v", seen)
		}
		us.remove("orders", "a")
		synctest.Wait()
		s, _ := c.service("orders")
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.instances) != 1 {
			t.Errorf("%d instances kept, want 1", len(s.instances))
		}
	})
}
