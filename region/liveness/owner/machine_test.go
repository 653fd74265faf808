package owner_test

import (
	"testing"
	"time"

	"github.com/nearside/nearside/region/liveness/owner"
	"github.com/nearside/nearside/sdk/api"
)

var (
	n1 = owner.Node{Name: "n1", Address: "http://10.0.0.1:7400"}
	n2 = owner.Node{Name: "n2", Address: "http://10.0.0.2:7400"}
)

const ms = time.Millisecond

func machine(self owner.Node) *owner.Machine {
	return owner.New(owner.Default(self, self.Name+"-run"), func(int64) int64 { return 0 })
}

func claimOf(n owner.Node, term uint64) owner.Claim {
	return owner.Claim{Term: term, Node: n, Run: n.Name + "-run"}
}

// Each step: what happens at a time, and what the machine then wants.
func TestMachine(t *testing.T) {
	type m = *owner.Machine
	// watching is a follower that confirms twice a second from one moment to another.
	watching := func(x m, from, to time.Duration) {
		for at := from; at <= to; at += 500 * ms {
			x.Probed(at, true)
		}
	}
	for name, tt := range map[string]struct {
		run  func(x m) owner.Action
		want owner.Kind
		why  string
	}{
		"nothing is done before the records were seen": {func(x m) owner.Action { return x.Step(time.Hour) }, owner.None, ""},
		"a region without a claim is claimed": {func(x m) owner.Action {
			x.SeeClaim(0, owner.Claim{}, 0)
			return x.Step(0)
		}, owner.Take, api.BecauseFirstStart},
		"a claim given back is taken at once": {func(x m) owner.Action {
			x.SeeClaim(0, owner.Claim{Term: 4}, 9)
			return x.Step(0)
		}, owner.Take, api.BecauseOwnerStopped},
		"a claim of this node's earlier process is taken at once": {func(x m) owner.Action {
			c := claimOf(n1, 4)
			c.Run = "before"
			x.SeeClaim(0, c, 9)
			return x.Step(0)
		}, owner.Take, api.BecauseUncleanEnd},
		"the owner's silence of less than its patience is borne": {func(x m) owner.Action {
			x.SeeClaim(0, claimOf(n2, 1), 9)
			watching(x, 0, 2500*ms)
			return x.Step(2600 * ms)
		}, owner.Probe, ""},
		"after it the claim is taken": {func(x m) owner.Action {
			x.SeeClaim(0, claimOf(n2, 1), 9)
			watching(x, 0, 3000*ms)
			return x.Step(3000 * ms)
		}, owner.Take, api.BecauseOwnerSilent},
		"a beat begins it anew": {func(x m) owner.Action {
			x.SeeClaim(0, claimOf(n2, 1), 9)
			watching(x, 0, 2500*ms)
			x.SeeBeat(2600*ms, 12)
			watching(x, 3000*ms, 5000*ms)
			return x.Step(5000 * ms)
		}, owner.Probe, ""},
		"this node's own pause is not the owner's silence": {func(x m) owner.Action {
			x.SeeClaim(0, claimOf(n2, 1), 9)
			watching(x, 0, 1000*ms)
			x.Probed(20*time.Second, true)
			return x.Step(20 * time.Second)
		}, owner.Probe, ""},
		"a store that was away is not the owner's silence": {func(x m) owner.Action {
			x.SeeClaim(0, claimOf(n2, 1), 9)
			watching(x, 0, 2500*ms)
			x.Probed(3000*ms, false)
			x.Probed(9000*ms, true)
			x.Probed(9500*ms, true)
			x.Probed(10000*ms, true)
			return x.Step(10000 * ms)
		}, owner.Probe, ""},
		"without the store nobody claims": {func(x m) owner.Action {
			x.SeeClaim(0, claimOf(n2, 1), 9)
			for at := time.Duration(0); at < time.Minute; at += 500 * ms {
				x.Probed(at, false)
			}
			return x.Step(time.Minute)
		}, owner.Probe, ""},
		"an owner renews": {func(x m) owner.Action {
			x.SeeClaim(0, claimOf(n1, 1), 9)
			return x.Step(0)
		}, owner.Renew, ""},
		"and not more often than that": {func(x m) owner.Action {
			x.SeeClaim(0, claimOf(n1, 1), 9)
			x.Renewed(0, 9, true)
			return x.Step(999 * ms)
		}, owner.None, ""},
		"but at once when there is something to tell": {func(x m) owner.Action {
			x.SeeClaim(0, claimOf(n1, 1), 9)
			x.Renewed(0, 9, true)
			x.Hurry()
			return x.Step(10 * ms)
		}, owner.Renew, ""},
		"an owner that lost the claim follows": {func(x m) owner.Action {
			x.SeeClaim(0, claimOf(n1, 1), 9)
			x.Renewed(0, 9, true)
			x.SeeClaim(5*ms, claimOf(n2, 2), 10)
			return x.Step(2 * time.Second)
		}, owner.Probe, ""},
	} {
		t.Run(name, func(t *testing.T) {
			x := machine(n1)
			a := tt.run(x)
			if a.Kind != tt.want || a.Claim.Cause != tt.why {
				t.Errorf("%+v, want kind %d, cause %q", a, tt.want, tt.why)
			}
			c, _ := x.Claim()
			if a.Kind == owner.Take && (a.Claim.Term != c.Term+1 || a.Claim.Node != n1) {
				t.Errorf("takes %+v after %+v", a.Claim, c)
			}
		})
	}
}

// P1: an owner acts as one for a bounded time after the begin of a commit that the store
// took, never by the claim alone, and never by a commit of an earlier term.
func TestHolds(t *testing.T) {
	x := machine(n1)
	holds := func(want time.Duration) {
		t.Helper()
		until, ok := x.Holds()
		if ok != (want > 0) || ok && until != want {
			t.Errorf("holds %v until %s, want %s", ok, until, want)
		}
	}
	x.SeeClaim(0, claimOf(n1, 1), 9)
	holds(0)
	x.Renewed(100*ms, 9, true)
	holds(5100 * ms)
	x.Renewed(2000*ms, 9, false)
	holds(5100 * ms)
	x.SeeClaim(2100*ms, claimOf(n2, 2), 20)
	holds(0)
	x.Renewed(2050*ms, 9, true) // came late
	holds(0)
	x.SeeClaim(9000*ms, claimOf(n1, 3), 30)
	x.Renewed(2050*ms, 9, true)
	holds(0)
	x.Renewed(9100*ms, 30, true)
	holds(14100 * ms)
}

func TestRecords(t *testing.T) {
	c, err := owner.DecodeClaim(claimOf(n1, 7).Encode())
	if err != nil || c.Node != n1 || c.Term != 7 || c.Released() {
		t.Errorf("%+v, %v", c, err)
	}
	b, err := owner.DecodeBeat(owner.Beat{Term: 7, Evicted: [][2]int{{3, 5}}}.Encode())
	if err != nil || b.Term != 7 || len(b.Evicted) != 1 {
		t.Errorf("%+v, %v", b, err)
	}
	m, err := owner.DecodeMembers(owner.Members{Nodes: []owner.Node{n1, n2}}.Encode())
	if err != nil || len(m.Nodes) != 2 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{``, `{}`, `[]`, `{"v":2}`, `{"v":1,"node":{"name":"../x"}}`, `{"v":1,"nodes":[{"name":""}]}`, "\xff"} {
		if c, err := owner.DecodeClaim([]byte(bad)); err == nil && !c.Released() {
			t.Errorf("claim %q: %+v", bad, c)
		}
		if m, err := owner.DecodeMembers([]byte(bad)); err == nil && len(m.Nodes) > 0 {
			t.Errorf("members %q: %+v", bad, m)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(claimOf(n1, 7).Encode())
	f.Add(owner.Beat{Term: 1, Evicted: [][2]int{{3, 5}}}.Encode())
	f.Add(owner.Members{Nodes: []owner.Node{n1}}.Encode())
	f.Fuzz(func(t *testing.T, value []byte) {
		if c, err := owner.DecodeClaim(value); err == nil {
			if again, err := owner.DecodeClaim(c.Encode()); err != nil || again.Node != c.Node || again.Term != c.Term {
				t.Errorf("%+v became %+v, %v", c, again, err)
			}
		}
		_, _ = owner.DecodeBeat(value)
		if m, err := owner.DecodeMembers(value); err == nil {
			for _, n := range m.Nodes {
				if !api.ValidLabel(n.Name) {
					t.Errorf("node %q", n.Name)
				}
			}
		}
	})
}
