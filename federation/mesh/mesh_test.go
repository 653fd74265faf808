package mesh

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// region is one region under test: a catalogue, a mesh, and a door on the network.
type region struct {
	t      *testing.T
	net    *network
	name   api.Region
	dir    string
	source *regiontest.Source
	logs   *logs
	client *http.Client
	peers  map[api.Region][]string

	wrap    func(Source) Source             // nil = the source as it is
	front   func(http.Handler) http.Handler // nil = the mesh's own handler
	signer  *testKey                        // nil = nothing is signed, nor verified
	probe   Probe
	notices *noticeLog

	mesh *Mesh
	host *host
	stop func()

	node, at string // name of the node, and of its host; "" = n1, and the region's
	near     Near
	drained  func() float64   // what it wishes about itself; nil = nothing
	heard    func() time.Time // see Config.Heard
}

// logs collects log lines.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func newRegion(t *testing.T, n *network, name api.Region, peers ...api.Region) *region {
	r := &region{
		t: t, net: n, name: name, dir: t.TempDir(), source: regiontest.New(name), logs: &logs{}, notices: &noticeLog{},
		client: n.client(), peers: map[api.Region][]string{},
	}
	for _, p := range peers {
		r.peers[p] = []string{fmt.Sprintf("http://%s:7402", p)}
	}
	return r
}

func (r *region) start() {
	r.t.Helper()
	var source Source = r.source
	if r.wrap != nil {
		source = r.wrap(source)
	}
	cfg := Config{
		Region: r.name, Node: cmp.Or(r.node, "n1"), Near: r.near, Peers: r.peers, Source: source, DataDir: r.dir, HTTPClient: r.client,
		Addresses: []string{"http://" + string(r.name) + ":7400"}, Logger: slog.New(slog.NewTextHandler(r.logs, nil)),
		Heard: r.heard, Probe: r.probe, Drained: r.drained, OnNotice: r.notices.take,
	}
	if r.signer != nil {
		cfg.Signer, cfg.VerifyOrigin = r.signer, verifyTestKey
	}
	m, err := New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	handler := m.Handler()
	if r.front != nil {
		handler = r.front(handler)
	}
	host, stop := r.net.serve(cmp.Or(r.at, string(r.name)), handler)
	r.mesh, r.host = m, host
	r.stop = func() {
		stop()
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
		r.client.CloseIdleConnections()
	}
}

// runMesh runs a mesh until the test ends.
func runMesh(t *testing.T, m *Mesh, client *http.Client) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		client.CloseIdleConnections()
	})
}

func (r *region) link(p api.Region) api.LinkInfo {
	r.t.Helper()
	for _, l := range r.mesh.Info().Links {
		if l.Peer == p {
			return l
		}
	}
	r.t.Fatalf("no link to %s", p)
	return api.LinkInfo{}
}

func (r *region) origin(p api.Region) api.Origin { return r.link(p).Replica }

// has waits until the region knows n usable instances of a service in region p.
func (r *region) has(p api.Region, service string, n int) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d of %s in %s", n, service, p), func() bool { return r.passing(p, service) == n })
}

func (r *region) passing(p api.Region, service string) int {
	for _, x := range r.mesh.Lookup(regiontest.Key(service)) {
		if x.Origin.Region == p {
			return x.Summary.Passing
		}
	}
	return 0
}

// until waits for a condition in the bubble's time.
func (r *region) until(what string, cond func() bool) {
	r.t.Helper()
	for range 600 {
		if cond() {
			return
		}
		changed := r.mesh.Changed()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		}
	}
	r.t.Fatalf("%s: never: %s\n%+v\n%s", r.name, what, r.mesh.Info(), r.logs.b.String())
}

func (r *region) converged(o *region) {
	r.t.Helper()
	r.until("converged with "+string(o.name), func() bool {
		l := r.link(o.name)
		v := o.source.Version()
		return l.State == linkConnected && l.Replica.Epoch == v.Epoch && l.Replica.Revision == v.Revision && l.Replica.State == api.AgeFresh
	})
}

// after lets time pass in the bubble.
func after(d time.Duration) { <-time.After(d) }

func bubble(t *testing.T, f func(t *testing.T, n *network)) {
	synctest.Test(t, func(t *testing.T) { f(t, newNetwork()) })
}

// P6: what is registered in one region is known in the others, with origin, version and age.
func TestThreeRegionsLearnOfEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us := newRegion(t, n, "us-east", "eu-west", "ap-south")
		eu := newRegion(t, n, "eu-west", "us-east", "ap-south")
		ap := newRegion(t, n, "ap-south", "us-east", "eu-west")
		for _, r := range []*region{us, eu, ap} {
			r.start()
			defer r.stop()
		}
		eu.source.Set(3, "payments")
		us.source.Set(2, "payments", "orders")
		us.has("eu-west", "payments", 3)
		ap.has("eu-west", "payments", 3)
		ap.has("us-east", "payments", 2)
		eu.has("us-east", "orders", 2)
		got := ap.mesh.Lookup(regiontest.Key("payments"))
		if len(got) != 2 || got[0].Origin.Region != "eu-west" || got[1].Origin.Region != "us-east" {
			t.Fatalf("lookup: %+v", got)
		}
		ap.converged(eu)
		o := ap.origin("eu-west")
		if o.State != api.AgeFresh || o.Source != api.SourceReplica || !o.Complete || o.Addresses[0] != "http://eu-west:7400" || o.Epoch != eu.source.Version().Epoch {
			t.Fatalf("origin: %+v", o)
		}
		if rows := ap.mesh.Services("us-east"); len(rows) != 2 || rows[0].Service != "orders" || ap.mesh.Services("nowhere") != nil {
			t.Fatalf("services: %+v", rows)
		}
		if rd := eu.mesh.Info().Readers; len(rd) != 2 || rd[0].Region != "ap-south" || rd[0].BytesOut == 0 {
			t.Fatalf("readers: %+v", rd)
		}
		eu.source.Set(0, "payments")
		ap.has("eu-west", "payments", 0)
	})
}

// P10, I6: a killed origin loses nothing at its readers; the age says how long ago it was
// heard of, and after its return, data intact, a delta is enough.
func TestKilledOriginAgesAndResumesByDelta(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us := newRegion(t, n, "us-east", "eu-west")
		eu := newRegion(t, n, "eu-west")
		eu.source.Set(2, "payments", "orders")
		eu.start()
		us.start()
		defer us.stop()
		us.converged(eu)
		if s := us.link("eu-west").Snapshots; s != 1 {
			t.Fatalf("%d snapshots", s)
		}
		eu.stop()
		for _, c := range []struct {
			wait  time.Duration
			state api.AgeState
		}{{2 * time.Second, api.AgeFresh}, {8 * time.Second, api.AgeStale}, {30 * time.Second, api.AgeSuspect}, {15 * time.Minute, api.AgeExpired}} {
			after(c.wait)
			l := us.link("eu-west")
			if l.Replica.State != c.state || l.State != linkUnreachable || us.passing("eu-west", "payments") != 2 {
				t.Fatalf("after %s more: %+v", c.wait, l)
			}
		}
		if l := us.link("eu-west"); l.Attempts < 10 || l.LastError == "" {
			t.Fatalf("%+v", l)
		}
		eu.source.Set(4, "orders")
		eu.start()
		defer eu.stop()
		began := time.Now()
		us.has("eu-west", "orders", 4)
		if took := time.Since(began); took > 2*time.Second {
			t.Fatalf("linked again after %s", took)
		}
		us.converged(eu)
		l := us.link("eu-west")
		if l.Snapshots != 1 || eu.source.Raised() != 0 || l.Refused != 0 {
			t.Fatalf("not a delta: %+v", l)
		}
		if w := us.logs.count("link down"); w != 1 {
			t.Fatalf("%d warnings for one outage\n%s", w, us.logs.b.String())
		}
	})
}

// P10: a peer that is silent without closing anything (half-open connection, suspended
// process) is noticed in three seconds.
func TestSilentPeerIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		eu.source.Set(2, "orders")
		us.start()
		defer us.stop()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		eu.host.stalled.Store(true)
		after(peer.SilenceLimit + peer.HeartbeatInterval + 100*time.Millisecond)
		if l := us.link("eu-west"); l.State != linkUnreachable || us.passing("eu-west", "orders") != 2 {
			t.Fatalf("%+v", l)
		}
		eu.host.stalled.Store(false)
		us.converged(eu)
	})
}

// P4, failures 12 and 51: an origin that lost its data is told so by its reader, moves to a
// higher epoch, is followed there, and what it had is kept for a while.
func TestWipedOriginRaisesItsEpoch(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		eu.source.Set(3, "payments", "orders", "users")
		us.start()
		defer us.stop()
		eu.start()
		us.converged(eu)
		eu.stop()
		eu.source.Wipe()
		eu.start()
		defer eu.stop()
		us.converged2(eu)
		if g := eu.source.Version().Epoch.Generation; g != 2 || eu.source.Raised() != 1 {
			t.Fatalf("generation %d, raised %d times", g, eu.source.Raised())
		}
		l := us.link("eu-west")
		if l.Replica.State != api.AgeSuspect || l.Services != 0 || us.passing("eu-west", "payments") != 3 {
			t.Fatalf("%+v", l)
		}
		eu.source.Set(3, "payments") // registers again
		us.until("payments released", func() bool {
			x := us.mesh.Lookup(regiontest.Key("payments"))
			return len(x) == 1 && !x[0].Summary.Endpoints[0].Overdue
		})
		after(replica.HoldFor + 2*time.Second)
		if us.passing("eu-west", "orders") != 0 || us.origin("eu-west").State != api.AgeFresh {
			t.Fatalf("held rows stay: %+v", us.origin("eu-west"))
		}
	})
}

// converged2 is converged without the demand to be fresh.
func (r *region) converged2(o *region) {
	r.t.Helper()
	r.until("at the version of "+string(o.name), func() bool {
		v, x := o.source.Version(), r.origin(o.name)
		return x.Epoch == v.Epoch && x.Revision == v.Revision
	})
}

// P4: a revision that goes back under the same epoch (restored backup) is a new history too.
func TestRestoredBackupRaisesItsEpoch(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		for range 20 {
			eu.source.Set(3, "payments")
		}
		us.start()
		defer us.stop()
		eu.start()
		us.converged(eu)
		eu.stop()
		eu.source.Rewind(5)
		// While the store cannot move on, the reader keeps what it has.
		eu.source.Stick(true)
		eu.start()
		defer eu.stop()
		after(20 * time.Second)
		if l := us.link("eu-west"); l.State != linkUnreachable || l.Replica.Revision != 21 || us.passing("eu-west", "payments") != 3 {
			t.Fatalf("%+v", l)
		}
		eu.source.Stick(false)
		us.converged(eu)
		if v := eu.source.Version(); v.Epoch.Generation != 2 || v.Revision != 5 {
			t.Fatalf("%s", v)
		}
	})
}

// A reader that was away longer than the history reaches gets what changed all the same while
// the origin remembers what the reader had; after the origin's restart, the buckets that
// differ. Either way the link stays connected.
func TestLostHistory(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		eu.source.Set(2, "a", "b")
		us.start()
		defer us.stop()
		eu.start()
		us.converged(eu)
		eu.host.kill()
		eu.source.Set(0, "a")
		eu.source.Compact()
		eu.host.restore()
		us.converged(eu)
		if l := us.link("eu-west"); l.Snapshots != 1 || us.passing("eu-west", "a") != 0 {
			t.Fatalf("%+v", l)
		}
		eu.stop()
		eu.source.Set(2, "c")
		eu.source.Compact()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		if l := us.link("eu-west"); l.Snapshots != 2 || l.Refused != 0 || us.passing("eu-west", "c") != 2 {
			t.Fatalf("%+v", l)
		}
		if n := us.logs.count("link down"); n > 3 { // before the first start perhaps, killed, restarted
			t.Fatalf("%d times down\n%s", n, us.logs.b.String())
		}
	})
}

// After its restart an origin has no history, but when its rows are what the reader holds,
// nothing is sent again.
func TestLostHistoryOfUnchangedRowsIsCheap(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		eu.source.Set(2, "a", "b")
		us.start()
		defer us.stop()
		eu.start()
		us.converged(eu)
		eu.stop()
		eu.source.Compact()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		if l := us.link("eu-west"); l.Snapshots != 1 || l.Refused != 0 {
			t.Fatalf("%+v", l)
		}
	})
}

// P4, P11: what a node shows of a region does not go back over its own restart, though most versions change no
// row and are not written with the rows. A mark that is of other rows, or cannot be read, counts for nothing.
func TestVersionDoesNotGoBackOverARestart(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		eu.source.Set(2, "orders")
		us.start()
		eu.start()
		us.converged(eu)
		mark := filepath.Join(us.dir, "replicas", "eu-west.mark")
		beats := func(n int) {
			for range n {
				after(time.Second)
				eu.source.Beat()
			}
			us.converged(eu)
		}
		restart := func(spoil func()) api.Origin {
			us.stop()
			spoil()
			eu.stop()
			us.start()
			o := us.origin("eu-west")
			eu.start()
			return o
		}
		beats(5)
		shown := us.origin("eu-west")
		if o := restart(func() {}); o.Revision != shown.Revision || o.Source != api.SourceSnapshot {
			t.Fatalf("%d after %d", o.Revision, shown.Revision)
		}
		us.converged(eu)
		if l := us.link("eu-west"); l.Snapshots != 0 || l.Refused != 0 {
			t.Fatalf("%+v", l)
		}
		// Killed: what it shows is at most touchInterval behind what it showed.
		beats(30)
		shown = us.origin("eu-west")
		var old []byte
		killed := restart(func() { // what it wrote at its end is not there
			old, _ = os.ReadFile(mark)
			_ = os.WriteFile(mark, []byte("{"), 0o600)
		})
		if killed.Revision >= shown.Revision || killed.Epoch.IsZero() {
			t.Fatalf("%+v", killed)
		}
		us.converged(eu)
		eu.source.Set(3, "orders")
		us.has("eu-west", "orders", 3)
		after(5 * time.Second) // to disk
		shown = us.origin("eu-west")
		if o := restart(func() {
			_ = os.WriteFile(mark, bytes.Replace(old, []byte(`"revision":`), []byte(`"revision":9`), 1), 0o600)
		}); o.Revision != shown.Revision {
			t.Fatalf("by the mark of other rows: %d, not %d", o.Revision, shown.Revision)
		}
		us.converged(eu)
		eu.stop()
		us.stop()
	})
}

// P11: a reader that restarts while its peer is away still knows the peer, from disk, and
// says so; when the peer is back a delta is enough.
func TestReaderRestartsFromDisk(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west", "ap-south"), newRegion(t, n, "eu-west")
		eu.source.Set(2, "orders")
		us.start()
		eu.start()
		us.converged(eu)
		eu.stop()
		after(time.Minute)
		us.stop()
		info, err := os.Stat(filepath.Join(us.dir, "replicas", "eu-west.replica"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v %v", info, err)
		}
		us.start()
		o := us.origin("eu-west")
		if us.passing("eu-west", "orders") != 2 || o.Source != api.SourceSnapshot || o.State != api.AgeSuspect || o.AgeMS < 60_000 || o.AgeMS > 63_000 {
			t.Fatalf("%+v", o)
		}
		if never := us.origin("ap-south"); never.State != api.AgeExpired || !never.Epoch.IsZero() || us.mesh.Services("ap-south") != nil {
			t.Fatalf("%+v", never)
		}
		eu.source.Set(3, "orders")
		eu.start()
		defer eu.stop()
		us.converged(eu)
		if l := us.link("eu-west"); l.Snapshots != 0 || us.passing("eu-west", "orders") != 3 || l.Replica.Source != api.SourceReplica {
			t.Fatalf("%+v", l)
		}
		us.stop()
		// A damaged file is set aside; the start goes on.
		path := filepath.Join(us.dir, "replicas", "eu-west.replica")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		us.start()
		defer us.stop()
		us.converged(eu)
		if _, err := os.Stat(path + ".broken"); err != nil || us.logs.count("cannot be used") != 1 {
			t.Fatalf("%v\n%s", err, us.logs.b.String())
		}
	})
}

// P8, failures 52 to 55: a peer that sends what it must not is left with what was known of
// it, and the other links do not notice.
func TestPoisonDoesNotSpread(t *testing.T) {
	for name, poison := range map[string]http.HandlerFunc{
		"garbage":        line("not json at all"),
		"a huge line":    line(`{"kind":"hello","node":"` + strings.Repeat("x", replica.MaxFrameBytes) + `"}`),
		"another region": line(`{"kind":"hello","proto":1,"region":"ap-south","epoch":"1-0000000000000001","digest":"0000000000000000"}`),
		"our own name":   line(`{"kind":"hello","proto":1,"region":"us-east","epoch":"1-0000000000000001","digest":"0000000000000000"}`),
		"a newer proto":  line(`{"kind":"hello","proto":9,"region":"eu-west","epoch":"1-0000000000000001","digest":"0000000000000000"}`),
		"no peer":        func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://us-east:7402/", http.StatusFound)
		},
		"an early end": line(""),
		"no answer":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"silence": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", peer.StreamType)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *network) {
				us := newRegion(t, n, "us-east", "eu-west", "ap-south")
				eu, ap := newRegion(t, n, "eu-west"), newRegion(t, n, "ap-south")
				eu.source.Set(2, "orders")
				ap.source.Set(2, "orders")
				us.start()
				defer us.stop()
				eu.start()
				ap.start()
				defer ap.stop()
				us.converged(eu)
				us.converged(ap)
				eu.stop()
				_, stop := n.serve("eu-west", poison)
				after(20 * time.Second)
				ap.source.Set(5, "orders")
				us.has("ap-south", "orders", 5)
				bad, good := us.link("eu-west"), us.link("ap-south")
				if bad.State != linkUnreachable || us.passing("eu-west", "orders") != 2 || bad.Attempts < 2 {
					t.Errorf("poisoned link: %+v", bad)
				}
				if good.State != linkConnected || good.Attempts != 0 || good.Snapshots != 1 || good.Refused != 0 || good.Replica.State != api.AgeFresh {
					t.Errorf("other link: %+v", good)
				}
				t.Logf("%d attempts, last error: %s", bad.Attempts, bad.LastError)
				stop()
				eu.start()
				defer eu.stop()
				us.converged(eu)
			})
		})
	}
}

func line(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", peer.StreamType)
		_, _ = w.Write([]byte(s + "\n"))
	}
}

// Of several addresses the one that works is used, and another when it stops.
func TestAddressesTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east"), newRegion(t, n, "eu-west")
		us.peers["eu-west"] = []string{"http://eu-dead:7402", "http://eu-west:7402", "http://eu-second:7402"}
		eu.source.Set(1, "orders")
		us.start()
		defer us.stop()
		eu.start()
		defer eu.stop()
		us.converged(eu)
		second, stop := n.serve("eu-second", eu.mesh.Handler())
		defer stop()
		eu.host.kill()
		us.until("linked through the second address", func() bool {
			second.mu.Lock()
			defer second.mu.Unlock()
			return us.link("eu-west").State == linkConnected && len(second.conns) > 0
		})
		us.converged(eu)
	})
}

// A quiet link stays up: nothing is sent again, and what is known stays fresh.
func TestQuietLinkStaysUp(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		eu.source.Set(2, "orders")
		eu.start()
		defer eu.stop()
		us.start()
		defer us.stop()
		us.converged(eu)
		up := us.link("eu-west").Since
		for range 600 {
			after(time.Second)
			if l := us.link("eu-west"); l.Since != up || l.Snapshots != 1 || l.Replica.AgeMS > 1100 {
				t.Fatalf("%+v", l)
			}
		}
	})
}

// A large or loaded origin that needs long to make its rows is slow, not dead.
func TestSlowOriginIsNotDead(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		names := make([]string, 600)
		for i := range names {
			names[i] = fmt.Sprintf("s%03d", i)
		}
		eu.source.Set(1, names...)
		eu.wrap = func(s Source) Source { return slow{s} }
		eu.start()
		defer eu.stop()
		us.start()
		defer us.stop()
		us.has("eu-west", "s599", 1)
		eu.source.Set(2, names...)
		us.has("eu-west", "s599", 2)
		if l := us.link("eu-west"); l.Snapshots != 1 || us.logs.count("link down") != 0 {
			t.Fatalf("%+v\n%s", l, us.logs.b.String())
		}
	})
}

// slow is a source that takes 20 ms per service.
type slow struct{ Source }

type slowImage struct{ Image }

func (s slow) Image() Image { return slowImage{s.Source.Image()} }

func (i slowImage) Service(k api.ServiceKey) ([]*api.Instance, uint64) {
	after(20 * time.Millisecond)
	return i.Image.Service(k)
}

// P8: a reader that takes nothing loses its stream; the others do not wait for it.
func TestStuckReaderIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T, n *network) {
		us, eu := newRegion(t, n, "us-east", "eu-west"), newRegion(t, n, "eu-west")
		eu.source.Set(2, "orders")
		eu.start()
		defer eu.stop()
		stuck := n.client()
		defer stuck.CloseIdleConnections()
		resp, err := stuck.Get("http://eu-west:7402" + peer.PathStream + "?proto=1&reader=ap-south")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		us.start()
		defer us.stop()
		us.converged(eu)
		names := make([]string, 400)
		for i := range names {
			names[i] = fmt.Sprintf("s%03d", i)
		}
		eu.source.Set(3, names...)
		us.has("eu-west", "s399", 3)
		after(peer.WriteLimit + 2*peer.HeartbeatInterval)
		if rd := eu.mesh.Info().Readers; len(rd) != 1 || rd[0].Region != "us-east" {
			t.Fatalf("%+v", rd)
		}
	})
}

// The settings that cannot work are refused with the remedy.
func TestNewRefuses(t *testing.T) {
	src := regiontest.New("us-east")
	for want, cfg := range map[string]Config{
		"not a valid name":      {Region: "US", Source: src},
		"source":                {Region: "us-east"},
		"this region itself":    {Region: "us-east", Source: src, Peers: map[api.Region][]string{"us-east": {"http://x:1"}}},
		"has no address":        {Region: "us-east", Source: src, Peers: map[api.Region][]string{"eu-west": nil}},
		"not a base URL":        {Region: "us-east", Source: src, Peers: map[api.Region][]string{"eu-west": {"eu:7402"}}},
		"replicas":              {Region: "us-east", Source: src, DataDir: "/dev/null"},
		"peer: region \"EU\" i": {Region: "us-east", Source: src, Peers: map[api.Region][]string{"EU": {"http://x:1"}}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
