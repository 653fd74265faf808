package peer

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Relay is what this region holds of another one, as it is passed on to a reader. Its images
// are origin.Relays. Safe for concurrent use.
//
// A reader asks for it with GET /peer/v1/stream?region=US&origin=THAT: "region" is whom it
// talks to and "origin" whose rows it wants. The answer is a stream like any other, whose hello
// names "relay" and "depth", and whose deltas and heartbeats say how old the relay's own
// knowledge is ("age_ms"). It takes no digests for the truth of the origin: a reader that holds
// something newer is refused, the origin's epoch is not raised. A node of our own region may
// ask too; that adds nothing to the depth.
type Relay interface {
	origin.Source
	// Wait is that of a Source.
	Wait(ctx context.Context, after api.Version) error
	// Age returns how old the word of the origin is, at a moment, that the newest image rests on.
	Age(at time.Time) time.Duration
	// RTT is the round trip to the origin, and Standings what it last said of other regions, if that was
	// a moment ago; both are for nodes of our own region.
	RTT() time.Duration
	Standings() []replica.Standing
	// Loads is how much the origin's services are used, as it last told; for nodes of our own region.
	Loads(at time.Time) *summary.Loads
	// Drained is what the origin last wished about itself, in percent, 0 to 100.
	Drained() float64
	// Done is closed when the rows come from somewhere else now: who reads them is to ask anew.
	Done() <-chan struct{}
}

// door returns what a stream says of whom it tells.
func (st *stream) door() origin.Door {
	cfg := &st.server.cfg
	d := origin.Door{Region: cfg.Region, Node: cfg.Node, Stream: st.id}
	if st.relay != nil {
		d.Region, d.Relay, d.Sibling = st.query.Origin, cfg.Region, st.query.Reader == cfg.Region
		return d
	}
	d.Addresses, d.Partial = st.server.addresses(), cfg.Partial
	if s := cfg.Signer; s != nil {
		d.Sign, d.Chain = st.sign, s.Chain
	}
	return d
}

// Signer signs in the name of this region. Safe for concurrent use.
type Signer interface {
	// Sign returns the signature of some bytes, by the key of Chain's first certificate.
	Sign(b []byte) ([]byte, error)
	// Chain returns the certificates in DER, the region's own first. The same slice is returned
	// for as long as they are the same.
	Chain() [][]byte
}

// sign signs a statement, once for all streams of a reader region.
func (st *stream) sign(s *replica.Statement) *replica.Signed {
	b := s.Bytes()
	st.book.signing.Lock()
	defer st.book.signing.Unlock()
	if string(b) == st.book.signedBytes && st.book.signedBy == chainID(s.Chain) {
		return st.book.signed
	}
	sig, err := st.server.cfg.Signer.Sign(b)
	if err != nil {
		st.server.log.Warn("our rows cannot be signed; no other region can pass them on", "error", err)
		return nil
	}
	st.book.signedBytes, st.book.signedBy, st.book.signed = string(b), chainID(s.Chain), &replica.Signed{Reader: st.query.Reader, Seal: s.Seal, Sig: sig}
	return st.book.signed
}

// chainID tells whether two chains are the same one.
func chainID(chain [][]byte) string {
	if len(chain) == 0 {
		return ""
	}
	return string(chain[0])
}

// asks reports whether q is for another region's rows.
func (q *Query) asks() bool { return q.Peer != "" && q.Peer != q.Origin }

// peer is whom the request goes to.
func (q *Query) peer() api.Region { return cmp.Or(q.Peer, q.Origin) }

// source returns whom the stream tells of.
func (s *Server) relay(q *Query) (Relay, error) {
	if s.cfg.Relay == nil {
		return nil, &api.Error{
			Code: api.CodeNotFound, Field: "origin", Detail: fmt.Sprintf("region %s passes on no rows of others", s.cfg.Region),
			Remedy: "read region " + string(q.Origin) + " itself",
		}
	}
	if q.Origin == q.Reader {
		return nil, &api.Error{
			Code: api.CodeConflict, Field: "origin", Detail: "a region is not told of itself", Remedy: "read " + string(q.Origin) + " at home",
		}
	}
	r, err := s.cfg.Relay(q.Origin, q.Reader)
	if err != nil {
		return nil, err
	}
	if own := r.Image().Version(); !q.Have.IsZero() {
		if o := q.Have.Compare(own); o != api.Older && o != api.Same {
			return nil, &api.Error{
				Code: api.CodeUnavailable, Field: "have", Detail: fmt.Sprintf("what is known of %s here, %s, is older than what the reader holds", q.Origin, own),
				Remedy: "keep it, and ask another region or " + string(q.Origin) + " itself",
			}
		}
	}
	return r, nil
}
