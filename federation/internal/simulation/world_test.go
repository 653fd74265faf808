package simulation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nearside/nearside/federation/internal/rules"
	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

var names = []api.Region{"ap-south", "eu-west", "sa-east", "us-east", "us-west"}

const services = 12

// publisher is one node that tells its region's rows.
type publisher struct {
	name  string
	store *store
	term  uint64
	stuck bool // cannot raise the epoch: it has no quorum
	books map[api.Region]*origin.Book
	loads *summary.Loads
}

type region struct {
	name   api.Region
	skew   time.Duration
	main   *publisher
	zombie *publisher // was replaced and does not know; nil = none
	disk   *store     // of yesterday
	told   history
}

// link is one reader's side of one origin.
type link struct {
	reader, origin *region
	replica        *replica.Replica
	session        *origin.Session
	from           *publisher
	passage        *passage // in place of from: a relay
	flight         []replica.Frame
	taped          []replica.Frame // of any earlier stream, for replay
	proto          int
	cut, plain     bool
	disk           []byte
	meant          map[api.ServiceKey]bool // named as planned in this stream

	high  api.Version // of what was ever shown by this reader's memory (P4)
	epoch api.Epoch   // and the newest term heard of in it
	term  uint64

	shown  replica.View // after the last thing that may change it
	proved api.Version  // the last one whose rows were compared with the origin's
}

type world struct {
	rng     *rand.Rand
	off     rules.Off
	now     time.Time
	regions []*region
	links   []*link
	loss    int // percent

	stats stats
}

type stats struct {
	steps, frames, refused, wipes, zombies, snapshots, patches, relays, meant, held int
	simulated                                                                       time.Duration
}

func newWorld(seed uint64, off rules.Off) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 12)), off: off, now: time.Unix(1_000_000, 0)}
	w.loss = w.rng.IntN(15)
	for _, n := range names {
		r := &region{name: n, skew: time.Duration(w.rng.IntN(1200)-600) * time.Second, told: history{}}
		r.main = w.publisher("n1", newStore(n, w.rng.Uint64(), r.told), 1)
		for i := range services / 2 {
			r.main.store.set(i, 1+w.rng.IntN(6), "n1")
		}
		r.disk = r.main.store.clone()
		w.regions = append(w.regions, r)
	}
	for _, reader := range w.regions {
		for _, o := range w.regions {
			if reader != o {
				l := &link{reader: reader, origin: o}
				w.fresh(l)
				w.links = append(w.links, l)
			}
		}
	}
	return w
}

func (w *world) publisher(name string, s *store, term uint64) *publisher {
	return &publisher{name: name, store: s, term: term, books: map[api.Region]*origin.Book{}}
}

func (w *world) clock(r *region) time.Time { return w.now.Add(r.skew) }

// fresh gives a reader an empty disk.
func (w *world) fresh(l *link) {
	w.adopt(l, replica.New(l.reader.name, l.origin.name, w.clock(l.reader)))
}

func (w *world) adopt(l *link, r *replica.Replica) {
	r.Without(w.off)
	l.replica, l.session, l.flight = r, nil, nil
	// A reader that lost its memory makes no promise about what it said before.
	l.high, l.epoch, l.term = r.Have(), api.Epoch{}, 0
	l.shown, l.proved = r.View(), api.Version{}
}

// connect opens a stream as package peer does: ask, settle, open.
func (w *world) connect(l *link) {
	l.replica.Disconnect()
	l.session, l.flight, l.passage = nil, nil, nil
	if l.cut {
		return
	}
	p := l.origin.main
	if z := l.origin.zombie; z != nil && w.rng.IntN(3) == 0 {
		p = z
	}
	ask := l.replica.Ask()
	heard := ask.Term
	if w.off.Term {
		heard = 0
	}
	if !w.off.Refutation {
		switch origin.Settle(ask.Have, heard, p.store.version, p.term) {
		case origin.Refute:
			if p.stuck {
				return
			}
			p.store.version.Epoch = api.Epoch{Generation: ask.Have.Epoch.Generation + 1, Nonce: w.rng.Uint64()}
			p.store.version.Revision++
			p.store.floor = p.store.version.Revision
			for k, x := range p.store.services { // the numbers of a new history
				x.revision = p.store.version.Revision
				p.store.services[k] = x
			}
		case origin.StandDown, origin.Implausible:
			return
		}
	}
	b := p.books[l.reader.name]
	if b == nil {
		b = origin.NewBook(l.reader.name)
		p.books[l.reader.name] = b
	}
	l.from = p
	door := origin.Door{
		Region: l.origin.name, Node: p.name, Stream: "x", Addresses: []string{"http://10.0.0.1:7400"}, AskAbove: w.rng.IntN(3) - 1,
	}
	if l.plain = w.rng.IntN(8) == 0; l.plain { // a node without features
		ask = ask.Plain()
	}
	l.proto = replica.Proto - w.rng.IntN(8)/7
	l.session = b.Open(door, ask, l.proto, p.term)
	l.replica.Connect(w.clock(l.reader))
}

// pump lets the origin say what it has to say.
func (w *world) pump(l *link, most int) {
	for range most {
		if l.session == nil {
			return
		}
		source := l.source()
		if source == nil {
			l.session, l.flight = nil, nil
			return
		}
		f, state := l.session.Next(source)
		switch state {
		case origin.Turn:
			l.session.Admit()
			continue
		case origin.Idle, origin.Wait:
			for l.passage == nil { // a relay passes on no loads
				f, ok := l.session.Loads(l.from.loads)
				if !ok {
					break
				}
				l.flight = append(l.flight, f)
			}
			if f, ok := l.session.Heartbeat(); ok {
				f.SentMS, f.AgeMS = w.now.UnixMilli(), w.late(l)
				l.flight = append(l.flight, f)
			}
			return
		}
		if f.Kind == replica.Delta {
			f.SentMS, f.AgeMS = w.now.UnixMilli(), w.late(l)
		}
		l.flight = append(l.flight, f)
		if l.taped = append(l.taped, f); len(l.taped) > 24 {
			l.taped = l.taped[1:]
		}
	}
}

// deliver takes one frame off the network.
func (w *world) deliver(l *link, clean bool) error {
	if len(l.flight) == 0 {
		return nil
	}
	i := 0
	if !clean && w.rng.IntN(12) == 0 {
		i = w.rng.IntN(len(l.flight))
	}
	f := l.flight[i]
	if clean || w.rng.IntN(12) != 0 {
		l.flight = append(l.flight[:i:i], l.flight[i+1:]...)
	}
	if !clean && w.rng.IntN(100) < w.loss {
		return nil
	}
	if w.rng.IntN(8) == 0 {
		line, err := json.Marshal(f)
		if err != nil {
			return err
		}
		if f, err = replica.Decode(line); err != nil {
			return fmt.Errorf("our own frame is refused: %w", err)
		}
	}
	return w.step(l, f)
}

// step feeds one frame and checks what must hold after every one.
func (w *world) step(l *link, f replica.Frame) error {
	before := l.replica.View()
	eff := l.replica.Step(f, w.clock(l.reader))
	after := l.replica.View()
	w.stats.frames++
	if f.Kind == replica.Hello {
		l.meant = map[api.ServiceKey]bool{}
	}
	for _, p := range f.Planned {
		if k, err := replica.ParseKey(p); err == nil && l.meant != nil {
			l.meant[k] = true
		}
	}
	if f.Patch && eff.Err == nil {
		w.stats.patches++
	}
	w.stats.held += eff.Held
	if eff.Refused != "" {
		w.stats.refused++
	}
	if eff.Snapshot {
		w.stats.snapshots++
	}
	if eff.Err != nil || eff.Goodbye {
		l.session, l.flight = nil, nil
		l.replica.Disconnect()
	}
	if o := after.Version.Compare(l.high); !l.high.IsZero() && (o == api.Older || o == api.Conflict) {
		return fmt.Errorf("P4: %s shows %s after %s of %s", l.reader.name, after.Version, l.high, l.origin.name)
	}
	l.high, l.shown = after.Version, after
	if err := joins(l, f, eff, &before); err != nil {
		return err
	}
	if eff.Err != nil && (before.Version != after.Version || before.Digest != after.Digest || before.Table != after.Table) {
		return fmt.Errorf("I5: a refused %s changed what is shown", f.Kind)
	}
	if before.Held == 0 && before.Table.Len() >= 3 {
		lost, all := 0, before.Table.Len() // what came in the same step counts among what there was
		for k := range after.Table.All {
			if before.Table.Get(k) == nil {
				all++
			}
		}
		meant := 0
		for k := range before.Table.All {
			if after.Table.Get(k) != nil {
				continue
			}
			if l.meant[k] && before.Version.Epoch == after.Version.Epoch {
				meant++
			} else {
				lost++
			}
		}
		if meant > 0 {
			w.stats.meant++
		}
		if lost >= 3 && lost*100 > all*replica.HoldServices {
			return fmt.Errorf("P7, I7: %d of %d services of %s vanished in one step (%s)", lost, before.Table.Len(), l.origin.name, f.Kind)
		}
	}
	err := w.fenced(l, f, eff)
	if err == nil {
		err = w.passed(l, f, eff)
	}
	if eff.Resync && w.rng.IntN(2) == 0 { // as the owner of a link does
		w.connect(l)
	}
	return err
}

// fenced checks that nothing of a replaced publisher is believed once its successor was heard
// of (I1). Replayed frames carry the term of their own hello, so only a hello is looked at.
func (w *world) fenced(l *link, f replica.Frame, eff replica.Effects) error {
	if f.Kind != replica.Hello || eff.Err != nil || f.Proto < 2 {
		return nil
	}
	v := l.replica.Have()
	if f.Epoch != v.Epoch { // heard of, not yet applied
		return nil
	}
	if f.Epoch == l.epoch && f.Term < l.term {
		return fmt.Errorf("I1: %s follows term %d of %s after term %d", l.reader.name, f.Term, l.origin.name, l.term)
	}
	l.epoch, l.term = f.Epoch, f.Term
	return nil
}

func (w *world) random() error {
	l := w.links[w.rng.IntN(len(w.links))]
	r := w.regions[w.rng.IntN(len(w.regions))]
	if w.rng.IntN(2) == 0 { // half of what happens, happens to one pair
		l, r = w.links[0], w.links[0].origin
	}
	switch p := w.rng.IntN(1000); {
	case p < 90:
		r.main.store.set(w.rng.IntN(services), 1+w.rng.IntN(6), r.main.name)
	case p < 105:
		r.main.store.set(w.rng.IntN(services), 0, "")
	case p < 112: // an ownership beat: a revision that changes nothing
		r.main.store.version.Revision++
	case p < 125 && r.zombie != nil:
		for range 1 + w.rng.IntN(12) { // it may well be ahead in numbers
			r.zombie.store.set(w.rng.IntN(services), 1+w.rng.IntN(6), r.zombie.name)
		}
	case p < 128: // everything at once, by mistake or by wish
		for i := range services {
			r.main.store.set(i, 0, "")
		}
	case p < 130: // an operator deletes most of them, and means it
		for i := range services {
			if w.rng.IntN(4) != 0 {
				r.main.store.put(i, 0, "", true)
			}
		}
	case p < 133: // an empty disk
		w.restart(r, newStore(r.name, w.rng.Uint64(), r.told))
		w.stats.wipes++
	case p < 137: // yesterday's disk
		s := r.disk.clone()
		s.floor = s.version.Revision
		w.restart(r, s)
		w.stats.wipes++
	case p < 147: // a plain restart: history and books are gone
		r.main.store.floor = r.main.store.version.Revision
		w.restart(r, r.main.store)
	case p < 152:
		r.disk = r.main.store.clone()
	case p < 160: // another node takes over; the old one may not notice
		// Its streams go on, and tell of what it has.
		old, live := r.main, r.main.store
		old.store, old.stuck = live.clone(), true
		r.main = w.publisher(fmt.Sprintf("n%d", old.term+1), live, old.term+1)
		r.zombie = old
		w.stats.zombies++
	case p < 165:
		r.zombie = nil
	case p < 175:
		l.cut = !l.cut
	case p < 185: // the reader writes its disk
		return w.save(l)
	case p < 190: // and comes back with it, or without
		return w.reload(l)
	case p < 195: // a recording of earlier streams
		for _, f := range l.taped {
			if err := w.step(l, f); err != nil {
				return err
			}
		}
	case p < 270:
		w.connect(l)
	case p < 290:
		return w.relay(l, w.regions[w.rng.IntN(len(w.regions))])
	case p < 320:
		w.now = w.now.Add(time.Duration(w.rng.IntN(2000)) * time.Millisecond)
	case p < 325:
		w.now = w.now.Add(time.Duration(w.rng.IntN(90)) * time.Second)
	case p < 350:
		return w.tick(l)
	case p < 352: // its operator ends the region for good; it may come back all the same
		if l.session != nil {
			l.flight = append(l.flight, replica.Frame{Kind: replica.Goodbye, Reason: replica.ReasonForget})
		}
	case p < 360:
		w.ack(l)
	case p < 380:
		percent := map[api.ServiceKey]float64{}
		for i := range services { // not in the order of a map: a seed must replay
			k := key(i)
			if _, known := r.main.store.services[k]; known && w.rng.IntN(4) != 0 {
				percent[k] = w.rng.Float64() * 150
			}
		}
		r.main.loads = r.main.loads.Next(percent)
	case p < 600:
		w.pump(l, 1+w.rng.IntN(4))
	default:
		return w.deliver(l, false)
	}
	return nil
}

// ack carries the reader's word to the origin, which may have to tell all loads again.
func (w *world) ack(l *link) {
	if a := l.replica.Ack(w.clock(l.reader)); a.Loads && l.session != nil {
		l.session.LoadsAgain()
	}
}

// restart ends a region's streams and starts its publisher from a disk.
func (w *world) restart(r *region, s *store) {
	r.main = w.publisher(r.main.name, s, r.main.term)
	for _, l := range w.links {
		if l.origin == r {
			l.session, l.flight = nil, nil
			l.replica.Disconnect()
		}
	}
}

func (w *world) save(l *link) error {
	s := l.replica.Save()
	if s == nil {
		return nil
	}
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		return err
	}
	l.disk = b.Bytes()
	return nil
}

func (w *world) reload(l *link) error {
	if l.disk == nil || w.rng.IntN(3) == 0 {
		w.fresh(l)
		return nil
	}
	r, err := replica.Restore(l.reader.name, l.origin.name, bytes.NewReader(l.disk), time.Minute, w.clock(l.reader))
	if err != nil {
		return fmt.Errorf("our own file is refused: %w", err)
	}
	w.adopt(l, r)
	return nil
}

// settle heals the network, stops writes, and demands that every pair agrees (P6).
func (w *world) settle() error {
	for _, r := range w.regions {
		r.zombie = nil
	}
	for _, l := range w.links {
		if l.proto < 2 {
			// The first version of the protocol can not notice a lost frame in mid-stream: it
			// relies on its transport, which ends the stream instead.
			l.session, l.flight = nil, nil
		}
	}
	// An origin may still raise its epoch for a reader that comes late, which the others follow.
	for range 12 {
		for _, l := range w.links {
			l.cut = false
			if l.session == nil || l.from != l.origin.main {
				w.connect(l)
			}
			for range 2 {
				w.pump(l, 100)
				for len(l.flight) > 0 {
					if err := w.deliver(l, true); err != nil {
						return err
					}
				}
			}
		}
		for _, l := range w.links {
			w.ack(l)
		}
		if err := w.check(); err != nil {
			return err
		}
		w.now = w.now.Add(time.Second)
	}
	digests := map[*link]summary.Digest{}
	w.now = w.now.Add(replica.HoldFor)
	for _, l := range w.links {
		if err := w.tick(l); err != nil {
			return err
		}
		digests[l] = l.origin.main.store.digest(l.reader.name)
		v := l.replica.View()
		if v.Version != l.origin.main.store.version || v.Digest != digests[l] || v.Table.Digest() != v.Digest || v.Held != 0 {
			return fmt.Errorf("P6: %s holds %s (%s, %d held) of %s at %s (%s)", l.reader.name, v.Version, v.Digest, v.Held,
				l.origin.name, l.origin.main.store.version, digests[l])
		}
		if l.proto < 2 || l.plain {
			continue
		}
		told := map[api.ServiceKey]int{}
		for _, x := range l.origin.main.loads.Since(nil) {
			told[x.Key] = x.Percent
		}
		for k, e := range v.Table.All {
			if e.Summary.Load != told[k] {
				return fmt.Errorf("P6: %s takes %s of %s for used by %d %%, the origin says %d", l.reader.name, k, l.origin.name, e.Summary.Load, told[k])
			}
		}
	}
	return nil
}

func (w *world) run(steps int) error {
	began := w.now
	for range steps {
		if err := w.random(); err != nil {
			return err
		}
		if err := w.check(); err != nil {
			return err
		}
		w.stats.steps++
	}
	err := w.settle()
	w.stats.simulated = w.now.Sub(began)
	return err
}
