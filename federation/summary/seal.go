package summary

import (
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
)

// Sum is the SHA-256 of something that is signed.
type Sum [sha256.Size]byte

// SumOf returns that of a row's bytes.
func SumOf(body []byte) Sum { return sha256.Sum256(body) }

// Seal stands for a set of rows as a Digest does, but nobody can make up another set with the same
// one: it is what an origin signs. It is a lattice hash (LtHash16): each row is stretched to
// 1,024 numbers of 16 bits, and a set is their sum, so that a change costs a row and not the
// set. A Digest finds mistakes at a tenth of the price; whoever may lie makes one fit at will.
type Seal [1024]uint16

// Add counts a row in.
func (s *Seal) Add(row Sum) {
	for i, x := range stretch(row) {
		s[i] += x
	}
}

// Remove takes a row out that was counted in.
func (s *Seal) Remove(row Sum) {
	for i, x := range stretch(row) {
		s[i] -= x
	}
}

func stretch(row Sum) (out Seal) {
	b := sha3.SumSHAKE128(row[:], 2*len(out))
	for i := range out {
		out[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return out
}

// Sum returns what is signed of the set.
func (s *Seal) Sum() Sum {
	b := make([]byte, 0, 2*len(s))
	for _, x := range s {
		b = binary.LittleEndian.AppendUint16(b, x)
	}
	return sha256.Sum256(b)
}
