package mesh

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// However much a value flaps, it is told at once when quiet, then once per quiet time, and
// with how often it changed.
func TestDamper(t *testing.T) {
	now := time.Unix(0, 0)
	d := damper{quiet: 30 * time.Second, told: "fresh", seen: "fresh"}
	look := func(value string, from string, changes int, tell bool) {
		t.Helper()
		now = now.Add(time.Second)
		if f, n, got := d.observe(now, value); got != tell || tell && (f != from || n != changes) {
			t.Fatalf("%s: %q %d %v, want %q %d %v", value, f, n, got, from, changes, tell)
		}
	}
	look("fresh", "", 0, false)
	look("stale", "fresh", 1, true)
	for range 14 {
		look("fresh", "", 0, false)
		look("stale", "", 0, false)
	}
	look("fresh", "", 0, false)
	look("stale", "stale", 30, true)
	look("stale", "", 0, false)
	now = now.Add(time.Minute)
	look("suspect", "stale", 1, true)
}

// What is known of a region changes its state: told once per change, not at the start, and not
// in a flood.
func TestStateIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		eu.source.Set(2, "orders")
		us.start()
		defer us.stop()
		eu.start()
		us.converged(eu)
		after(20 * time.Second)
		states := func() (out []string) {
			for _, x := range us.notices.of(api.EventOriginState) {
				out = append(out, x.Cause+": "+strings.SplitN(x.Detail, ",", 2)[0])
			}
			return out
		}
		if got := states(); len(got) != 0 {
			t.Fatalf("%q", got)
		}
		eu.stop()
		after(20 * time.Minute)
		want := []string{"age: from fresh to stale", "age: from stale to suspect", "age: from suspect to expired"}
		if got := states(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%q, want %q", got, want)
		}
		eu.start()
		us.converged(eu)
		after(2 * time.Second)
		want = append(want, "confirmed: from expired to fresh")
		if got := states(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%q, want %q", got, want)
		}
		// Half an hour of coming and going for six seconds each.
		for range 150 {
			eu.stop()
			after(6500 * time.Millisecond)
			eu.start()
			after(5 * time.Second)
		}
		eu.stop()
		if got := len(states()) - len(want); got > 60 {
			t.Fatalf("%d notices of 150 outages in half an hour", got)
		}
	})
}

// Mass removals that are held back are told, with their end.
func TestHeldRemovalsAreTold(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		names := make([]string, 10)
		for i := range names {
			names[i] = fmt.Sprintf("s%d", i)
		}
		eu.source.Set(2, names...)
		us.start()
		defer us.stop()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		eu.source.Set(0, names[:8]...)
		us.until("held", func() bool { return us.link("eu-west").Held == 8 })
		after(2 * time.Second)
		l := us.link("eu-west")
		if l.HeldForMS <= 0 || l.HeldForMS > replica.HoldFor.Milliseconds() || l.Replica.State != api.AgeSuspect {
			t.Fatalf("%+v", l)
		}
		if got := us.notices.of(api.EventRemovalHeld); len(got) != 1 || !strings.Contains(got[0].Detail, "8 are kept") {
			t.Fatalf("%+v", got)
		}
		after(replica.HoldFor + 2*time.Second)
		if got := us.notices.of(api.EventRemovalReleased); len(got) != 1 || us.link("eu-west").Held != 0 {
			t.Fatalf("%+v", got)
		}
	})
}

// A row that cannot be used is told once, with its name and the reason, and shown at both ends.
func TestQuarantinedRowsAreTold(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		eu.source.Set(2, "orders")
		bad := regiontest.Instances("eu-west", "payments", 1)
		bad[0].Region = "ap-south" // an instance of somebody else
		eu.source.SetInstances("payments", bad)
		us.start()
		defer us.stop()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		l := us.link("eu-west")
		if l.Quarantined != 1 || len(l.QuarantinedRows) != 1 || l.QuarantinedRows[0].Row != "default/payments" || !strings.Contains(l.QuarantinedRows[0].Reason, "ap-south") {
			t.Fatalf("%+v", l)
		}
		after(2 * time.Second)
		got := us.notices.of(api.EventRowQuarantined)
		if len(got) != 1 || !strings.Contains(got[0].Detail, "default/payments: ") || l.RefusedBy["row"] == 0 {
			t.Fatalf("%+v %+v", got, l.RefusedBy)
		}
		r := eu.mesh.Info().Readers
		if len(r) != 1 || r[0].Quarantined != 1 || r[0].QuarantinedRows[0].Row != "default/payments" {
			t.Fatalf("%+v", r)
		}
	})
}

// The canary is an upper bound of the way from a moment in the origin to here: it is measured at
// both ends, and with a slow origin it shows the wait.
func TestCanaryMeasuresTheWay(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west", "us-east")
		slow := &slowSource{}
		eu.wrap = func(s Source) Source { slow.Source = s; return slow }
		eu.source.Set(2, "orders")
		us.start()
		defer us.stop()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		us.until("ten canaries", func() bool { c := us.link("eu-west").Canary; return c != nil && c.Count >= 10 })
		c := us.link("eu-west").Canary
		if c.P99MS > 100 || c.AgeMS > 1100 {
			t.Fatalf("a quiet link in memory: %+v", c)
		}
		eu.until("the other end knows", func() bool {
			r := eu.mesh.Info().Readers
			return len(r) == 1 && r[0].CanaryMS > 0 && r[0].CanaryMS < 100 && r[0].State == api.AgeFresh && r[0].Applied == eu.source.Version().Revision
		})
		// The origin needs 700 ms to look at its catalogue: so late is everything it says.
		slow.wait.Store(int64(700 * time.Millisecond))
		us.until("the canary shows it", func() bool { return us.link("eu-west").Canary.LastMS >= 700 })
	})
}

// slowSource takes its time for every picture.
type slowSource struct {
	Source
	wait atomic.Int64
}

func (s *slowSource) Image() Image {
	if d := time.Duration(s.wait.Load()); d > 0 {
		<-time.After(d)
	}
	return s.Source.Image()
}

// P8: a registry that loses its services one by one, and one that tells bad rows again and again, fill no log.
func TestRemovalsAndBadRowsDoNotFloodTheLog(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west", "us-east")
		names := make([]string, 60)
		for i := range names {
			names[i] = fmt.Sprintf("s%02d", i)
		}
		eu.source.Set(2, names...)
		eu.start()
		defer eu.stop()
		us.start()
		defer us.stop()
		us.converged(eu)
		for i, name := range names[1:50] {
			eu.source.Set(0, name)
			bad := regiontest.Instances("ap-south", names[0], 1+i%2)
			eu.source.SetInstances(names[0], bad)
			after(500 * time.Millisecond)
		}
		if got := us.link("eu-west"); got.Held < 20 || got.RefusedBy["row"] < 20 {
			t.Fatalf("%+v", got)
		}
		if got := us.logs.count("lost many services"); got < 1 || got > 2 {
			t.Errorf("%d lines of services that went", got)
		}
		if got := us.logs.count("is not valid and is not used"); got < 1 || got > 3 {
			t.Errorf("%d lines of rows that are not used", got)
		}
	})
}
