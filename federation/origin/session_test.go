package origin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

var start = time.Unix(1_000_000, 0)

// wire is an origin and a reader with nothing between them; it counts what passes.
type wire struct {
	t       *testing.T
	src     *regiontest.Source
	book    *origin.Book
	session *origin.Session
	replica *replica.Replica
	term    uint64
	proto   int
	plain   bool // without features

	kinds       map[replica.Kind]int
	bytes, rows int
	changed     int // bytes of the bodies of rows
	asked       int // bytes that the reader sent to open streams
}

func newWire(t *testing.T, services int) *wire {
	w := &wire{
		t: t, src: regiontest.New("eu-west"), book: origin.NewBook("us-east"), proto: replica.Proto,
		replica: replica.New("us-east", "eu-west", start),
	}
	if services > 0 {
		w.src.Set(3, names(services)...)
	}
	return w
}

func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("s%05d", i)
	}
	return out
}

func (w *wire) open() {
	w.replica.Disconnect()
	ask := w.replica.Ask()
	switch {
	case w.plain:
		if ask = ask.Plain(); ask.Sums != nil {
			w.asked += len(ask.Sums.Bytes())
		}
	case ask.Holding != nil:
		w.asked += len(ask.Holding.Bytes())
	case ask.Sums != nil:
		w.asked += len(ask.Sums.Bytes())
	}
	w.session = w.book.Open(origin.Door{Region: "eu-west", Node: "n1"}, ask, w.proto, w.term)
	w.replica.Connect(start)
	w.kinds = map[replica.Kind]int{}
}

// restart makes the origin forget its books.
func (w *wire) restart() { w.book = origin.NewBook("us-east") }

func (w *wire) take(f replica.Frame) error {
	line, err := json.Marshal(f)
	if err != nil {
		w.t.Fatal(err)
	}
	w.kinds[f.Kind]++
	w.bytes, w.rows = w.bytes+len(line)+1, w.rows+len(f.Rows)
	for _, r := range f.Rows {
		w.changed += len(r.Body)
	}
	back, err := replica.Decode(line)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.replica.Step(back, start).Err
}

// run passes frames until the origin is idle and its heartbeat was taken; most bounds them.
func (w *wire) run(most int) error {
	for range most {
		f, state := w.session.Next(w.src)
		switch state {
		case origin.Turn:
			w.session.Admit()
			continue
		case origin.Idle, origin.Wait:
			if f, ok := w.session.Heartbeat(); ok {
				return w.take(f)
			}
			return nil
		}
		if err := w.take(f); err != nil {
			return err
		}
	}
	return nil
}

// heal opens a stream, as often as the reader asks for it, and returns what that cost.
func (w *wire) heal() (down, up, rows int) {
	w.t.Helper()
	w.bytes, w.asked, w.rows, w.changed = 0, 0, 0, 0
	for range 4 {
		w.open()
		err := w.run(1 << 20)
		if errors.Is(err, replica.ErrResync) {
			continue
		}
		v := w.replica.View()
		if err != nil || v.Version != w.src.Version() {
			w.t.Fatalf("%v: at %s, origin at %s", err, v.Version, w.src.Version())
		}
		return w.bytes, w.asked, w.rows
	}
	w.t.Fatal("no end of asking")
	return 0, 0, 0
}

// P6, P8: what a link costs. The figures stand beside those of the protocol's text.
func TestBytes(t *testing.T) {
	const n = 10_000
	w := newWire(t, n)
	down, up, rows := w.heal()
	t.Logf("bootstrap of %d services of 3 instances: %d KiB, %d bytes a row", n, down>>10, down/rows)
	if rows != n || up != 0 {
		t.Fatal(rows, up)
	}
	w.bytes = 0
	if err := w.run(9); err != nil {
		t.Fatal(err)
	}
	t.Logf("idle: %d bytes a second", w.bytes)
	if w.bytes > 250 {
		t.Fatal("a heartbeat is to be small")
	}
	w.bytes = 0
	w.src.Set(4, "s00042")
	if err := w.run(9); err != nil || w.kinds[replica.Delta] != 1 {
		t.Fatal(err, w.kinds)
	}
	t.Logf("one change: %d bytes with the heartbeat", w.bytes)
	if down, up, _ = w.heal(); down+up > 16<<10 {
		t.Fatal(down, up)
	}
	t.Logf("heal of an unchanged replica: %d bytes", down)

	w.restart()
	w.src.Compact()
	if down, up, rows = w.heal(); down+up > 16<<10 || rows != 0 {
		t.Fatal(down, up, rows)
	}
	t.Logf("the same after the origin's restart: %d bytes", down)

	w.restart()
	for i := range n / 100 {
		w.src.Set(5, fmt.Sprintf("s%05d", i*97))
	}
	w.src.Compact()
	down, up, rows = w.heal()
	t.Logf("heal of a 1 %% changed replica after the origin's restart: %d bytes and %d rows down, %d bytes up", down, rows, up)
	rest := down + up - summary.SumsBytes
	t.Logf("that is the digest (%d bytes) and %.2f times the changed rows (%d bytes)", summary.SumsBytes, float64(rest)/float64(w.changed), w.changed)
	if rows != n/100 || rest*100 > w.changed*125 {
		t.Fatal(rows, rest, w.changed)
	}
}

// A store that commits without changing a service costs its readers nothing but what the
// heartbeats cost anyway, and the age stays that of a confirmed replica.
func TestBeatsAreFoldedIntoTheHeartbeat(t *testing.T) {
	w := newWire(t, 50)
	w.heal()
	w.kinds = map[replica.Kind]int{}
	for range 20 {
		w.src.Beat()
		if err := w.run(9); err != nil {
			t.Fatal(err)
		}
		if v := w.replica.View(); v.Version != w.src.Version() || v.Head != v.Version.Revision {
			t.Fatalf("%+v", v.Version)
		}
	}
	if w.kinds[replica.Heartbeat] != 20 || len(w.kinds) != 1 {
		t.Fatalf("%v", w.kinds)
	}
}

// A reader of the first version of the protocol is still told every revision.
func TestFirstVersionIsServed(t *testing.T) {
	w := newWire(t, 50)
	w.proto = 1
	w.heal()
	w.src.Beat()
	if err := w.run(9); err != nil || w.kinds[replica.Delta] != 1 || w.replica.View().Version != w.src.Version() {
		t.Fatal(err, w.kinds)
	}
	w.restart()
	w.src.Set(2, "s00001")
	w.src.Compact()
	if _, up, rows := w.heal(); up != 0 || rows != 50 {
		t.Fatal(up, rows)
	}
}

// P4: a history that begins anew with the same rows sends none of them again, on an open stream
// and after a restart.
func TestNewEpochRestampsRows(t *testing.T) {
	w := newWire(t, 200)
	w.heal()
	for _, restarted := range []bool{false, true} {
		w.rows = 0
		if err := w.src.RaiseEpoch(t.Context(), w.src.Version().Epoch.Generation); err != nil {
			t.Fatal(err)
		}
		w.src.Set(1, "s00007")
		if restarted {
			w.restart()
			w.heal()
		} else if err := w.run(99); err != nil {
			t.Fatal(err)
		}
		if v := w.replica.View(); v.Version != w.src.Version() || v.Rows != 200 {
			t.Fatalf("%+v", v.Version)
		}
		if w.rows > 5 {
			t.Fatalf("restarted %v: %d rows were sent", restarted, w.rows)
		}
	}
}

// A snapshot that is cut off goes on where it ended.
func TestSnapshotIsResumed(t *testing.T) {
	w := newWire(t, 3000)
	w.open()
	if err := w.run(6); err != nil || w.rows < 1000 || w.replica.View().Rows != 0 {
		t.Fatal(err, w.rows, w.replica.View().Rows)
	}
	before := w.rows
	w.src.Set(2, "s00001")
	if _, up, rows := w.heal(); rows > 3000-before+100 || up == 0 {
		t.Fatalf("%d rows before the cut, %d after it", before, rows)
	}
}

// A large change is sent by buckets, one chunk at a time, and takes its turn.
func TestLargeChangeIsSentByBuckets(t *testing.T) {
	w := newWire(t, 6000)
	w.heal()
	w.kinds = map[replica.Kind]int{}
	w.src.Set(5, names(4000)...)
	if err := w.run(99); err != nil || w.kinds[replica.Delta] != 0 || w.kinds[replica.SnapshotBegin] != 1 || w.replica.View().Version != w.src.Version() {
		t.Fatal(err, w.kinds)
	}
}

// I1: a publisher that was replaced is refused by those who heard of the new one, and stands
// down when they come.
func TestReplacedPublisherIsRefused(t *testing.T) {
	w := newWire(t, 3)
	w.term = 7
	w.heal()
	w.term = 6
	w.src.Set(1, "s00001")
	w.open()
	if err := w.run(9); !errors.Is(err, replica.ErrRefused) {
		t.Fatal(err)
	}
	at := w.src.Version()
	if v := origin.Settle(at, 7, at, 6); v != origin.StandDown {
		t.Fatal(v)
	}
	raised := at
	raised.Epoch.Generation++ // in a new history terms begin anew
	if v := origin.Settle(at, 7, raised, 1); v != origin.Serve {
		t.Fatal(v)
	}
}

// I7: a region that loses its services one after the other is as empty in the end.
func TestSlowMassRemovalIsHeld(t *testing.T) {
	w := newWire(t, 20)
	w.heal()
	for _, n := range names(20) {
		w.src.Set(0, n)
		if err := w.run(9); err != nil {
			t.Fatal(err)
		}
	}
	if v := w.replica.View(); v.Rows != 0 || v.Table.Len() != 20 || v.Complete || v.Origin(start).State != api.AgeSuspect {
		t.Fatalf("%d rows are shown", v.Table.Len())
	}
	w.replica.Tick(start.Add(replica.HoldFor))
	if v := w.replica.View(); v.Table.Len() != 0 {
		t.Fatal("held for ever")
	}
}

// Goodbye for good: the rows stay for a while, go, and come back with the origin.
func TestForget(t *testing.T) {
	w := newWire(t, 5)
	w.heal()
	w.replica.Step(replica.Frame{Kind: replica.Goodbye, Reason: replica.ReasonForget}, start)
	if eff := w.replica.Tick(start.Add(replica.ForgetGrace - time.Second)); eff.Gone || w.replica.View().Table.Len() != 5 {
		t.Fatal("gone too early")
	}
	if eff := w.replica.Tick(start.Add(replica.ForgetGrace)); !eff.Gone || w.replica.View().Table.Len() != 0 {
		t.Fatal("not gone")
	}
	if _, _, rows := w.heal(); rows != 5 || w.replica.View().Gone {
		t.Fatal(rows)
	}
}
