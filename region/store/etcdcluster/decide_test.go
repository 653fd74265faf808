package etcdcluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// P1, P7: a node without data begins something new only when nobody can have data, comes in only
// where it was added, and is told what to do otherwise.
func TestHowANodeWithoutDataBegins(t *testing.T) {
	c := Config{Region: "us", Node: "a", Peers: map[string]string{"a": "10.0.0.1:1", "b": "10.0.0.2:1", "c": "10.0.0.3:1"}, Listen: ":1"}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	away := errors.New("connection refused")
	member := func(node, addr string, started, learner bool) Told {
		m := Told{Name: node, PeerURLs: []string{"http://" + addr}, IsLearner: learner}
		if started {
			m.ClientURLs = []string{"unix:///x"}
		}
		return m
	}
	a, b, cc := func(s, l bool) Told { return member("a", "10.0.0.1:1", s, l) }, member("b", "10.0.0.2:1", true, false), member("c", "10.0.0.3:1", true, false)
	running := func(node string, ms ...Told) Answer { return Answer{Node: node, Cluster: "f1", Members: ms} }
	unnamed := a(false, true)
	unnamed.Name = ""
	for _, x := range []struct {
		what    string
		answers []Answer
		waited  time.Duration
		step    Step
		refusal string
	}{
		{"nobody answers", []Answer{{Node: "b", Err: away}, {Node: "c", Err: away}}, time.Hour, Wait, ""},
		{"one of two answers, just now", []Answer{{Node: "b", Waiting: "us/b"}, {Node: "c", Err: away}}, time.Second, Wait, ""},
		{"one of two answers, for long", []Answer{{Node: "b", Waiting: "us/b"}, {Node: "c", Err: away}}, patience, Bootstrap, ""},
		{"all are there, empty", []Answer{{Node: "b", Waiting: "us/b"}, {Node: "c", Waiting: "us/c"}}, 0, Bootstrap, ""},
		{"another region", []Answer{{Node: "b", Waiting: "eu/b"}, {Node: "c", Err: away}}, 0, Wait, "region eu"},
		{"they have begun with us", []Answer{running("b", a(false, false), member("b", "10.0.0.2:1", false, false), member("c", "10.0.0.3:1", false, false)), {Node: "c", Err: away}}, 0, Bootstrap, ""},
		{"we were added", []Answer{running("b", unnamed, b, cc), {Node: "c", Err: away}}, 0, Join, ""},
		{"added, and one of them lags", []Answer{running("b", b, cc), running("c", unnamed, b, cc)}, 0, Join, ""},
		{"nobody added us", []Answer{running("b", b, cc), {Node: "c", Err: away}}, 0, Wait, "member add a=10.0.0.1:1"},
		{"our disk is lost", []Answer{running("b", a(true, false), b, cc), running("c", a(true, false), b, cc)}, 0, Wait, "member remove a"},
		{"our disk is lost, and another one's too", []Answer{running("b", a(true, false), b, cc), {Node: "c", Waiting: "us/c"}}, time.Hour, Wait, "member remove a"},
		{"known at another address", []Answer{running("b", member("a", "10.9.9.9:1", true, false), b, cc), {Node: "c", Err: away}}, 0, Wait, "10.9.9.9"},
		{"two clusters", []Answer{running("b", unnamed, b), {Node: "c", Cluster: "f2", Members: []Told{cc}}}, 0, Wait, "different clusters"},
	} {
		t.Run(x.what, func(t *testing.T) {
			step, members, err := Decide(c, x.answers, x.waited)
			switch {
			case x.refusal != "":
				if !errors.Is(err, ErrNotMember) || !strings.Contains(err.Error(), x.refusal) {
					t.Errorf("got %v, want a refusal with %q", err, x.refusal)
				}
			case err != nil || step != x.step:
				t.Errorf("step %d (%v), want %d", step, err, x.step)
			case step == Join && !strings.Contains(Initial(c, members), "a=http://10.0.0.1:1"):
				t.Errorf("joins as %s", Initial(c, members))
			}
		})
	}
}

func TestOnlyWhoHasLeftTheMemberOutStrikesItOff(t *testing.T) {
	lists := func(cluster string, ids ...uint64) Answer {
		a := Answer{Cluster: cluster}
		for _, id := range ids {
			a.Members = append(a.Members, Told{ID: id})
		}
		return a
	}
	silent := Answer{Err: errors.New("refused")}
	for name, c := range map[string]struct {
		answers []Answer
		want    bool
	}{
		"nobody answers":        {[]Answer{silent}, false},
		"both have left it out": {[]Answer{lists("c", 1, 2), lists("c", 1, 2)}, true},
		"two of three":          {[]Answer{lists("c", 1, 2), silent, lists("c", 1, 2)}, true},
		"the one that answers":  {[]Answer{lists("c", 1, 2), silent}, false},
		"one is behind":         {[]Answer{lists("c", 1, 2), lists("c", 1, 2, 3)}, false},
		"another cluster":       {[]Answer{lists("d", 1, 2)}, false},
		"one that waits":        {[]Answer{{Waiting: "eu-west/b"}}, false},
	} {
		if got := StruckOff(c.answers, "c", 3); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestSilentMembersMakeAQuorumNoMore(t *testing.T) {
	m := func(node string, answers bool) api.Member {
		return api.Member{Node: node, ID: node, Role: "voter", Started: true, Answers: answers}
	}
	three := []api.Member{m("a", true), m("b", true), m("c", false)}
	if err := mayRemove(three, three[2]); err != nil {
		t.Errorf("the silent one of three: %v", err)
	}
	if err := mayRemove(three, three[0]); err == nil || !strings.Contains(err.Error(), "c at") {
		t.Errorf("one of the two that answer: %v", err)
	}
	if err := mayRemove(three[:1], three[0]); err == nil {
		t.Error("the only one may go")
	}
	learner := m("l", false)
	learner.Role = "learner"
	if err := mayRemove(append(three, learner), learner); err != nil {
		t.Errorf("a learner that never started: %v", err)
	}
}

// P8: a change of the members waits for the one before it only as long as somebody waits for it.
func TestAChangeWaitsAsLongAsItsCaller(t *testing.T) {
	m := &Members{changing: make(chan struct{}, 1)}
	if err := m.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.Add(gone, "n2", "10.0.0.2:7403")
	for what, err := range map[string]error{"add": err, "remove": m.Remove(gone, "n2", false)} {
		if !errors.Is(err, &api.Error{Code: api.CodeUnavailable}) {
			t.Errorf("%s behind another change: %v", what, err)
		}
	}
	m.end()
	if err := m.begin(t.Context()); err != nil {
		t.Error(err)
	}
}
