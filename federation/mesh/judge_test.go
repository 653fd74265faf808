package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// noticeLog keeps what a mesh told.
type noticeLog struct {
	mu   sync.Mutex
	list []Notice
}

func (l *noticeLog) take(n Notice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, n)
}

func (l *noticeLog) of(kind api.EventKind) (out []Notice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.list {
		if n.Kind == kind {
			out = append(out, n)
		}
	}
	return out
}

// dataPath is the way to the endpoints of one region from another: it answers or it does not.
type dataPath struct {
	mu    sync.Mutex
	dead  bool
	tried []time.Time
}

func (p *dataPath) probe(_ context.Context, e api.Endpoint) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = append(p.tried, time.Now())
	if p.dead {
		return fmt.Errorf("%s:%d: connection refused", e.Address, e.Port)
	}
	return nil
}

func (p *dataPath) set(dead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = dead
}

func (p *dataPath) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tried)
}

// severed makes a client whose dials to a host fail while the returned switch is on, and
// whose connections to it end when cut is called.
func severed(c *http.Client, to string) (cut, heal func()) {
	var mu sync.Mutex
	off := false
	conns := map[net.Conn]struct{}{}
	tr := c.Transport.(*http.Transport)
	synctest.Wait() // whoever dials at the moment has looked at DialContext
	dial := tr.DialContext
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if !strings.HasPrefix(addr, to+":") {
			return dial(ctx, network, addr)
		}
		gone := errors.New("no route to host")
		away := func() bool { mu.Lock(); defer mu.Unlock(); return off }
		if away() {
			return nil, gone
		}
		conn, err := dial(ctx, network, addr) // without the lock: it may wait
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		if off {
			_ = conn.Close()
			return nil, gone
		}
		conns[conn] = struct{}{}
		return conn, nil
	}
	cut = func() {
		mu.Lock()
		defer mu.Unlock()
		off = true
		for conn := range conns {
			_ = conn.Close()
		}
		clear(conns)
	}
	return cut, func() {
		mu.Lock()
		defer mu.Unlock()
		off = false
	}
}

// trio starts three regions that know each other, with a data path from us and ap to eu.
func trio(t *testing.T, n *network) (us, eu, ap *region, usPath, apPath *dataPath) {
	us = newRegion(t, n, "us-east", "eu-west", "ap-south")
	eu = newRegion(t, n, "eu-west", "us-east", "ap-south")
	ap = newRegion(t, n, "ap-south", "us-east", "eu-west")
	usPath, apPath = &dataPath{}, &dataPath{}
	us.probe, ap.probe = usPath.probe, apPath.probe
	eu.source.Set(6, "payments", "orders")
	for _, r := range []*region{us, eu, ap} {
		r.start()
	}
	us.converged(eu)
	ap.converged(eu)
	us.converged(ap)
	ap.converged(us)
	return us, eu, ap, usPath, apPath
}

func isDown(r *region, other api.Region) bool { return r.origin(other).Down }

// P10: a federation that cannot be reached moves nothing, however long; only when its
// endpoints do not answer either, and the other region says the same, is the region down. One
// answer ends that.
func TestUnreachableIsNotDown(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu, ap, usPath, apPath := trio(t, n)
		defer us.stop()
		defer ap.stop()
		defer eu.stop()

		cut := time.Now()
		eu.host.kill() // its federation port; its endpoints go on
		after(time.Minute)
		l := us.link("eu-west")
		if l.Replica.Down || l.Verdict == nil || l.Verdict.Down || l.Replica.State != api.AgeSuspect || us.passing("eu-west", "payments") != 6 {
			t.Fatalf("%+v %+v", l, l.Verdict)
		}
		if v := l.Verdict; v.Probed == 0 || v.Failed != 0 || v.Says[0].Probes != api.ProbesAnswer || v.Says[1].By != "ap-south" || v.Says[1].Link != api.LinkDown {
			t.Fatalf("%+v", v)
		}
		usPath.mu.Lock()
		for i, at := range usPath.tried {
			in5s := 0
			for _, other := range usPath.tried[i:] {
				if other.Sub(at) < 5*time.Second {
					in5s++
				}
			}
			if in5s > 3 {
				t.Fatalf("%d probes within 5 s", in5s)
			}
		}
		if first := usPath.tried[0].Sub(cut); first < probeAfter {
			t.Fatalf("probed after %s", first)
		}
		usPath.mu.Unlock()

		usPath.set(true)
		after(20 * time.Second)
		if isDown(us, "eu-west") || isDown(ap, "eu-west") {
			t.Fatalf("one region's word brought it down: %+v", us.link("eu-west").Verdict)
		}
		apPath.set(true)
		dead := time.Now()
		us.until("eu-west is down", func() bool { return isDown(us, "eu-west") })
		ap.until("eu-west is down", func() bool { return isDown(ap, "eu-west") })
		t.Logf("down %s after its endpoints died too", time.Since(dead))
		if v := us.link("eu-west").Verdict; v.Agree != 2 || v.Of != 2 || v.Needed != 2 || v.Since == nil || !strings.Contains(v.Why, "ap-south and us-east do not reach it") {
			t.Fatalf("%+v", v)
		}
		if us.passing("eu-west", "payments") != 6 {
			t.Fatal("I6: down removed rows")
		}
		if r := us.mesh.Lookup(api.ServiceKey{Service: "payments"}); len(r) != 1 || !r[0].Origin.Down {
			t.Fatalf("%+v", r)
		}

		usPath.set(false)
		us.until("an answer ends it", func() bool { return !isDown(us, "eu-west") })
		usPath.set(true)
		us.until("down again", func() bool { return isDown(us, "eu-west") })
		eu.host.restore()
		us.until("the link ends it", func() bool { return !isDown(us, "eu-west") })
		us.converged(eu)
		before := usPath.count()
		after(time.Minute)
		if usPath.count() != before || us.link("eu-west").Verdict != nil {
			t.Fatal("a region that is reached is probed")
		}
		downs, ups := us.notices.of(api.EventRegionDown), us.notices.of(api.EventRegionUp)
		if len(downs) != 2 || len(ups) != 2 || ups[0].Cause != api.BecauseProbeAnswers || downs[0].Region != "eu-west" {
			t.Fatalf("%+v %+v", downs, ups)
		}
		// Whichever comes first: our link, or ap-south's word that it reaches it.
		if c := ups[1].Cause; c != api.BecauseLinkAnswers && c != api.BecauseNotAgreed {
			t.Fatalf("%+v", ups)
		}
	})
}

// A region killed as a whole is found down in seconds, by everyone; the time is printed.
func TestKilledRegionIsDown(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu, ap, usPath, apPath := trio(t, n)
		defer us.stop()
		defer ap.stop()
		killed := time.Now()
		usPath.set(true)
		apPath.set(true)
		eu.stop()
		us.until("down", func() bool { return isDown(us, "eu-west") })
		ap.until("down", func() bool { return isDown(ap, "eu-west") })
		took := time.Since(killed)
		t.Logf("down %s after it was killed", took)
		if took > 15*time.Second {
			t.Fatal("that is too late")
		}
	})
}

// A one-way street: only us-east reaches neither federation nor endpoints of eu-west, which
// ap-south does. It is not down for anyone.
func TestOneWayStreetIsNotDown(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us := newRegion(t, n, "us-east", "eu-west", "ap-south")
		eu := newRegion(t, n, "eu-west", "us-east", "ap-south")
		ap := newRegion(t, n, "ap-south", "us-east", "eu-west")
		usPath := &dataPath{dead: true}
		us.probe, ap.probe = usPath.probe, (&dataPath{}).probe
		cut, heal := severed(us.client, "eu-west")
		eu.source.Set(6, "payments")
		for _, r := range []*region{us, eu, ap} {
			r.start()
			defer r.stop()
		}
		us.converged(eu)
		ap.converged(eu)
		us.converged(ap)
		cut()
		for range 60 {
			after(time.Second)
			if isDown(us, "eu-west") || isDown(ap, "eu-west") {
				t.Fatalf("%+v", us.link("eu-west").Verdict)
			}
		}
		v := us.link("eu-west").Verdict
		if v == nil || v.Agree != 1 || v.Of != 2 || !strings.Contains(v.Why, "ap-south reaches it") {
			t.Fatalf("%+v", v)
		}
		// Rows by way of ap-south are those that ap-south is told: nothing to compare with eu-west.
		if l := us.link("eu-west"); l.Via != "ap-south" {
			t.Fatalf("%+v", l)
		}
		if _, err := us.mesh.Verify(t.Context(), "eu-west"); api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), "ap-south") {
			t.Fatal(err)
		}
		// Failure 49: eu-west hears us-east, and knows all the same that us-east does not hear it; ap-south
		// keeps what us-east knows fresh.
		eu.until("eu-west knows that it is not heard", func() bool {
			p := eu.link("us-east").PeerView
			return eu.link("us-east").State == linkConnected && p != nil && p.State == api.AgeFresh && strings.Contains(p.Complaint, "does not reach our federation")
		})
		heal()
		us.converged(eu)
		eu.until("and that all is well again", func() bool {
			p := eu.link("us-east").PeerView
			return p != nil && p.State == api.AgeFresh && p.Complaint == ""
		})
	})
}

// Who is cut off itself does not take all others for down.
func TestIsolatedRegionAccusesNobody(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu, ap, usPath, _ := trio(t, n)
		defer us.stop()
		ap.source.Set(2, "carts")
		us.has("ap-south", "carts", 2)
		usPath.set(true)
		eu.stop()
		ap.stop()
		after(time.Minute)
		for _, r := range []api.Region{"eu-west", "ap-south"} {
			if v := us.link(r).Verdict; v == nil || v.Down || !strings.Contains(v.Why, "cut off") {
				t.Fatalf("%s: %+v", r, v)
			}
		}
	})
}

// A node that has everything from its region's federation process finds a region down by the
// process's word and its own probes; when the process itself dies it accuses nobody.
func TestNodeBesideAFederationProcessJudges(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		eu := newRegion(t, n, "eu-west", "us-east")
		eu.source.Set(3, "payments")
		eu.start()
		fed := newRegion(t, n, "us-east", "eu-west")
		fed.node = "fed"
		fed.start()
		path := &dataPath{dead: true}
		node := newRegion(t, n, "us-east")
		node.node, node.at, node.near, node.probe = "n1", "us-n1", Near{Only: []string{"http://us-east:7402"}}, path.probe
		node.start()
		defer node.stop()
		node.has("eu-west", "payments", 3)
		node.until("up", func() bool { return node.link("eu-west").State == linkConnected })
		if _, err := node.mesh.Verify(t.Context(), "eu-west"); api.CodeOf(err) != api.CodeUnsupported {
			t.Fatal(err)
		}
		eu.stop()
		node.until("eu-west is down", func() bool { return isDown(node, "eu-west") })
		eu.start()
		defer eu.stop()
		node.until("eu-west is up", func() bool { return !isDown(node, "eu-west") && node.link("eu-west").State == linkConnected })
		fed.stop()
		for range 60 {
			after(time.Second)
			if isDown(node, "eu-west") {
				t.Fatalf("%+v", node.link("eu-west").Verdict)
			}
		}
		if v := node.link("eu-west").Verdict; v == nil || v.Failed < 4 || !strings.Contains(v.Why, "is not known here yet") {
			t.Fatalf("%+v", v)
		}
	})
}

// P8: a region that becomes known while others are judged does no harm.
func TestJudgeMeetsANewRegion(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us := newRegion(t, n, "us-east", "eu-west")
		us.start()
		defer us.stop()
		j := newJudge(us.mesh)
		q := j.inquiry(us.mesh.by("eu-west"))
		us.mesh.add(newLink(us.mesh, "ap-south", []string{"http://ap-south:7402"}, ""))
		j.decide(q, time.Now())
		if len(j.inquiries) != 2 {
			t.Errorf("%d regions are judged", len(j.inquiries))
		}
	})
}
