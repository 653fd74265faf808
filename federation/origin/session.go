package origin

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Door is what this region says of itself in a hello.
type Door struct {
	Region    api.Region
	Node      string
	Stream    string // names this stream among those of the node
	Addresses []string
	// Partial: not all services of the region are told, so absence means nothing (I9).
	Partial bool
	// AskAbove is how many rows of buckets that differ are sent whole; above it the reader is
	// asked for their hashes, which takes another round trip. 0 = 32, -1 = always ask.
	AskAbove int
	// Relay is our own region, when Region is another one whose rows we pass on; the Source's
	// images are Relays then. What the hello says of Region comes from them.
	Relay api.Region
	// Sibling: the reader is another node of our own region, which adds no relay.
	Sibling bool
	// Sign signs what we say of our own rows; nil = nothing is signed. It returns nil when it
	// can not sign.
	Sign func(s *replica.Statement) *replica.Signed
	// Chain returns the certificates to which the signatures are held; nil = none.
	Chain func() [][]byte
}

// State tells what Next found.
type State int

const (
	Idle State = iota // the reader has been told everything up to the newest version
	Send              // the frame is to be sent; ask again
	Turn              // many rows follow; wait for a turn, call Admit, and ask again
	Wait              // the reader is to come back; only heartbeats until it does
)

// BulkShare and bulkRows are when a change is sent as buckets instead of row by row: above
// this share of all rows, in percent, and at least so many. Rows are then made one chunk at a
// time and take turns with those of other readers, as in a snapshot.
const (
	BulkShare = 20
	bulkRows  = 2_000
)

// Session is one stream to one reader. It belongs to one goroutine.
type Session struct {
	door  Door
	book  *Book
	ask   replica.Ask
	proto int
	term  uint64

	told   api.Epoch   // of the last hello
	led    api.Version // what the stream has led the reader to, heartbeats included
	digest summary.Digest
	said   replica.Statement // what the last hello said of the rows' region
	sealed *replica.Signed   // of a relay: the signature for led
	seals  summary.Sum       // of the rows at led
	wish   float64           // what the region wishes about itself; of a relay, at led
	fresh  bool              // nothing but hellos were sent
	parted replica.Frame     // asked the reader to come back; of no kind otherwise
	queue  []replica.Frame
	target Page // what queue or bulk leads to
	bulk   *chunker
	turn   bool // many rows may be sent
	load   loadState
}

// Open begins a stream to a reader that asked ask and speaks version proto of the frames.
func (b *Book) Open(door Door, ask replica.Ask, proto int, term uint64) *Session {
	s := &Session{door: door, book: b, ask: ask, proto: proto, term: term, fresh: true}
	if !ask.Full && ask.Sums == nil {
		s.led = ask.Have
	}
	return s
}

// SetTerm tells the publisher's term from now on.
func (s *Session) SetTerm(term uint64) {
	if term != s.term {
		s.term = term
		s.told = api.Epoch{} // say hello again
	}
}

// SetAddresses tells where clients find the region from now on. The slice is not changed.
func (s *Session) SetAddresses(addresses []string) {
	if !slices.Equal(addresses, s.door.Addresses) {
		s.door.Addresses = addresses
		s.told = api.Epoch{} // say hello again
	}
}

// SetWish tells what the region wishes about itself from now on, in percent.
func (s *Session) SetWish(drained float64) { s.wish = drained }

// Admit lets the session send many rows, and Dismiss ends that.
func (s *Session) Admit() { s.turn = true }

// Dismiss ends what Admit began.
func (s *Session) Dismiss() { s.turn = false }

// Bulk reports whether many rows are on their way.
func (s *Session) Bulk() bool { return s.bulk != nil }

// Led returns the version that the stream has led the reader to, and the digest there.
func (s *Session) Led() (api.Version, summary.Digest) { return s.led, s.digest }

// Next returns the next frame that leads the reader to the newest version. It may take long:
// a row is made for every service that changed.
func (s *Session) Next(src Source) (replica.Frame, State) {
	switch {
	case s.parted.Kind != "":
		return replica.Frame{}, Wait
	case len(s.queue) > 0:
		f := s.queue[0]
		s.queue = s.queue[1:]
		if len(s.queue) == 0 {
			s.at(s.target)
		}
		return f, Send
	case s.bulk != nil:
		f, last := s.bulk.next()
		if last {
			f.Drained, f.Signed = s.drained(s.target.Image), s.sign(s.target.Image, s.target.Version, s.target.Digest, s.target.Seal)
			s.bulk = nil
			s.at(s.target)
		}
		return f, Send
	}
	return s.advance(src)
}

func (s *Session) at(p Page) {
	s.seal(p)
	s.led, s.digest, s.fresh = p.Version, p.Digest, false
	s.target = Page{} // let an old catalogue go
}

// Hello returns the greeting at a page.
func (s *Session) Hello(p Page) replica.Frame {
	s.told = p.Version.Epoch
	f := replica.Frame{
		Kind: replica.Hello, Proto: s.proto, Region: s.door.Region, Node: s.door.Node, Complete: !s.door.Partial,
		Epoch: p.Version.Epoch, Head: p.Version.Revision, Digest: p.Digest, Addresses: s.door.Addresses,
	}
	if s.proto >= 2 {
		f.Term, f.Stream, f.Can = s.term, s.door.Stream, replica.Able
		if s.door.Chain != nil {
			f.Chain = s.door.Chain()
		}
	}
	if relay, ok := p.Image.(Relay); ok {
		says := relay.Says()
		f.Relay, f.Depth = s.door.Relay, relay.Depth()
		if !s.door.Sibling {
			f.Depth++
			f.Can &^= replica.CanLoad // nobody signs loads; what the reader knew of them is not true for ever
		}
		f.Complete, f.Term, f.Addresses, f.Chain = says.Complete, says.Term, says.Addresses, says.Chain
	}
	f.Drained = s.drained(p.Image)
	s.said = replica.Statement{
		Version: api.Version{Region: f.Region}, Complete: f.Complete, Term: f.Term, Addresses: f.Addresses, Chain: f.Chain,
	}
	f.Signed = s.sign(p.Image, p.Version, p.Digest, p.Seal)
	return f
}

// turned reports whether a hello is due: in a new epoch, and when what it says has changed.
func (s *Session) turned(p Page) bool {
	if s.told != p.Version.Epoch {
		return true
	}
	if relay, ok := p.Image.(Relay); ok {
		now := relay.Says()
		return !now.Like(&s.said)
	}
	return s.door.Chain != nil && !slices.EqualFunc(s.door.Chain(), s.said.Chain, bytes.Equal)
}

// sign returns the signature of what the last hello said, at a version.
func (s *Session) sign(img Image, at api.Version, digest summary.Digest, seal summary.Sum) *replica.Signed {
	if s.proto < 2 {
		return nil
	}
	if relay, ok := img.(Relay); ok {
		if says := relay.Says(); says.Version == at && says.Digest == digest && len(says.Sig) > 0 {
			return &replica.Signed{Reader: says.Reader, Seal: says.Seal, Sig: says.Sig}
		}
		return nil
	}
	if s.door.Sign == nil {
		return nil
	}
	what := s.said
	what.Version, what.Digest, what.Reader, what.Drained, what.Seal = at, digest, s.book.reader, s.wish, seal[:]
	return s.door.Sign(&what)
}

// seal remembers the signature of the page that the stream has led to. A relay has it only
// while it stands there; an origin can sign at any time.
func (s *Session) seal(p Page) {
	s.sealed, s.seals = nil, p.Seal
	if _, ok := p.Image.(Relay); ok {
		s.sealed, s.wish = s.sign(p.Image, p.Version, p.Digest, p.Seal), s.drained(p.Image)
	}
}

// drained is what the rows' region wishes about itself.
func (s *Session) drained(img Image) float64 {
	if relay, ok := img.(Relay); ok {
		return relay.Says().Drained
	}
	return s.wish
}

func (s *Session) advance(src Source) (replica.Frame, State) {
	if s.fresh && s.ask.Holding != nil && s.proto >= 2 {
		return s.fill(src)
	}
	if s.fresh && s.ask.Sums != nil && s.proto >= 2 {
		set, shared, p := s.book.compare(s.ask.Sums, src)
		if s.turned(p) {
			return s.Hello(p), Send
		}
		if shared > cmp.Or(s.door.AskAbove, askAbove) && s.ask.Can.Has(replica.CanHashes) {
			return s.part(replica.Frame{Kind: replica.Hashes, Epoch: p.Version.Epoch, To: p.Version.Revision, Buckets: set})
		}
		return s.start(src, p, set)
	}
	if s.led.IsZero() {
		p := s.book.Page(src)
		if s.turned(p) {
			return s.Hello(p), Send
		}
		return s.start(src, p, nil)
	}
	keys, p, ok := s.book.changed(s.led, src)
	if !ok && s.same(p) {
		keys, ok = nil, true
	}
	if s.turned(p) {
		return s.Hello(p), Send
	}
	turned := s.led.Epoch != p.Version.Epoch
	switch {
	case ok && s.led == p.Version:
		s.digest = p.Digest
		s.seal(p)
		return replica.Frame{}, Idle
	case !ok && s.proto >= 2:
		return s.part(replica.Frame{Kind: replica.Sums, Epoch: p.Version.Epoch})
	case !ok, turned && s.proto < 2:
		return s.start(src, p, nil)
	case len(keys) > bulkRows && len(keys)*100 > p.Rows*BulkShare:
		if x := divide(p.Image, keys); s.ask.Can.Has(replica.CanHashes) && s.proto >= 2 {
			if !turned {
				x.from = s.led.Revision
				for _, k := range planned(src, s.led, keys) {
					x.planned = append(x.planned, replica.FormatKey(k))
				}
			}
			return s.send(src, p, x)
		}
		var set *summary.BucketSet // all, for a reader that knows no buckets
		if s.proto >= 2 {
			set = summary.NewBucketSet(summary.Buckets)
			for _, k := range keys {
				set.Add(k)
			}
		}
		return s.start(src, p, set)
	case len(keys) == 0 && !turned && !s.fresh && s.proto >= 2:
		// Nothing that the reader would see changed: the next heartbeat tells the version.
		s.led, s.digest = p.Version, p.Digest
		s.seal(p)
		return replica.Frame{}, Idle
	default:
		s.delta(src, keys, p)
	}
	return s.Next(src)
}

// planned returns those of the services that lost what they lost because it was meant to go.
func planned(src Source, from api.Version, keys []api.ServiceKey) (out []api.ServiceKey) {
	planner, ok := src.(Planner)
	if !ok {
		return nil
	}
	meant := planner.PlannedSince(from)
	for _, k := range keys {
		if _, ok := meant[k]; ok {
			out = append(out, k)
		}
	}
	return out
}

// same reports whether the reader, which has had nothing from this stream yet, holds exactly
// our rows at an older version: after our restart the history is gone, but in a quiet region
// nothing has changed.
func (s *Session) same(p Page) bool {
	if !s.fresh || s.ask.Have != s.led || s.ask.Digest != p.Digest {
		return false
	}
	return s.proto >= 2 || s.led.Epoch == p.Version.Epoch && s.led.Revision < p.Version.Revision
}

// part asks the reader to come back; the heartbeats repeat it.
func (s *Session) part(f replica.Frame) (replica.Frame, State) {
	s.parted, s.led = f, api.Version{}
	return f, Send
}

// fill answers a reader that told which rows it has.
func (s *Session) fill(src Source) (replica.Frame, State) {
	x, p, ok := s.book.patch(s.ask.Holding, s.ask.At, src)
	switch {
	case s.turned(p):
		return s.Hello(p), Send
	case !ok:
		return s.part(replica.Frame{Kind: replica.Sums, Epoch: p.Version.Epoch})
	}
	return s.send(src, p, x)
}

// send begins to send rows that are named one by one, or says that it needs a turn.
func (s *Session) send(src Source, p Page, x patch) (replica.Frame, State) {
	if !s.turn && len(x.keys) > smallPatch {
		return replica.Frame{}, Turn
	}
	s.bulk, s.target = newPatcher(s.book, p, x), p
	s.ask.Sums, s.ask.Holding = nil, nil
	return s.Next(src)
}

// start begins to send the rows of some buckets, or says that it needs a turn. It is decided
// anew after the wait: much may have changed.
func (s *Session) start(src Source, p Page, set *summary.BucketSet) (replica.Frame, State) {
	if !s.turn && set.Len() > smallSet {
		return replica.Frame{}, Turn
	}
	s.bulk, s.target = newChunker(s.book, p, set, s.proto), p
	s.ask.Sums = nil
	return s.Next(src)
}

const (
	// smallSet is how many buckets are sent without waiting for a turn, and smallPatch how many
	// rows that are named.
	smallSet   = 64
	smallPatch = replica.ChunkRows
	// askAbove is the default of Door.AskAbove: some 20 KiB.
	askAbove = 32
)

func (s *Session) delta(src Source, keys []api.ServiceKey, p Page) {
	base := replica.Frame{Kind: replica.Delta, Epoch: p.Version.Epoch, From: s.led.Revision, To: p.Version.Revision}
	if s.led.Epoch != p.Version.Epoch {
		base.FromEpoch = s.led.Epoch
	}
	pack := packer{base: base}
	for _, k := range keys {
		if row, _, ok := s.book.Row(p.Image, k); ok {
			pack.add(row)
		} else {
			pack.remove(k)
		}
	}
	if base.FromEpoch.IsZero() {
		for _, k := range planned(src, s.led, keys) {
			pack.plan(k)
		}
	}
	s.queue, s.target = pack.finish(p.Digest), p
	last := &s.queue[len(s.queue)-1]
	last.Drained, last.Signed = s.drained(p.Image), s.sign(p.Image, p.Version, p.Digest, p.Seal)
}

// Heartbeat returns the frame that says where the origin stands, or false while the reader is
// to be told something else first. It is true of the moment before Next last returned Idle,
// and has the same size in good times and bad.
func (s *Session) Heartbeat() (replica.Frame, bool) {
	if s.parted.Kind != "" {
		return s.parted, true
	}
	if s.led.IsZero() || s.led.Epoch != s.told || s.bulk != nil || len(s.queue) > 0 {
		return replica.Frame{}, false
	}
	f := replica.Frame{Kind: replica.Heartbeat, Epoch: s.led.Epoch, Head: s.led.Revision, Digest: s.digest, Drained: s.wish}
	if s.proto >= 2 {
		f.To = s.led.Revision
		f.LoadDigest = s.loadDigest()
		if f.Signed = s.sealed; f.Signed == nil && s.door.Relay == "" {
			f.Signed = s.sign(nil, s.led, s.digest, s.seals)
		}
	}
	return f, true
}
