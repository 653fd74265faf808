package mesh

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// TestStaleNeverFresher's rule, P3, for a federation that is a process of its own: while it does not hear
// its region, no peer takes what it says for new, over a stream that was open as over one that begins then;
// and a program that knows no ages is told nothing that it could take so.
func TestFederationThatDoesNotHearItsRegion(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		var silentSince atomic.Pointer[time.Time] // nil = the region is heard
		us := newRegion(t, n, "us-east", "eu-west")
		us.heard = func() time.Time {
			if at := silentSince.Load(); at != nil {
				return *at
			}
			return time.Now()
		}
		us.start()
		defer func() { us.stop() }()
		eu := newRegion(t, n, "eu-west", "us-east")
		eu.start()
		defer func() { eu.stop() }()
		us.source.Set(3, "payments")
		eu.has("us-east", "payments", 3)
		eu.until("fresh", func() bool { return eu.origin("us-east").State == api.AgeFresh })

		began := time.Now()
		silentSince.Store(&began)
		looks := func() {
			t.Helper()
			l := eu.link("us-east")
			age, least := time.Duration(l.Replica.AgeMS)*time.Millisecond, time.Since(began)
			if age < least || age > least+2*time.Second || l.State != linkConnected || eu.passing("us-east", "payments") != 3 {
				t.Errorf("after %s: %+v", least, l)
			}
			if least > 5*time.Second && l.LastError == "" {
				t.Error("the link does not say why")
			}
		}
		for range 40 {
			after(time.Second)
			looks()
		}
		// The reader begins anew.
		eu.stop()
		eu.start()
		eu.until("linked", func() bool { return eu.link("us-east").State == linkConnected })
		after(3 * time.Second)
		looks()

		// A program that knows no ages.
		ctx, cancel := context.WithCancel(t.Context())
		old := peer.NewClient(eu.client, nil)
		s, err := old.Open(ctx, "http://us-east:7402", peer.Query{Reader: "ap-south", Origin: "us-east"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan replica.Kind, 1000)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				f, err := s.Next()
				if err != nil {
					return
				}
				told <- f.Kind
			}
		}()
		after(10 * time.Second)
		for len(told) > 0 {
			if k := <-told; k == replica.Heartbeat {
				t.Error("it got a heartbeat")
			}
		}
		silentSince.Store(nil)
		after(2 * time.Second)
		if len(told) == 0 {
			t.Error("it gets no heartbeat when the region is heard again")
		}
		cancel()
		<-ended
		eu.until("fresh again", func() bool { l := eu.link("us-east"); return l.Replica.State == api.AgeFresh && l.LastError == "" })
	})
}
