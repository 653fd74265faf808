// Package forge makes rows that have the hash of another one, which takes microseconds: what a relay
// that lies can do, and what the seal of an origin's rows is held against. Tests only.
package forge

import (
	"encoding/binary"
	"math/bits"

	"github.com/nearside/nearside/federation/summary"
)

// The primes of xxhash64.
const (
	p1 = 11400714785074694791
	p2 = 14029467366897019727
	p3 = 1609587929392839161
	p4 = 9650029242287828579
	p5 = 2870177450012600261
)

// Row returns evil, a row's body, with one more field, which makes its hash that of good. False when none of
// the fields that were tried is plain text.
func Row(good, evil []byte) ([]byte, bool) {
	want := uint64(summary.HashOf(good))
	start := append(append([]byte{}, evil[:len(evil)-1]...), `,"x":"`...)
	for i := range 1_000_000 {
		prefix := append([]byte{}, start...)
		for n := i; n > 0; n /= 26 {
			prefix = append(prefix, byte('a'+n%26))
		}
		// Eight whole bytes and the end of the object are to be all of the last stripe but whole words.
		for len(prefix)%8 != 0 || len(prefix)%32 > 16 {
			prefix = append(prefix, 'z')
		}
		if out := solve(prefix, []byte(`"}`), want); plain(out[len(prefix) : len(prefix)+8]) {
			return out, summary.HashOf(out) == summary.Hash(want)
		}
	}
	return nil, false
}

func plain(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

// solve puts eight bytes between prefix and tail so that all of it has the hash want: each step of xxhash64
// behind the stripes can be undone.
func solve(prefix, tail []byte, want uint64) []byte {
	back := unshift(want, 32)
	back = unshift(back*inverse(p3), 29)
	back = unshift(back*inverse(p2), 33)
	for i := len(tail) - 1; i >= 0; i-- {
		back = bits.RotateLeft64(back*inverse(p1), -11) ^ uint64(tail[i])*p5
	}
	h := forward(prefix, uint64(len(prefix)+8+len(tail)))
	x := bits.RotateLeft64((back-p4)*inverse(p1), -27) ^ h
	x = bits.RotateLeft64(x*inverse(p1), -31) * inverse(p2)
	return append(binary.LittleEndian.AppendUint64(append([]byte{}, prefix...), x), tail...)
}

// forward is xxhash64 of at least one stripe and whole words, up to where the next word comes.
func forward(b []byte, total uint64) uint64 {
	one, two := uint64(p1), uint64(p2)
	v := [4]uint64{one + two, two, 0, -one}
	for ; len(b) >= 32; b = b[32:] {
		for i := range v {
			v[i] = round(v[i], binary.LittleEndian.Uint64(b[8*i:]))
		}
	}
	h := bits.RotateLeft64(v[0], 1) + bits.RotateLeft64(v[1], 7) + bits.RotateLeft64(v[2], 12) + bits.RotateLeft64(v[3], 18)
	for _, x := range v {
		h = (h^round(0, x))*p1 + p4
	}
	h += total
	for ; len(b) >= 8; b = b[8:] {
		h = bits.RotateLeft64(h^round(0, binary.LittleEndian.Uint64(b)), 27)*p1 + p4
	}
	return h
}

func round(acc, in uint64) uint64 { return bits.RotateLeft64(acc+in*p2, 31) * p1 }

// inverse is that of an odd number, modulo 2^64.
func inverse(a uint64) uint64 {
	x := a
	for range 6 {
		x *= 2 - a*x
	}
	return x
}

// unshift undoes x ^ x>>s.
func unshift(h uint64, s uint) uint64 {
	x := h
	for range 64 / s {
		x = h ^ x>>s
	}
	return x
}
