package replica

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

var start = time.Unix(1e9, 0)

// synced returns an origin of n services and a replica that holds them all.
func synced(t *testing.T, n int) (*origin, *Replica) {
	t.Helper()
	o := newOrigin(3)
	for i := range n {
		o.set(fmt.Sprintf("s%02d", i), 2)
	}
	r := New("us-east", "eu-west", start)
	last(t, feed(r, o.catchUp(r.Have(), false), start)).mustConfirm(t)
	return o, r
}

type effects Effects

func last(t *testing.T, all []Effects) effects {
	t.Helper()
	return effects(all[len(all)-1])
}

func (e effects) mustConfirm(t *testing.T) {
	t.Helper()
	if e.Err != nil || !e.Confirmed {
		t.Fatalf("not confirmed: %+v", e)
	}
}

// P6: a snapshot, then deltas; the digest equals the origin's each time.
func TestSnapshotThenDelta(t *testing.T) {
	o, r := synced(t, 7)
	if v := r.View(); v.Rows != 7 || v.Digest != o.digest() || v.Version != o.version() || !v.Complete {
		t.Fatalf("view: %+v", v)
	}
	o.set("s03", 5)
	o.remove("s04")
	eff := r.Step(o.delta(r.Have().Revision), start)
	if eff.Err != nil || !eff.Changed || !eff.Confirmed {
		t.Fatalf("%+v", eff)
	}
	v := r.View()
	if v.Table.Get(key("s03")).Summary.Passing != 5 || v.Table.Get(key("s04")) != nil || v.Digest != o.digest() {
		t.Fatalf("view: %+v", v)
	}
	if s := v.Table.Get(key("s03")).Summary; s.Revision != o.rows[key("s03")].Revision {
		t.Fatalf("row revision %d", s.Revision)
	}
}

// I5: a snapshot is seen as a whole or not at all.
func TestSnapshotIsAtomic(t *testing.T) {
	o, r := synced(t, 7)
	for i := range 9 {
		o.set(fmt.Sprintf("n%d", i), 1)
	}
	frames := append([]Frame{o.hello()}, o.snapshot()...)
	before := r.View()
	r.Connect(start)
	for _, f := range frames[:len(frames)-1] {
		r.Step(f, start)
		if v := r.View(); v.Version != before.Version || v.Rows != before.Rows {
			t.Fatal("half a snapshot is visible")
		}
	}
	if eff := r.Step(frames[len(frames)-1], start); !eff.Snapshot || r.View().Rows != 16 {
		t.Fatalf("%+v", eff)
	}
}

// I5: rows that do not add up to the digest are not used, and a snapshot is asked for.
func TestBrokenSnapshotIsRefused(t *testing.T) {
	o, r := synced(t, 7)
	before := r.View()
	for name, breakIt := range map[string]func([]Frame) []Frame{
		"a chunk is missing": func(f []Frame) []Frame { return append(f[:2], f[3:]...) },
		"the count is wrong": func(f []Frame) []Frame { f[len(f)-1].Count++; return f },
		"the digest is":      func(f []Frame) []Frame { f[len(f)-1].Digest++; return f },
	} {
		o.set("s01", 3)
		frames := breakIt(o.snapshot())
		eff := last(t, feed(r, append([]Frame{o.hello()}, frames...), start))
		if !eff.Resync || eff.Refused != RefusedDigest || !r.WantsSnapshot() || r.View().Version != before.Version {
			t.Fatalf("%s: %+v", name, eff)
		}
	}
	last(t, feed(r, o.catchUp(r.Have(), r.WantsSnapshot()), start)).mustConfirm(t)
	if r.WantsSnapshot() {
		t.Fatal("still wants a snapshot")
	}
}

// P4, failure 56: what is older is refused, counted, and changes nothing.
func TestOlderIsRefused(t *testing.T) {
	o, r := synced(t, 3)
	old := o.delta(0)
	o.set("s01", 9)
	r.Step(o.delta(r.Have().Revision), start)
	if eff := r.Step(old, start); eff.Refused != RefusedStale || eff.Err != nil {
		t.Fatalf("a late delta: %+v", eff)
	}
	at := r.View()
	for name, f := range map[string]Frame{
		"an older epoch":        {Kind: Hello, Proto: Proto, Region: "eu-west", Epoch: api.Epoch{Generation: 2, Nonce: 1}, Head: 999},
		"a colliding epoch":     {Kind: Hello, Proto: Proto, Region: "eu-west", Epoch: api.Epoch{Generation: 3, Nonce: 1}, Head: 999},
		"a revision gone back":  {Kind: Hello, Proto: Proto, Region: "eu-west", Epoch: o.epoch, Head: 1},
		"another region":        {Kind: Hello, Proto: Proto, Region: "ap-south", Epoch: o.epoch, Head: 999},
		"our own region":        {Kind: Hello, Proto: Proto, Region: "us-east", Epoch: o.epoch, Head: 999},
		"another protocol":      {Kind: Hello, Proto: Proto + 1, Region: "eu-west", Epoch: o.epoch, Head: 999},
		"anything before hello": o.heartbeat(),
	} {
		r.Connect(start)
		eff := r.Step(f, start)
		if !errors.Is(eff.Err, ErrRefused) {
			t.Errorf("%s: %+v", name, eff)
		}
		if v := r.View(); v.Version != at.Version || v.Digest != at.Digest {
			t.Errorf("%s changed the replica", name)
		}
	}
	if n := r.View().Refused[RefusedStale]; n != 4 {
		t.Errorf("%d stale frames counted, want 4", n)
	}
}

// I3: a delta that does not join on is not applied; a snapshot is asked for.
func TestGapAsksForSnapshot(t *testing.T) {
	o, r := synced(t, 3)
	o.set("a", 1)
	lost := o.revision
	o.set("b", 1)
	eff := r.Step(o.delta(lost), start)
	if !eff.Resync || eff.Refused != RefusedGap || r.View().Rows != 3 {
		t.Fatalf("%+v", eff)
	}
}

// I5 for deltas: rows that do not add up afterwards are not used.
func TestBrokenDeltaIsRefused(t *testing.T) {
	o, r := synced(t, 3)
	before := r.View()
	o.set("s01", 5)
	f := o.delta(before.Version.Revision)
	f.Digest++
	if eff := r.Step(f, start); !eff.Resync || eff.Applied || r.View().Version != before.Version || r.View().Digest != before.Digest {
		t.Fatalf("%+v", eff)
	}
}

// A delta of several frames shows at its last one only.
func TestDeltaOfSeveralFrames(t *testing.T) {
	o, r := synced(t, 3)
	from := o.revision
	for i := range 6 {
		o.set(fmt.Sprintf("n%d", i), 1)
	}
	whole := o.delta(from)
	for i := range whole.Rows {
		part := whole
		part.Rows = whole.Rows[i : i+1]
		part.More = i < len(whole.Rows)-1
		if r.View().Rows != 3 {
			t.Fatal("half a delta is visible")
		}
		if eff := r.Step(part, start); eff.Err != nil {
			t.Fatal(eff.Err)
		}
	}
	if v := r.View(); v.Rows != 9 || v.Digest != o.digest() {
		t.Fatalf("%d rows", v.Rows)
	}
}

// P6: equal versions with different rows are noticed by the next heartbeat.
func TestDigestMismatchAsksForSnapshot(t *testing.T) {
	o, r := synced(t, 3)
	beat := o.heartbeat()
	beat.Digest++
	if eff := r.Step(beat, start); !eff.Resync || eff.Confirmed {
		t.Fatalf("%+v", eff)
	}
}

// P12, failure 53: one bad row is set aside; the others, and its last good form, are used.
func TestBadRowIsQuarantined(t *testing.T) {
	o, r := synced(t, 3)
	o.set("s01", 4)
	o.set("s02", 4)
	f := o.delta(r.Have().Revision)
	body := bytes.Replace(f.Rows[0].Body, []byte(`"region":"eu-west"`), []byte(`"region":"us-east"`), 1)
	f.Digest = f.Digest.Remove(summary.HashOf(f.Rows[0].Body)).Add(summary.HashOf(body))
	f.Rows[0].Body = body
	eff := r.Step(f, start)
	v := r.View()
	if eff.Err != nil || eff.Refused != RefusedRow || v.Refused[RefusedRow] != 1 {
		t.Fatalf("%+v", eff)
	}
	if e := v.Table.Get(key("s01")); e.Summary.Passing != 2 || e.Quarantined == "" {
		t.Fatalf("s01: %+v", e)
	}
	if v.Table.Get(key("s02")).Summary.Passing != 4 {
		t.Fatal("s02 did not follow")
	}
}

// Failure 54: fields that we do not know count in the digest and survive the disk.
func TestUnknownFieldsAreKept(t *testing.T) {
	o := newOrigin(1)
	o.set("s", 1)
	row := o.row(key("s"))
	row.Body = append([]byte(`{"gateway":"g1",`), row.Body[1:]...)
	r := New("us-east", "eu-west", start)
	feed(r, []Frame{
		o.hello(),
		{Kind: SnapshotBegin, Epoch: o.epoch, To: o.revision},
		{Kind: SnapshotChunk, Epoch: o.epoch, Rows: []Row{row}},
		{Kind: SnapshotEnd, Epoch: o.epoch, To: o.revision, Count: 1, Digest: summary.Digest(0).Add(summary.HashOf(row.Body))},
	}, start)
	if r.View().Table.Get(key("s")).Summary.Passing != 1 {
		t.Fatal("the row is not used")
	}
	var disk bytes.Buffer
	if err := r.Save().Encode(&disk); err != nil || !bytes.Contains(disk.Bytes(), []byte("gateway")) {
		t.Fatalf("%v %s", err, disk.String())
	}
	back, err := Restore("us-east", "eu-west", &disk, 0, start)
	if err != nil || back.View().Digest != r.View().Digest || !back.WantsSnapshot() {
		t.Fatalf("%v", err)
	}
}

// I6, P10: a lost connection, however long, removes nothing; the age grows through all states.
func TestDisconnectOnlyAges(t *testing.T) {
	_, r := synced(t, 3)
	r.SetRTT(40 * time.Millisecond)
	v := r.View()
	for _, c := range []struct {
		after time.Duration
		state api.AgeState
	}{
		{0, api.AgeFresh},
		{4 * time.Second, api.AgeFresh},
		{5 * time.Second, api.AgeStale},
		{30 * time.Second, api.AgeSuspect},
		{15 * time.Minute, api.AgeExpired},
	} {
		o := v.Origin(start.Add(c.after))
		if o.State != c.state || o.AgeMS != (c.after+40*time.Millisecond).Milliseconds() || o.Source != api.SourceReplica {
			t.Errorf("after %s: %+v", c.after, o)
		}
	}
	r.Connect(start.Add(time.Hour))
	r.Tick(start.Add(time.Hour))
	if v := r.View(); v.Rows != 3 || v.Table.Len() != 3 {
		t.Fatal("rows are gone")
	}
}

// Failure 57: frames that waited on the way do not look new; a drifting clock does no harm.
func TestQueuedFramesDoNotLookNew(t *testing.T) {
	o, r := synced(t, 1)
	r.Connect(start)
	o.sent = 0
	r.Step(o.hello(), start)
	for i := 1; i <= 5; i++ {
		r.Step(o.heartbeat(), start.Add(time.Duration(i)*time.Second))
	}
	// Three heartbeats made at 6, 7 and 8 s all arrive at 28 s.
	for range 3 {
		r.Step(o.heartbeat(), start.Add(28*time.Second))
	}
	v := r.View()
	if age := v.Age(start.Add(28 * time.Second)); age != 20*time.Second {
		t.Fatalf("age %s, want 20s", age)
	}
	// A day of a clock 100 ppm off adds less than 0.1 s.
	o.sent = 0
	r.Connect(start)
	r.Step(o.hello(), start)
	digest := o.digest()
	for i := range 86_400 {
		now := start.Add(time.Duration(float64(i) * 1.0001 * float64(time.Second)))
		r.Step(Frame{Kind: Heartbeat, Epoch: o.epoch, Head: o.revision, Digest: digest, SentMS: int64(i) * 1000}, now)
		if v := r.View(); v.Age(now) > 100*time.Millisecond {
			t.Fatalf("age %s after %d s", v.Age(now), i)
		}
	}
}

// Failure 12, 51: an origin that lost its data is followed into its new epoch, but what it
// had stays usable for a while, behind everything else.
func TestWipedOriginIsHeld(t *testing.T) {
	o, r := synced(t, 5)
	o.wipe(42)
	o.refute(r.Have(), 43)
	all := feed(r, o.catchUp(r.Have(), false), start)
	if eff := all[len(all)-2]; eff.Held != 5 || !eff.Snapshot {
		t.Fatalf("%+v", eff)
	}
	v := r.View()
	if v.Version.Epoch.Generation != 4 || v.Rows != 0 || v.Held != 5 || v.Complete || v.Digest != o.digest() {
		t.Fatalf("%+v", v)
	}
	if st := v.Origin(start).State; st != api.AgeSuspect {
		t.Fatalf("state %s", st)
	}
	s := v.Table.Get(key("s01")).Summary
	if len(s.Endpoints) != 2 || !s.Endpoints[0].Overdue || s.Complete || s.Revision != o.revision {
		t.Fatalf("held row: %+v", s)
	}
	// An instance comes back at another address: it leads, and the service is released.
	o.set("s01", 1)
	o.rows[key("s01")].Endpoints[0].Port = 9999
	r.Step(o.delta(r.Have().Revision), start.Add(2*time.Second))
	s = r.View().Table.Get(key("s01")).Summary
	if len(s.Endpoints) != 1 || s.Endpoints[0].Port != 9999 || s.Endpoints[0].Overdue || r.View().Held != 4 {
		t.Fatalf("released row: %+v", s)
	}
	// The others go when the time is over, and the origin is trusted again.
	if eff := r.Tick(start.Add(HoldFor - time.Second)); eff.Changed {
		t.Fatal("released early")
	}
	if eff := r.Tick(start.Add(HoldFor)); !eff.Changed {
		t.Fatal("not released")
	}
	v = r.View()
	if v.Table.Len() != 1 || v.Held != 0 || v.Origin(start).State != api.AgeFresh || !v.Complete {
		t.Fatalf("%+v", v)
	}
}

// I7: everyday removals pass at once, a mass removal is held, and new instances of a service
// whose old ones are held come first.
func TestMassRemovalIsHeld(t *testing.T) {
	o, r := synced(t, 2)
	o.remove("s00")
	if r.Step(o.delta(r.Have().Revision), start); r.View().Held != 0 || r.View().Table.Len() != 1 {
		t.Fatal("stopping one of two services is held")
	}
	o, r = synced(t, 10)
	o.remove("s00")
	o.remove("s01")
	o.remove("s02")
	if r.Step(o.delta(r.Have().Revision), start); r.View().Held != 0 || r.View().Table.Len() != 7 {
		t.Fatal("30 % of the services are held")
	}
	for i := 3; i < 7; i++ {
		o.remove(fmt.Sprintf("s%02d", i))
	}
	if eff := r.Step(o.delta(r.Have().Revision), start); eff.Held != 7 || r.View().Table.Len() != 10 {
		t.Fatalf("7 of 10 services are gone within a moment: %+v", eff)
	}
	// The capacity rule: one large service loses most of its instances.
	o, r = synced(t, 1)
	o.set("big", 20)
	r.Step(o.delta(r.Have().Revision), start)
	o.set("big", 2)
	if eff := r.Step(o.delta(r.Have().Revision), start); eff.Held != 1 {
		t.Fatalf("18 of 22 instances are gone: %+v", eff)
	}
	s := r.View().Table.Get(key("big")).Summary
	if len(s.Endpoints) != 20 || s.Endpoints[1].Overdue || !s.Endpoints[2].Overdue || s.Passing != 20 {
		t.Fatalf("%+v", s)
	}
	// Restored by the origin: nothing is held any more.
	o.set("big", 20)
	r.Step(o.delta(r.Have().Revision), start)
	if v := r.View(); v.Held != 0 || v.Table.Get(key("big")).Summary.Endpoints[2].Overdue {
		t.Fatal("still held")
	}
}

// While most of a service is held back, those who returned are seen at once and come first.
func TestHeldServiceShowsWhoReturned(t *testing.T) {
	o, r := synced(t, 1)
	o.set("big", 10)
	r.Step(o.delta(r.Have().Revision), start)
	o.wipe(42)
	o.refute(r.Have(), 43)
	feed(r, o.catchUp(r.Have(), false), start)
	for n := 1; n <= 4; n++ {
		o.set("big", n)
		o.rows[key("big")].Endpoints[n-1].Port = 9999 // at a new place
		if eff := r.Step(o.delta(r.Have().Revision), start); !eff.Changed {
			t.Fatal("not told")
		}
		s := r.View().Table.Get(key("big")).Summary
		if len(s.Endpoints) != 10 || s.Endpoints[n-1].Port != 9999 || s.Endpoints[n-1].Overdue || !s.Endpoints[n].Overdue {
			t.Fatalf("%d returned: %+v", n, s.Endpoints)
		}
	}
	was := r.View().Table.Get(key("big"))
	o.set("other", 1)
	r.Step(o.delta(r.Have().Revision), start)
	if r.View().Table.Get(key("big")) != was {
		t.Fatal("a held row changes although nothing about it did")
	}
	o.set("big", 5)
	r.Step(o.delta(r.Have().Revision), start)
	if s := r.View().Table.Get(key("big")).Summary; len(s.Endpoints) != 5 {
		t.Fatalf("half is back: %+v", s)
	}
}

// Health news is no removal: it is followed at once, however much it is.
func TestUnhealthyIsFollowedAtOnce(t *testing.T) {
	o, r := synced(t, 6)
	for k, s := range o.rows {
		o.revision++
		o.changed[k] = o.revision
		s.Passing, s.Revision = 0, o.revision
		for i := range s.Endpoints {
			s.Endpoints[i].Status = api.StatusCritical
		}
	}
	if eff := r.Step(o.delta(r.Have().Revision), start); eff.Held != 0 || r.View().Table.Passing() != 0 {
		t.Fatalf("%+v", eff)
	}
}

// P11: what was written is read back whole; from disk it is suspect at best.
func TestSaveAndRestore(t *testing.T) {
	o, r := synced(t, 300)
	o.wipe(9)
	o.refute(r.Have(), 8)
	o.set("s001", 1)
	feed(r, o.catchUp(r.Have(), false), start)
	var disk bytes.Buffer
	if err := r.Save().Encode(&disk); err != nil {
		t.Fatal(err)
	}
	whole := disk.Bytes()
	back, err := Restore("us-east", "eu-west", bytes.NewReader(whole), time.Second, start)
	if err != nil {
		t.Fatal(err)
	}
	a, b := r.View(), back.View()
	if a.Version != b.Version || a.Digest != b.Digest || a.Rows != b.Rows || a.Held != b.Held || a.Table.Len() != b.Table.Len() || a.Table.Passing() != b.Table.Passing() {
		t.Fatalf("%+v\n%+v", a, b)
	}
	org := b.Origin(start)
	if org.State != api.AgeSuspect || org.Source != api.SourceSnapshot || org.AgeMS != 1000 || org.Addresses[0] != "http://10.0.0.1:7400" {
		t.Fatalf("%+v", org)
	}
	// Confirmed by the origin: a delta is enough, and the state is fresh again.
	last(t, feed(back, o.catchUp(back.Have(), back.WantsSnapshot()), start)).mustConfirm(t)
	back.Tick(start.Add(HoldFor))
	if v := back.View(); v.Origin(start).State != api.AgeFresh {
		t.Fatal("not fresh")
	}
	for name, broken := range map[string][]byte{
		"empty":    nil,
		"cut":      whole[:len(whole)/2],
		"no JSON":  append([]byte("x"), whole...),
		"a region": bytes.Replace(whole, []byte("eu-west"), []byte("ap-west"), 1),
		"a row":    bytes.Replace(whole, []byte(`"hash":"`), []byte(`"hash":"0`), 1),
		"a format": bytes.Replace(whole, []byte(`"format":1`), []byte(`"format":7`), 1),
	} {
		if _, err := Restore("us-east", "eu-west", bytes.NewReader(broken), 0, start); !errors.Is(err, ErrSaved) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRestore(f *testing.F) {
	o := newOrigin(1)
	o.set("orders", 2)
	r := New("us-east", "eu-west", start)
	feed(r, o.catchUp(r.Have(), false), start)
	var disk bytes.Buffer
	_ = r.Save().Encode(&disk)
	f.Add(disk.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := Restore("us-east", "eu-west", bytes.NewReader(b), 0, start); err == nil {
			r.Save()
			r.View()
		}
	})
}

// P4, P6, P7: whatever a network loses, repeats or reorders, and however often the origin
// restarts, loses data or history: the version never goes back, visible rows are always
// those of one origin version (plus held ones), and a clean connection converges.
func TestRandomNetwork(t *testing.T) {
	seeds := 60
	first := rand.Uint64()
	if s := os.Getenv("SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
		seeds = 1
	}
	steps, wipes, refused := 0, 0, uint64(0)
	for n := range seeds {
		seed := first + uint64(n)
		w := &walk{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), o: newOrigin(1), r: New("us-east", "eu-west", start), now: start}
		if err := w.run(400); err != nil {
			t.Fatalf("SEED=%d: %v", seed, err)
		}
		steps, wipes = steps+400, wipes+w.wipes
		for _, c := range w.r.View().Refused {
			refused += c
		}
	}
	t.Logf("seeds %d..%d, %d steps, %d data losses, %d frames refused, 0 violations", first, first+uint64(seeds)-1, steps, wipes, refused)
}

type walk struct {
	seed  uint64
	rng   *rand.Rand
	o     *origin
	r     *Replica
	now   time.Time
	queue []Frame
	seen  map[api.Version]summary.Digest // what the origin ever was
	wipes int
	high  api.Version
}

func (w *walk) run(steps int) error {
	w.seen = map[api.Version]summary.Digest{}
	for range steps {
		w.now = w.now.Add(time.Duration(w.rng.IntN(2000)) * time.Millisecond)
		w.step()
		w.seen[w.o.version()] = w.o.digest()
		if err := w.check(); err != nil {
			return err
		}
	}
	// The network heals and writes stop (P6).
	w.o.refute(w.r.Have(), w.rng.Uint64())
	all := feed(w.r, w.o.catchUp(w.r.Have(), w.r.WantsSnapshot()), w.now)
	if eff := all[len(all)-1]; eff.Resync { // one repair may be due
		all = feed(w.r, w.o.catchUp(w.r.Have(), w.r.WantsSnapshot()), w.now)
	}
	if eff := all[len(all)-1]; !eff.Confirmed {
		return fmt.Errorf("no convergence: %+v", eff)
	}
	if v := w.r.View(); v.Digest != w.o.digest() || v.Version != w.o.version() {
		return fmt.Errorf("converged to %s %s, origin %s %s", v.Version, v.Digest, w.o.version(), w.o.digest())
	}
	w.r.Tick(w.now.Add(HoldFor))
	if v := w.r.View(); v.Table.Digest() != w.o.digest() || v.Held != 0 {
		return errors.New("held rows were not released")
	}
	return nil
}

func (w *walk) step() {
	name := fmt.Sprintf("s%02d", w.rng.IntN(12))
	switch p := w.rng.IntN(100); {
	case p < 25:
		w.o.set(name, 1+w.rng.IntN(8))
	case p < 32:
		w.o.remove(name)
	case p < 33: // data loss
		w.o.wipe(w.rng.Uint64())
		w.queue = nil
		w.wipes++
	case p < 34: // an old backup under the same epoch
		w.o.revision = max(1, w.o.revision/2)
		w.o.floor = w.o.revision
		for k := range w.o.rows {
			if w.rng.IntN(2) == 0 {
				delete(w.o.rows, k)
			}
		}
		for k := range w.o.changed {
			w.o.changed[k] = w.o.revision
		}
		w.queue = nil
		w.wipes++
	case p < 36: // history is compacted
		w.o.floor = w.o.revision
	case p < 45: // reconnect
		if w.rng.IntN(4) > 0 { // else the origin has not learned yet that it is behind
			w.o.refute(w.r.Have(), w.rng.Uint64())
		}
		w.r.Connect(w.now)
		w.queue = w.o.catchUp(w.r.Have(), w.r.WantsSnapshot())
	case p < 50:
		w.queue = append(w.queue, w.o.heartbeat())
	case p < 60:
		if from := w.r.Have().Revision; from < w.o.revision {
			w.queue = append(w.queue, w.o.delta(from))
		}
	case p < 63:
		w.r.Tick(w.now)
	default:
		w.deliver()
	}
}

func (w *walk) deliver() {
	if len(w.queue) == 0 {
		return
	}
	i := 0
	if w.rng.IntN(10) == 0 { // reorder
		i = w.rng.IntN(len(w.queue))
	}
	f := w.queue[i]
	if w.rng.IntN(12) != 0 { // not repeated
		w.queue = append(w.queue[:i:i], w.queue[i+1:]...)
	}
	if w.rng.IntN(12) == 0 { // lost
		return
	}
	line, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	back, err := Decode(line)
	if err != nil {
		panic(err)
	}
	if eff := w.r.Step(back, w.now); eff.Err != nil {
		w.queue = nil
		w.r.Connect(w.now)
	}
}

func (w *walk) check() error {
	v := w.r.View()
	if v.Version.IsZero() {
		return nil
	}
	if o := v.Version.Compare(w.high); !w.high.IsZero() && (o == api.Older || o == api.Conflict) {
		return fmt.Errorf("went back from %s to %s", w.high, v.Version)
	}
	w.high = v.Version
	// A restored backup reuses versions, so a digest is only checked where it is unique.
	if d, ok := w.seen[v.Version]; ok && d != v.Digest && w.wipes == 0 {
		return fmt.Errorf("rows at %s are none that the origin had", v.Version)
	}
	for k, h := range w.r.held {
		if e := v.Table.Get(k); e == nil || len(e.Summary.Endpoints) < len(h.entry.Summary.Endpoints)/2 {
			return fmt.Errorf("held service %s is not visible", k)
		}
	}
	return nil
}

// Lag is true while a change is on its way over a slow link: from its first frame to its last one.
func TestLagShowsWhileAChangeComes(t *testing.T) {
	o, r := synced(t, 7)
	lag := func() int64 { v := r.View(); return int64(v.Head) - int64(v.Version.Revision) }
	was := r.Have().Revision
	for i := range 5 {
		o.set(fmt.Sprintf("s%02d", i), 5)
	}
	whole := o.snapshot()
	for i, f := range whole {
		if eff := r.Step(f, start); eff.Err != nil {
			t.Fatalf("%+v", eff)
		}
		if got, want := lag(), int64(o.version().Revision-was); i < len(whole)-1 && got != want {
			t.Errorf("frame %d of a snapshot: %d revisions behind, not %d", i, got, want)
		}
	}
	if lag() != 0 || r.Step(o.heartbeat(), start).Confirmed != true {
		t.Errorf("%d behind at its end", lag())
	}
	o.set("s01", 9)
	f := o.delta(r.Have().Revision)
	part := f
	part.More, part.Rows, part.Deletes = true, nil, nil
	if r.Step(part, start); lag() != 1 {
		t.Errorf("a delta of several frames: %d", lag())
	}
	if eff := r.Step(f, start); lag() != 0 || !eff.Confirmed {
		t.Errorf("%d behind, %+v", lag(), eff)
	}
}
