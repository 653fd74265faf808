package mesh

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// testKey signs for a region; its chain is the name, the public key, and the authority's signature
// of both, so the least that a certificate does.
type testKey struct {
	key   ed25519.PrivateKey
	chain [][]byte
}

var testAuthority = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))

func newTestKey(region api.Region, authority ed25519.PrivateKey) *testKey {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte(region)[:1], ed25519.SeedSize))
	public := key.Public().(ed25519.PublicKey)
	return &testKey{key, [][]byte{[]byte(region), public, ed25519.Sign(authority, append([]byte(region), public...))}}
}

func (k *testKey) Sign(b []byte) ([]byte, error) { return ed25519.Sign(k.key, b), nil }
func (k *testKey) Chain() [][]byte               { return k.chain }

func verifyTestKey(region api.Region, b, sig []byte, chain [][]byte) error {
	switch {
	case len(chain) != 3 || !ed25519.Verify(testAuthority.Public().(ed25519.PublicKey), append(bytes.Clone(chain[0]), chain[1]...), chain[2]):
		return errors.New("it is not of our authority")
	case string(chain[0]) != string(region):
		return fmt.Errorf("it is signed by %s", chain[0])
	case !ed25519.Verify(chain[1], b, sig):
		return errors.New("the signature does not fit")
	}
	return nil
}

// world is some regions that read each other, over links that can be cut.
type world struct {
	region map[api.Region]*region
	cuts   map[[2]api.Region]func() // by reader and read
	heals  map[[2]api.Region]func()
}

// full makes regions that all read each other, and starts them.
func full(t *testing.T, n *network, names ...api.Region) *world {
	t.Helper()
	w := prepare(t, n, names...)
	w.start(names...)
	return w
}

// prepare makes them, and starts nothing.
func prepare(t *testing.T, n *network, names ...api.Region) *world {
	t.Helper()
	w := &world{map[api.Region]*region{}, map[[2]api.Region]func(){}, map[[2]api.Region]func(){}}
	for _, name := range names {
		var peers []api.Region
		for _, p := range names {
			if p != name {
				peers = append(peers, p)
			}
		}
		r := newRegion(t, n, name, peers...)
		for _, p := range peers {
			k := [2]api.Region{name, p}
			w.cuts[k], w.heals[k] = severed(r.client, string(p))
		}
		w.region[name] = r
	}
	return w
}

// start starts them, and waits until they know each other.
func (w *world) start(names ...api.Region) {
	for _, name := range names {
		r := w.region[name]
		r.t.Helper()
		r.start()
		r.t.Cleanup(func() { r.stop() })
	}
	for _, a := range names {
		for _, b := range names {
			if a != b {
				w.region[a].converged(w.region[b])
			}
		}
	}
}

// cut makes two regions unable to read each other.
func (w *world) cut(a, b api.Region) {
	w.cuts[[2]api.Region{a, b}]()
	w.cuts[[2]api.Region{b, a}]()
}

func (w *world) heal(a, b api.Region) {
	w.heals[[2]api.Region{a, b}]()
	w.heals[[2]api.Region{b, a}]()
}

// via waits until a region takes another one's rows from a third; "" = from itself.
func (r *region) via(of, via api.Region) {
	r.t.Helper()
	r.until("takes "+string(of)+" via "+string(via), func() bool {
		l := r.link(of)
		return l.Via == via && l.Replica.State == api.AgeFresh && (via != "" || l.State == linkConnected)
	})
}

// P6, failure 55: while a link is cut, and a third region reaches both, knowledge stays fresh
// through that one; after the heal it comes over the link again.
func TestRelayKeepsKnowledgeFresh(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := full(t, n, "us-east", "eu-west", "ap-south")
		us, eu := w.region["us-east"], w.region["eu-west"]
		eu.source.Set(3, "payments")
		us.has("eu-west", "payments", 3)
		w.cut("us-east", "eu-west")
		us.via("eu-west", "ap-south")
		if l := us.link("eu-west"); l.State != linkUnreachable || l.Depth != 1 || l.Replica.Source != api.SourceReplica {
			t.Fatalf("%+v", l)
		}
		for i := range 30 {
			eu.source.Set(4+i, "payments")
			eu.source.Set(1+i%3, "carts")
			us.has("eu-west", "payments", 4+i)
			after(time.Second)
			if age := us.origin("eu-west").AgeMS; age > 2500 {
				t.Fatalf("age %d ms through the relay", age)
			}
		}
		eu.source.Set(0, "carts")
		us.has("eu-west", "carts", 0)
		healed := time.Now()
		w.heal("us-east", "eu-west")
		us.via("eu-west", "")
		t.Logf("back on the direct link %s after the heal", time.Since(healed))
		us.converged(eu)
		if us.origin("eu-west").Epoch.Generation != 1 || eu.source.Raised() != 0 {
			t.Fatal("somebody moved the epoch")
		}
	})
}

// I1, P12, failure 55: with signatures a relay need not be trusted. It works as without, and rows
// that it changed, made up, or left unsigned are refused, counted and told, and change nothing.
func TestRelayIsHeldToSignatures(t *testing.T) {
	// lies returns what stands before the door of a relay; eu is the region that it lies about.
	for name, lies := range map[string]func(t *testing.T, n *network, honest http.Handler) http.Handler{
		"honest": func(_ *testing.T, _ *network, honest http.Handler) http.Handler { return honest },
		"it changes addresses": func(_ *testing.T, _ *network, honest http.Handler) http.Handler {
			return rewrite(honest, "127.0.0.1", "127.6.6.6")
		},
		"it changes addresses and makes the rows fit the digest": func(_ *testing.T, _ *network, honest http.Handler) http.Handler {
			return collide(honest, "127.0.0.1", "127.6.6.6")
		},
		"it changes where clients find the origin": func(_ *testing.T, _ *network, honest http.Handler) http.Handler {
			return rewrite(honest, "http://eu-west:7400", "http://ev-west:7400")
		},
		"it changes what the origin wishes": func(_ *testing.T, _ *network, honest http.Handler) http.Handler {
			return rewrite(honest, `"drained":25`, `"drained":95`)
		},
		"it claims that all is told": func(_ *testing.T, _ *network, honest http.Handler) http.Handler {
			return rewrite(honest, `"complete":true`, `"complete":null`)
		},
		"it drops the signature": func(_ *testing.T, _ *network, honest http.Handler) http.Handler {
			return rewrite(honest, `"signed":`, `"singed":`)
		},
		"it tells rows of its own, signed by itself": func(t *testing.T, n *network, _ http.Handler) http.Handler {
			return forged(t, n, newTestKey("ap-south", testAuthority))
		},
		"it tells rows of its own, signed in the origin's name": func(t *testing.T, n *network, _ http.Handler) http.Handler {
			return forged(t, n, newTestKey("eu-west", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))))
		},
		"it tells rows of its own, unsigned": func(t *testing.T, n *network, _ http.Handler) http.Handler { return forged(t, n, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *network) {
				names := []api.Region{"us-east", "eu-west", "ap-south"}
				w := prepare(t, n, names...)
				for _, r := range names {
					w.region[r].signer = newTestKey(r, testAuthority)
				}
				us, eu, ap := w.region["us-east"], w.region["eu-west"], w.region["ap-south"]
				ap.front = func(honest http.Handler) http.Handler {
					lying := lies(t, n, honest)
					return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
						if r.URL.Query().Get("origin") != "" {
							lying.ServeHTTP(out, r)
							return
						}
						honest.ServeHTTP(out, r)
					})
				}
				var wish atomic.Int64
				wish.Store(25)
				eu.drained = func() float64 { return float64(wish.Load()) }
				w.start(names...)
				eu.source.Set(3, "payments")
				us.has("eu-west", "payments", 3)
				w.cut("us-east", "eu-west")
				if name == "honest" {
					us.via("eu-west", "ap-south")
					eu.source.Set(5, "payments", "orders")
					us.has("eu-west", "payments", 5)
					wish.Store(60) // no row changes
					after(5 * time.Second)
					if d := us.origin("eu-west").Drained; d != 60 {
						t.Fatalf("its wish is %g", d)
					}
					if o := us.origin("eu-west"); o.State != api.AgeFresh || us.link("eu-west").Refused != 0 {
						t.Fatalf("%+v", us.link("eu-west"))
					}
					w.heal("us-east", "eu-west")
					us.via("eu-west", "")
					for i := range 5 {
						eu.source.Set(1+i, "payments", "carts")
						us.has("eu-west", "carts", 1+i)
						after(time.Second)
					}
					us.converged(eu)
					if l := us.link("eu-west"); l.Refused != 0 {
						t.Fatalf("back on the direct link: %+v", l)
					}
					return
				}
				eu.source.Set(5, "payments", "orders")
				after(20 * time.Second)
				l := us.link("eu-west")
				if us.passing("eu-west", "payments") != 3 || us.passing("eu-west", "evil") != 0 || l.Replica.AgeMS < 19_000 || l.Replica.Drained != 25 ||
					l.Replica.Revision != 2 || l.Replica.Addresses[0] != "http://eu-west:7400" || !l.Replica.Complete {
					t.Fatalf("it is believed: %+v", l)
				}
				if l.RefusedBy[string(replica.RefusedSignature)]+l.RefusedBy[string(replica.RefusedDigest)] == 0 {
					t.Fatalf("not counted: %+v", l.RefusedBy)
				}
				if strings.HasSuffix(name, "fit the digest") && l.RefusedBy[string(replica.RefusedDigest)] > 0 {
					t.Fatalf("the rows did not fit the digest, so nothing was tried: %+v", l.RefusedBy)
				}
				if name != "it changes addresses" && len(us.notices.of(api.EventRelayRefused)) == 0 {
					t.Fatal("not told")
				}
				w.heal("us-east", "eu-west")
				us.converged(eu)
				us.has("eu-west", "orders", 5)
			})
		})
	}
}

// I2, failure 55: two relays in a row work, three do not; and when the first of them loses the
// origin, knowledge ages everywhere: no two regions keep each other's fresh.
func TestRelayChain(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := full(t, n, "eu-west", "ap-south", "sa-east", "us-east", "us-west")
		eu, ap, sa, us, usw := w.region["eu-west"], w.region["ap-south"], w.region["sa-east"], w.region["us-east"], w.region["us-west"]
		// eu-west - ap-south - sa-east - us-east - us-west, and no other way to eu-west.
		w.cut("eu-west", "sa-east")
		w.cut("eu-west", "us-east")
		w.cut("eu-west", "us-west")
		w.cut("ap-south", "us-east")
		w.cut("ap-south", "us-west")
		w.cut("sa-east", "us-west")
		sa.via("eu-west", "ap-south")
		us.via("eu-west", "sa-east")
		if l := us.link("eu-west"); l.Depth != 2 {
			t.Fatalf("%+v", l)
		}
		for i := range 10 {
			eu.source.Set(1+i, "payments")
			us.has("eu-west", "payments", 1+i)
			after(time.Second)
			if age := us.origin("eu-west").AgeMS; age > 4000 {
				t.Fatalf("age %d ms through two relays", age)
			}
		}
		after(10 * time.Second)
		if l := usw.link("eu-west"); l.Via != "" || l.Replica.AgeMS < 15_000 {
			t.Fatalf("through three: %+v", l)
		}
		w.cut("eu-west", "ap-south")
		lost := time.Now()
		for range 60 {
			after(time.Second)
			for _, r := range []*region{ap, sa, us, usw} {
				if age := time.Duration(r.origin("eu-west").AgeMS) * time.Millisecond; age < time.Since(lost)-time.Second {
					t.Fatalf("%s: age %s, %s after the last way was cut", r.name, age, time.Since(lost))
				}
			}
		}
		for _, p := range []api.Region{"ap-south", "sa-east", "us-east", "us-west"} {
			w.heal("eu-west", p)
		}
		for _, r := range []*region{ap, sa, us, usw} {
			r.via("eu-west", "")
			r.converged(eu)
		}
	})
}

// Failure 55: nobody tells a region of itself, whoever asks in its name.
func TestRelayNeverTellsARegionOfItself(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		w := full(t, n, "eu-west", "ap-south")
		c := peer.NewClient(w.region["eu-west"].client, nil)
		for _, q := range []peer.Query{
			{Reader: "eu-west", Peer: "ap-south", Origin: "eu-west"},
			{Reader: "us-east", Peer: "ap-south", Origin: "sa-east"},
		} {
			s, err := c.Open(t.Context(), "http://ap-south:7402", q, nil)
			var no *api.Error
			if !errors.As(err, &no) {
				t.Fatalf("%+v: %v %v", q, s, err)
			}
			t.Log(no)
		}
	})
}
