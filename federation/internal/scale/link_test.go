package scale

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// link is one origin and one reader with nothing between them but the wire form of the frames,
// plain and compressed as package peer does it.
type link struct {
	b       *testing.B
	src     *catalog
	book    *origin.Book
	session *origin.Session
	replica *replica.Replica
	loads   *summary.Loads
	now     time.Time

	beats int64
	noise [32 + 71]byte  // a seal and a signature
	full  bool           // heartbeats say all that they say in earnest
	keep  *[]replica.Row // where rows that pass are kept; nil = nowhere

	zip  *zstd.Encoder
	wire bytes.Buffer
	cost
}

// cost is what passed and what it took.
type cost struct {
	raw, compressed, up, rows     int
	origin, squeeze, decode, step time.Duration
}

func newLink(b *testing.B, src *catalog) *link {
	l := &link{
		b: b, src: src, book: origin.NewBook("reader"), replica: replica.New("reader", src.region, time.Unix(1_000_000, 0)), now: time.Unix(1_000_000, 0),
	}
	dice := rand.New(rand.NewPCG(1, 1))
	for i := range l.noise {
		l.noise[i] = byte(dice.Uint32())
	}
	var err error
	// The options of package peer.
	l.zip, err = zstd.NewWriter(&l.wire, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10), zstd.WithEncoderCRC(false))
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func (l *link) open() {
	l.replica.Disconnect()
	ask := l.replica.Ask()
	switch {
	case ask.Holding != nil:
		l.up += len(ask.Holding.Bytes())
	case ask.Sums != nil:
		l.up += len(ask.Sums.Bytes())
	}
	l.session = l.book.Open(origin.Door{Region: l.src.region, Node: "n1", Stream: "00000000000000000000000000"}, ask, replica.Proto, 0)
	l.replica.Connect(l.now)
	l.wire.Reset()
	l.zip.Reset(&l.wire)
}

// took runs f and adds the time to t.
func took(t *time.Duration, f func()) {
	began := time.Now()
	f()
	*t += time.Since(began)
}

func (l *link) take(f replica.Frame) error {
	if f.Kind == replica.Heartbeat || f.Kind == replica.Delta {
		l.beats++
		f.SentMS = l.beats*1000 + l.beats*l.beats%7 // as timers are
	}
	if l.full && f.Kind == replica.Heartbeat {
		l.fill(&f)
	}
	if l.keep != nil {
		*l.keep = append(*l.keep, f.Rows...)
	}
	var line []byte
	took(&l.origin, func() { line, _ = json.Marshal(f) })
	l.raw, l.rows = l.raw+len(line)+1, l.rows+len(f.Rows)
	took(&l.squeeze, func() {
		before := l.wire.Len()
		_, _ = l.zip.Write(append(line, '\n'))
		_ = l.zip.Flush()
		l.compressed += l.wire.Len() - before
	})
	l.wire.Reset() // what was counted
	var back replica.Frame
	var err error
	took(&l.decode, func() { back, err = replica.Decode(line) })
	if err != nil {
		l.b.Fatal(err)
	}
	took(&l.step, func() { err = l.replica.Step(back, l.now).Err })
	return err
}

// fill adds to a heartbeat what package peer and mesh do in a region of 20 that signs: where its
// sender stands with the 19 that it reads, whose ages differ from one to the next, the canary, and the signature, which
// is that of before while nothing changes.
func (l *link) fill(f *replica.Frame) {
	f.DueMS, f.WireMS = l.beats*1000, l.beats*1000+l.beats%3
	f.RTTMS = 40
	f.Signed = &replica.Signed{Reader: "reader", Seal: l.noise[:32], Sig: l.noise[32:]}
	for i := range origins {
		f.Standings = append(f.Standings, replica.Standing{
			Region: regionName(i + 1), Epoch: api.Epoch{Generation: 1, Nonce: uint64(i+1) * 0x9e3779b97f4a7c15}, Revision: uint64(1000000 + 31*i),
			AgeMS: 100 + (l.beats*int64(i+7)*7919)%1000, Link: "up", Relay: 1,
		})
	}
}

// run passes frames until the origin is idle and its heartbeat was taken.
func (l *link) run(loads bool) error {
	for {
		var f replica.Frame
		var state origin.State
		took(&l.origin, func() { f, state = l.session.Next(l.src) })
		switch state {
		case origin.Turn:
			l.session.Admit()
			continue
		case origin.Idle, origin.Wait:
			for loads {
				f, more := l.session.Loads(l.loads)
				if !more {
					break
				}
				if err := l.take(f); err != nil {
					return err
				}
			}
			if f, ok := l.session.Heartbeat(); ok {
				return l.take(f)
			}
			return nil
		}
		if err := l.take(f); err != nil {
			return err
		}
	}
}

// measure returns what f costs.
func (l *link) measure(f func()) cost {
	l.cost = cost{}
	f()
	return l.cost
}

// heal opens streams until the reader has the newest version.
func (l *link) heal() {
	for range 4 {
		l.open()
		err := l.run(false)
		if errors.Is(err, replica.ErrResync) {
			continue
		}
		v := l.replica.View()
		if err != nil || v.Version != l.src.Version() || v.Digest != l.book.Page(l.src).Digest {
			l.b.Fatalf("%v: at %s of %s", err, v.Version, l.src.Version())
		}
		return
	}
	l.b.Fatal("no end of asking")
}

// follow makes a replica of another region that has the same rows under its own name, and returns
// what that took: the rows of a snapshot are checked and applied one by one, as always.
func follow(region, model api.Region, rows []replica.Row) (*replica.Replica, time.Duration, error) {
	now := time.Unix(1_000_000, 0)
	r := replica.New("reader", region, now)
	epoch := api.Epoch{Generation: 1, Nonce: 7}
	var spent time.Duration
	step := func(f replica.Frame) (err error) {
		f.Epoch = epoch
		took(&spent, func() { err = r.Step(f, now).Err })
		return err
	}
	r.Connect(now)
	if err := step(replica.Frame{Kind: replica.Hello, Proto: replica.Proto, Region: region, Head: 1, Complete: true}); err != nil {
		return nil, 0, err
	}
	if err := step(replica.Frame{Kind: replica.SnapshotBegin, To: 1}); err != nil {
		return nil, 0, err
	}
	var digest summary.Digest
	from, to := []byte(model), []byte(region)
	for part := range slices.Chunk(rows, replica.ChunkRows) {
		f := replica.Frame{Kind: replica.SnapshotChunk}
		for _, row := range part {
			body := bytes.ReplaceAll(row.Body, from, to)
			digest = digest.Add(summary.HashOf(body))
			f.Rows = append(f.Rows, replica.Row{Revision: row.Revision, Body: body})
		}
		if err := step(f); err != nil {
			return nil, 0, err
		}
	}
	return r, spent, step(replica.Frame{Kind: replica.SnapshotEnd, To: 1, Count: len(rows), Digest: digest})
}

var _ interface {
	origin.Source
	origin.Loader
} = (*catalog)(nil)

// regionName names the 19 origins, all with the same length.
func regionName(i int) api.Region { return api.Region("region-" + string(rune('a'+i))) }
