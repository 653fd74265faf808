package replica

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// Signed is an origin's signature in a frame. What it is of follows from the frame and the last
// hello, see Statement; only the reader for whom the rows were chosen must be named, because a
// relay passes on the rows that were chosen for it.
type Signed struct {
	Reader api.Region `json:"reader"`
	// Seal is that of all rows, in place of the digest, which nobody who may lie is held to.
	Seal []byte `json:"seal"`
	Sig  []byte `json:"sig"`
}

// Fits reports whether the signature is of these rows.
func (s *Signed) Fits(t *Table) bool {
	if s == nil {
		return false
	}
	seal := t.Seal()
	return bytes.Equal(s.Seal, seal[:])
}

// Statement is what an origin signs: that these are its rows at a version, as it chose them for
// a reader, and what it says of itself. A relay passes it on unchanged; whoever gets rows from
// a relay shows them only when they add up to a digest that the origin signed.
type Statement struct {
	Version api.Version
	Digest  summary.Digest
	Seal    []byte // of all rows
	Reader  api.Region
	// Drained is what the origin wishes about itself, in percent.
	Drained   float64
	Complete  bool
	Term      uint64
	Addresses []string

	Sig   []byte
	Chain [][]byte // certificates in DER, the origin's first
}

// statementContext keeps the signature from meaning anything in another protocol that uses the
// same key.
const statementContext = "nearside federation statement v1\x00"

// Bytes returns what is signed. Every part has its length before it, or a fixed one.
func (s *Statement) Bytes() []byte {
	b := []byte(statementContext)
	text := func(t string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(t)))
		b = append(b, t...)
	}
	text(string(s.Version.Region))
	text(string(s.Reader))
	b = binary.BigEndian.AppendUint64(b, s.Version.Epoch.Generation)
	b = binary.BigEndian.AppendUint64(b, s.Version.Epoch.Nonce)
	b = binary.BigEndian.AppendUint64(b, s.Version.Revision)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Digest))
	text(string(s.Seal))
	b = binary.BigEndian.AppendUint64(b, s.Term)
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(s.Drained))
	if s.Complete {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Addresses)))
	for _, a := range s.Addresses {
		text(a)
	}
	return b
}

// Like reports whether s and t say the same of their origin, whatever version they are of.
func (s *Statement) Like(t *Statement) bool {
	return s.Complete == t.Complete && s.Term == t.Term && slices.Equal(s.Addresses, t.Addresses) &&
		slices.EqualFunc(s.Chain, t.Chain, bytes.Equal)
}

// statementOf returns what a hello says of its origin.
func statementOf(hello Frame) Statement {
	return Statement{
		Version: api.Version{Region: hello.Region}, Complete: hello.Complete, Term: hello.Term, Addresses: hello.Addresses, Chain: hello.Chain,
	}
}

// State completes what the last hello of a stream said by what a frame of it says. ok is
// false when the frame makes no statement: it is a part of something larger, or not signed.
func State(hello, f Frame) (s Statement, ok bool) {
	s = statementOf(hello)
	ok = s.complete(f)
	return s, ok
}

func (s *Statement) complete(f Frame) bool {
	at := f.To
	switch f.Kind {
	case Hello:
		at = f.Head
	case Delta:
		if f.More {
			return false
		}
	case SnapshotEnd, Heartbeat:
	default:
		return false
	}
	if f.Signed == nil {
		return false
	}
	s.Version.Epoch, s.Version.Revision, s.Digest = f.Epoch, at, f.Digest
	s.Reader, s.Seal, s.Sig, s.Drained = f.Signed.Reader, f.Signed.Seal, f.Signed.Sig, f.Drained
	return true
}

// Seals reports whether a frame says where all rows stand, so that from a relay it needs the
// origin's signature.
func Seals(f Frame) bool {
	switch f.Kind {
	case Hello, SnapshotEnd, Heartbeat:
		return true
	case Delta:
		return !f.More
	}
	return false
}

// sealed keeps the statement of a frame that led to the version that is held.
func (r *Replica) sealed(f Frame) {
	s := r.says
	if !s.complete(f) {
		r.statement = nil
		return
	}
	s.Addresses = slices.Clone(s.Addresses)
	r.statement = &s
}
