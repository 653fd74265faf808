package mesh

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// P6: convergence can be proved: equal digests at one version, or the rows that differ by name;
// rows that change meanwhile are told apart from rows that differ.
func TestVerifyProvesOrNamesTheRows(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west", "us-east")
		for i := range 50 {
			eu.source.Set(3, fmt.Sprintf("s%02d", i))
		}
		us.start()
		defer us.stop()
		eu.start()
		us.converged(eu)
		v, err := us.mesh.Verify(t.Context(), "eu-west")
		if err != nil || v.Result != api.VerifyEqual || v.Rows != 50 || v.Digest != v.OriginDigest || v.Held != v.Origin {
			t.Fatalf("%+v %v", v, err)
		}

		// Damage what us-east holds, behind the back of its own checks: one row is gone, one is of
		// another time, one does not belong.
		l := us.mesh.by("eu-west")
		s := *l.state.Load()
		s.view.Truth = damaged(t, &s.view)
		s.view.Digest, s.view.Rows = s.view.Truth.Digest(), s.view.Truth.Len()
		c, err := l.askToCompare(t.Context(), &s, l.question(&s.view))
		if err != nil {
			t.Fatal(err)
		}
		v = contrast(&s.view, c)
		want := []api.RowDifference{{Row: "default/alien", Kind: api.RowExtra}, {Row: "default/s10", Kind: api.RowMissing}, {Row: "default/s20", Kind: api.RowDifferent}}
		if v.Result != api.VerifyDiffers || len(v.Differences) != len(want) {
			t.Fatalf("%+v", v)
		}
		for i, d := range v.Differences {
			if d.Row != want[i].Row || d.Kind != want[i].Kind {
				t.Fatalf("%+v, want %+v", d, want[i])
			}
		}

		// The same rows are on their way once they change in the origin: they prove nothing.
		eu.source.Set(5, "alien", "s10", "s20")
		if c, err = l.askToCompare(t.Context(), &s, l.question(&s.view)); err != nil {
			t.Fatal(err)
		}
		if v = contrast(&s.view, c); v.Result != api.VerifyMoving || v.Moving != 3 || len(v.Differences) != 0 {
			t.Fatalf("%+v", v)
		}
		us.converged(eu)
		if v, err = us.mesh.Verify(t.Context(), "eu-west"); err != nil || v.Result != api.VerifyEqual {
			t.Fatalf("%+v %v", v, err)
		}

		for region, code := range map[api.Region]api.Code{"us-east": api.CodeInvalidField, "nowhere": api.CodeRegionNotFound} {
			if _, err := us.mesh.Verify(t.Context(), region); api.CodeOf(err) != code {
				t.Fatalf("%s: %v", region, err)
			}
			if _, err := us.mesh.Resync(region); api.CodeOf(err) != code {
				t.Fatalf("%s: %v", region, err)
			}
		}
		eu.stop()
		if _, err := us.mesh.Verify(t.Context(), "eu-west"); api.CodeOf(err) != api.CodeUnavailable {
			t.Fatal(err)
		}
	})
}

// damaged returns the table of v without s10, with another s20, and with a row too many.
func damaged(t *testing.T, v *replica.View) *replica.Table {
	t.Helper()
	r := replica.New("us-east", "eu-west", time.Now())
	r.Connect(time.Now())
	var rows []replica.Row
	var digest summary.Digest
	var keys []api.ServiceKey
	bodies := map[api.ServiceKey]*api.Summary{}
	for _, s := range v.Truth.Summaries() {
		s := *s
		switch s.Service {
		case "s10":
			s.Service = "alien"
		case "s20":
			s.Versions = []string{"of old"}
		}
		keys = append(keys, s.Key())
		bodies[s.Key()] = &s
	}
	slices.SortFunc(keys, replica.CompareBuckets)
	for _, k := range keys {
		body, hash := summary.Encode(bodies[k])
		rows = append(rows, replica.Row{Revision: bodies[k].Revision, Body: body})
		digest = digest.Add(hash)
	}
	at := v.Version
	for _, f := range []replica.Frame{
		{Kind: replica.Hello, Proto: replica.Proto, Region: "eu-west", Epoch: at.Epoch, Head: at.Revision},
		{Kind: replica.SnapshotBegin, Epoch: at.Epoch, To: at.Revision},
		{Kind: replica.SnapshotChunk, Epoch: at.Epoch, Rows: rows},
		{Kind: replica.SnapshotEnd, Epoch: at.Epoch, To: at.Revision, Count: len(rows), Digest: digest},
	} {
		if eff := r.Step(f, time.Now()); eff.Err != nil {
			t.Fatal(eff.Err)
		}
	}
	return r.View().Truth
}

// A region that never rests is compared all the same: what stands still is equal.
func TestVerifyUnderChurn(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west", "us-east")
		eu.source.Set(3, "a", "b", "c")
		us.start()
		defer us.stop()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				eu.source.Set(1+i%7, "a", fmt.Sprintf("new-%d", i))
				select {
				case <-time.After(7 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		}()
		after(time.Second)
		results := map[string]int{}
		for range 4 {
			v, err := us.mesh.Verify(ctx, "eu-west")
			if err != nil || v.Result == api.VerifyDiffers {
				t.Fatalf("%+v %v", v, err)
			}
			results[v.Result]++
		}
		t.Logf("%v", results)
	})
}

// An operator's resync drops nothing, brings everything anew, and says when it is done.
func TestResync(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west", "us-east")
		for i := range 30 {
			eu.source.Set(3, fmt.Sprintf("s%02d", i))
		}
		us.start()
		defer us.stop()
		eu.start()
		defer func() { eu.stop() }()
		us.converged(eu)
		before, outages := us.link("eu-west"), us.logs.count("link down")
		info, err := us.mesh.Resync("eu-west")
		if err != nil || info.State != api.ResyncWaiting || info.Expected != 30 {
			t.Fatalf("%+v %v", info, err)
		}
		for us.link("eu-west").Resync.State != api.ResyncDone {
			if us.passing("eu-west", "s07") != 3 {
				t.Fatal("P7: rows are gone meanwhile")
			}
			after(10 * time.Millisecond)
		}
		l := us.link("eu-west")
		if l.Resync.Rows != 30 || l.Resync.Changed != 0 || l.Snapshots != before.Snapshots+1 || l.State != linkConnected || l.Resync.Finished == nil {
			t.Fatalf("%+v %+v", l, l.Resync)
		}
		if w := us.logs.count("link down"); w != outages {
			t.Fatalf("a resync looks like an outage\n%s", us.logs.b.String())
		}

		// While the peer is away it waits, and says for what.
		eu.stop()
		us.until("unreachable", func() bool { return us.link("eu-west").State == linkUnreachable })
		if info, err = us.mesh.Resync("eu-west"); err != nil || info.Cause == "" {
			t.Fatalf("%+v %v", info, err)
		}
		after(5 * time.Second)
		if r := us.link("eu-west").Resync; r.State != api.ResyncWaiting || r.Cause == "" || us.passing("eu-west", "s07") != 3 {
			t.Fatalf("%+v", r)
		}
		eu.source.Set(4, "s08")
		eu.start()
		us.until("done", func() bool { return us.link("eu-west").Resync.State == api.ResyncDone })
		if r := us.link("eu-west").Resync; r.Changed != 1 {
			t.Fatalf("%+v", r)
		}
		us.converged(eu)
	})
}
