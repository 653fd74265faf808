package mesh

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// namesake starts another region of a name, at another address.
func namesake(t *testing.T, n *network, name api.Region, host string, peers ...api.Region) (*regiontest.Source, *region) {
	r := newRegion(t, n, name, peers...)
	r.at = host
	r.source.Wipe() // another history
	r.source.Set(7, "impostor")
	r.start()
	t.Cleanup(r.stop)
	return r.source, r
}

// Failure 52: two regions of one name behind one configured peer. The one that was met first stays, the other
// is refused and told of, and neither raises its epoch for what a reader holds of the other.
func TestTwoRegionsOfOneName(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us := newRegion(t, n, "us-east", "eu-west")
		us.peers["eu-west"] = []string{"http://eu-west:7402", "http://eu-two:7402"}
		eu := newRegion(t, n, "eu-west")
		cut, heal := severed(us.client, "eu-west")
		eu.start()
		defer eu.stop()
		two, _ := namesake(t, n, "eu-west", "eu-two")
		us.start()
		defer us.stop()
		eu.source.Set(3, "payments")
		us.has("eu-west", "payments", 3)
		us.converged(eu)
		// The stream ends, and the ring goes on to the other address; the first is alive again by then.
		for range 5 {
			cut()
			heal()
			after(20 * time.Second)
			eu.source.Set(3, "payments")
			us.converged(eu)
			if us.passing("eu-west", "impostor") != 0 || us.passing("eu-west", "payments") != 3 {
				t.Fatal("two regions were merged")
			}
		}
		if eu.source.Raised() != 0 || two.Raised() != 0 {
			t.Fatalf("epochs were raised: %d, %d", eu.source.Raised(), two.Raised())
		}
	})
}

// Failure 52: the second of two regions of one name is met while the first one's stream fails, but it answers.
func TestNamesakeIsRefusedAndAlarmed(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us := newRegion(t, n, "us-east", "eu-west")
		us.peers["eu-west"] = []string{"http://eu-west:7402", "http://eu-two:7402"}
		eu := newRegion(t, n, "eu-west")
		var broken switchable
		eu.front = broken.wrap
		eu.start()
		defer eu.stop()
		two, _ := namesake(t, n, "eu-west", "eu-two")
		us.start()
		defer us.stop()
		eu.source.Set(3, "payments")
		us.has("eu-west", "payments", 3)
		us.converged(eu)
		broken.set(true)
		eu.host.kill()
		eu.host.restore()
		us.until("it is told of", func() bool { return us.link("eu-west").Duplicate != nil })
		d := us.link("eu-west").Duplicate
		if d.At != "http://eu-two:7402" || d.Ours != "http://eu-west:7402" || d.Epoch != two.Version().Epoch {
			t.Fatalf("%+v", d)
		}
		if len(us.notices.of(api.EventDuplicate)) != 1 || us.link("eu-west").State == linkConnected {
			t.Fatalf("%+v", us.link("eu-west"))
		}
		after(30 * time.Second)
		if us.passing("eu-west", "impostor") != 0 || us.passing("eu-west", "payments") != 3 || two.Raised()+eu.source.Raised() != 0 {
			t.Fatal("two regions were merged, or raised their epochs")
		}
		broken.set(false)
		us.converged(eu)
		after(doubleHolds)
		us.until("the alarm ends", func() bool { return us.link("eu-west").Duplicate == nil && us.link("eu-west").State == linkConnected })
		if len(us.notices.of(api.EventDuplicate)) != 2 {
			t.Fatalf("%+v", us.notices.of(api.EventDuplicate))
		}
	})
}

// Failures 12, 51: a region that lost its data is no namesake: nobody tells its old history any more. It is let in at
// once where there is one address, and with the others of the mesh watching.
func TestWipedRegionIsNoNamesake(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := full(t, n, "us-east", "eu-west", "ap-south")
		us, eu := w.region["us-east"], w.region["eu-west"]
		eu.source.Set(3, "payments")
		us.has("eu-west", "payments", 3)
		us.converged(eu)
		eu.stop()
		after(5 * time.Second)
		eu.source.Wipe()
		eu.source.Set(4, "payments")
		began := time.Now()
		eu.start()
		us.has("eu-west", "payments", 4)
		us.converged(eu)
		t.Logf("followed %s after it came back", time.Since(began))
		if time.Since(began) > 15*time.Second || us.link("eu-west").Duplicate != nil {
			t.Fatalf("%+v", us.link("eu-west"))
		}
	})
}

// Failure 52: us-east reads one region eu-west, ap-south another one. Both find out, and keep what they have.
func TestNamesakeIsSeenThroughAThirdRegion(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us := newRegion(t, n, "us-east", "eu-west", "ap-south")
		ap := newRegion(t, n, "ap-south", "us-east", "eu-west")
		ap.peers["eu-west"] = []string{"http://eu-two:7402"}
		eu := newRegion(t, n, "eu-west", "us-east")
		for _, r := range []*region{us, ap, eu} {
			r.start()
			defer r.stop()
		}
		eu.source.Set(3, "payments")
		us.has("eu-west", "payments", 3)
		us.converged(eu)
		_, _ = namesake(t, n, "eu-west", "eu-two", "us-east")
		ap.has("eu-west", "impostor", 7)
		us.until("us-east knows", func() bool { return us.link("eu-west").Duplicate != nil })
		ap.until("ap-south knows", func() bool { return ap.link("eu-west").Duplicate != nil })
		after(time.Minute)
		if us.passing("eu-west", "impostor") != 0 || us.passing("eu-west", "payments") != 3 || ap.passing("eu-west", "payments") != 0 || eu.source.Raised() != 0 {
			t.Fatal("two regions were merged")
		}
		// The second one is a reader of us-east too, and refused at the handshake.
		readers := 0
		for _, r := range us.mesh.Info().Readers {
			if r.Region == "eu-west" {
				readers++
			}
		}
		if readers != 1 {
			t.Fatalf("%d readers of that name: %+v", readers, us.mesh.Info().Readers)
		}
	})
}

// switchable is a door whose streams can be refused, while it goes on to answer pings.
type switchable struct{ off atomic.Bool }

func (s *switchable) set(off bool) { s.off.Store(off) }

func (s *switchable) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if s.off.Load() && r.URL.Path == "/peer/v1/stream" {
			http.Error(out, "no", http.StatusBadGateway)
			return
		}
		h.ServeHTTP(out, r)
	})
}

// P4: the word of a region that has not heard of the peer for a while is no proof that the history which
// it read is alive.
func TestOldWordIsNoProofOfAHistory(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		m, err := New(Config{Region: "us-east", Source: regiontest.New("us-east"), HTTPClient: n.client(), Peers: map[api.Region][]string{
			"eu-west": {"http://eu-west:7402"}, "ap-south": {"http://ap-south:7402"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		l, p := m.by("eu-west"), m.by("ap-south")
		state := *p.state.Load()
		state.connected = true
		p.state.Store(&state)
		held := api.Epoch{Generation: 3, Nonce: 3}
		q := peer.Query{Reader: "us-east", Origin: "eu-west", Have: api.Version{Region: "eu-west", Epoch: held, Revision: 9}}
		for age, proof := range map[time.Duration]bool{time.Second: true, time.Minute: false} {
			say := replica.Standing{Region: "eu-west", Epoch: held, Revision: 9, AgeMS: age.Milliseconds(), Link: api.LinkUp}
			p.heard.Store(&heard{standings: []replica.Standing{say}, at: time.Now()})
			if got := l.alive(t.Context(), "", q) != ""; got != proof {
				t.Errorf("a word of %s ago: proof %v", age, got)
			}
		}
	})
}
