package relay

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

func at(generation, revision uint64) api.Version {
	return api.Version{Region: "eu-west", Epoch: api.Epoch{Generation: generation, Nonce: 7}, Revision: revision}
}

// P4, I2, failure 55: from whom rows are taken.
func TestChoose(t *testing.T) {
	const s = time.Second
	down := State{Self: "us-east", Origin: "eu-west", Held: at(1, 10), Age: 5 * s, Down: 3 * s}
	up := State{Self: "us-east", Origin: "eu-west", Held: at(1, 10), Age: s}
	through := State{Self: "us-east", Origin: "eu-west", Held: at(1, 10), Age: s, Via: "ap-south", Down: 60 * s}
	good := Offer{By: "ap-south", Version: at(1, 10), Age: s, Depth: 1, RTT: 40 * time.Millisecond}
	with := func(o Offer, f func(*Offer)) Offer { f(&o); return o }
	in := func(x State, f func(*State)) State { f(&x); return x }
	for _, c := range []struct {
		name   string
		state  State
		offers []Offer
		want   api.Region
	}{
		{"nobody offers", down, nil, ""},
		{"the link is up and fresh", up, []Offer{with(good, func(o *Offer) { o.Version = at(1, 99); o.Age = 0 })}, ""},
		{"the link is up, but its word is stale", in(up, func(x *State) { x.Age = 6 * s }), []Offer{good}, "ap-south"},
		{"the link is down", down, []Offer{good}, "ap-south"},
		{"… for a moment only", in(down, func(x *State) { x.Down = s }), []Offer{good}, ""},
		{"others know nothing younger: the origin is gone", down, []Offer{with(good, func(o *Offer) { o.Age = 4500 * time.Millisecond })}, ""},
		{"older than what is held", down, []Offer{with(good, func(o *Offer) { o.Version = at(1, 9) })}, ""},
		{"of another history of the same number", down, []Offer{with(good, func(o *Offer) { o.Version.Epoch.Nonce = 8 })}, ""},
		{"of a newer history", down, []Offer{with(good, func(o *Offer) { o.Version = at(2, 1) })}, "ap-south"},
		{"our own knowledge would come back", down, []Offer{with(good, func(o *Offer) { o.Depth, o.Via = 2, "us-east" })}, ""},
		{"through two relays", down, []Offer{with(good, func(o *Offer) { o.Depth, o.Via = 2, "sa-east" })}, "ap-south"},
		{"through three", down, []Offer{with(good, func(o *Offer) { o.Depth, o.Via = 3, "sa-east" })}, ""},
		{"no relay at all", down, []Offer{with(good, func(o *Offer) { o.Depth = 0 })}, ""},
		{"too old", in(down, func(x *State) { x.Age = time.Hour }), []Offer{with(good, func(o *Offer) { o.Age = replica.ExpiredAfter })}, ""},
		{"ourselves", down, []Offer{with(good, func(o *Offer) { o.By = "us-east" })}, ""},
		{"our own rows", in(down, func(x *State) { x.Origin = "us-east" }), []Offer{good}, ""},
		{"nothing is held", in(down, func(x *State) { x.Held = api.Version{} }), []Offer{good}, "ap-south"},
		{"the shorter way of two about as young", down, []Offer{with(good, func(o *Offer) { o.Depth, o.Via, o.By = 2, "x", "a" }), good}, "ap-south"},
		{"the nearer of two", down, []Offer{good, with(good, func(o *Offer) { o.By, o.RTT = "us-west", time.Millisecond })}, "us-west"},
		{"the younger of two", down, []Offer{with(good, func(o *Offer) { o.Age = 3 * s }), with(good, func(o *Offer) { o.By, o.RTT = "us-west", s })}, "us-west"},

		{"a relay in use stays", through, []Offer{good}, "ap-south"},
		{"… when what it said last is older than what it told", through, []Offer{with(good, func(o *Offer) { o.Version = at(1, 3) })}, "ap-south"},
		{"… when another is a little better", through, []Offer{good, with(good, func(o *Offer) { o.By, o.Age = "us-west", 0 })}, "ap-south"},
		{"… not when another is far better", in(through, func(x *State) { x.Age = 20 * s }), []Offer{with(good, func(o *Offer) { o.Age = 20 * s }), with(good, func(o *Offer) { o.By = "us-west" })}, "us-west"},
		{"… not when it has it from us", in(through, func(x *State) { x.Age = 20 * s }), []Offer{with(good, func(o *Offer) { o.Via, o.Depth = "us-east", 2 })}, ""},
		{"… not when it no longer offers", in(through, func(x *State) { x.Age = 20 * s }), []Offer{with(good, func(o *Offer) { o.By = "us-west" })}, "us-west"},
		{"… while the direct link answers for a moment", in(through, func(x *State) { x.Answers = 2 * s }), []Offer{good}, "ap-south"},
		{"home, when it answers for some seconds", in(through, func(x *State) { x.Answers = 3 * s }), []Offer{good}, ""},
		{"… unless that was no good before", in(through, func(x *State) { x.Answers, x.Home = 5*s, 6*s }), []Offer{good}, "ap-south"},
	} {
		if got := Choose(c.state, c.offers); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// I2, P4: whatever is offered, what is taken anew is never older than what is held, of the
// origin's own, ourselves, our own knowledge, too deep or too old; and the order of the offers does not matter.
func TestChooseNeverTakesWhatItMustNot(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	names := []api.Region{"us-east", "eu-west", "ap-south", "us-west", "sa-east", ""}
	for range 20_000 {
		s := State{
			Self: "us-east", Origin: "eu-west", Held: at(1+rng.Uint64N(2), rng.Uint64N(4)), Age: time.Duration(rng.Int64N(int64(20 * time.Minute))),
			Via: names[rng.IntN(len(names))], Down: time.Duration(rng.IntN(10)) * time.Second, Answers: time.Duration(rng.IntN(5)) * time.Second,
		}
		offers := make([]Offer, rng.IntN(5))
		for i := range offers {
			offers[i] = Offer{
				By: names[i], Version: at(1+rng.Uint64N(2), rng.Uint64N(4)), Age: time.Duration(rng.Int64N(int64(20 * time.Minute))),
				Depth: rng.IntN(4), Via: names[rng.IntN(len(names))], RTT: time.Duration(rng.IntN(3)),
			}
		}
		got := Choose(s, offers)
		rng.Shuffle(len(offers), func(i, j int) { offers[i], offers[j] = offers[j], offers[i] })
		if again := Choose(s, offers); again != got {
			t.Fatalf("seed %d: %q, then %q of %+v %+v", seed, got, again, s, offers)
		}
		if got == "" {
			continue
		}
		for _, o := range offers {
			if o.By != got {
				continue
			}
			order := o.Version.Compare(s.Held)
			if o.Via == s.Self || o.By == s.Self || o.By == s.Origin || o.Depth < 1 || o.Depth > replica.MaxDepth || o.Age >= replica.ExpiredAfter ||
				got != s.Via && order != api.Newer && order != api.Same {
				t.Fatalf("seed %d: %+v takes %+v", seed, s, o)
			}
		}
	}
}
