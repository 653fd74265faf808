package summary

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"github.com/nearside/nearside/sdk/api"
)

// Buckets is how many parts the rows of an origin are divided into, by the hash of their
// keys. Two sides that compare one digest per bucket know where they differ, in 8 KiB.
const Buckets = 1024

// A large set is divided more finely, by the same hash: the number of parts is Buckets times a
// power of two, MaxBuckets (128 KiB of digests) at most, so that a bucket has about ten rows.
const (
	MaxBuckets  = 16 * Buckets
	rowsPerPart = 16
)

// FineBuckets returns into how many parts a set of rows is best divided.
func FineBuckets(rows int) int {
	n := Buckets
	for n < MaxBuckets && rows > n*rowsPerPart {
		n *= 2
	}
	return n
}

// BucketOf returns the bucket of a row, 0 to Buckets-1. It is part of the protocol.
func BucketOf(k api.ServiceKey) int { return bucketOf(k, Buckets) }

func bucketOf(k api.ServiceKey, n int) int {
	b := make([]byte, 0, 128)
	b = append(append(append(b, k.Namespace...), '/'), k.Service...)
	return int(xxhash.Sum64(b) % uint64(n))
}

// SumsBytes is the length of the written form of the coarsest Sums.
const SumsBytes = Buckets * 8

// validBuckets reports whether n is a number of parts that the protocol knows.
func validBuckets(n int) bool {
	return n >= Buckets && n <= MaxBuckets && bits.OnesCount(uint(n)) == 1
}

// Sums holds the digest of each of its buckets: Buckets of them, or more in a large set.
type Sums []Digest

// NewSums returns the digests of n empty buckets; n comes from FineBuckets, or from other Sums.
func NewSums(n int) Sums { return make(Sums, n) }

// Add counts a row in.
func (s Sums) Add(k api.ServiceKey, h Hash) {
	b := bucketOf(k, len(s))
	s[b] = s[b].Add(h)
}

// Fold returns the digests of the coarsest buckets, for a side that knows no others.
func (s Sums) Fold() Sums {
	out := NewSums(Buckets)
	for i, d := range s {
		out[i%Buckets] += d
	}
	return out
}

// Total returns the digest of all rows.
func (s Sums) Total() Digest {
	var d Digest
	for _, b := range s {
		d += b
	}
	return d
}

// Bytes returns the written form: the digests in order, little endian.
func (s Sums) Bytes() []byte {
	out := make([]byte, 0, len(s)*8)
	for _, d := range s {
		out = binary.LittleEndian.AppendUint64(out, uint64(d))
	}
	return out
}

// ReadSums reads the written form.
func ReadSums(b []byte) (Sums, error) {
	if len(b)%8 != 0 || !validBuckets(len(b)/8) {
		return nil, fmt.Errorf("the digests of %d buckets take %d bytes, and of up to %d twice as many each time; these are %d",
			Buckets, SumsBytes, MaxBuckets, len(b))
	}
	s := make(Sums, len(b)/8)
	for i := range s {
		s[i] = Digest(binary.LittleEndian.Uint64(b[i*8:]))
	}
	return s, nil
}

// Differ returns the buckets in which s and t, of the same length, differ.
func (s Sums) Differ(t Sums) *BucketSet {
	out := NewBucketSet(len(s))
	for i := range s {
		if s[i] != t[i] {
			out.add(i)
		}
	}
	return out
}

// BucketSet is a set of buckets. Its text form is base64 of one bit per bucket. A nil set has
// all buckets.
type BucketSet struct{ bits []byte }

// NewBucketSet returns an empty set of n buckets.
func NewBucketSet(n int) *BucketSet { return &BucketSet{make([]byte, n/8)} }

// Of returns how many buckets there are, in the set or not.
func (s *BucketSet) Of() int {
	if s == nil {
		return Buckets
	}
	return len(s.bits) * 8
}

func (s *BucketSet) add(b int) { s.bits[b/8] |= 1 << (b % 8) }

// Add puts the bucket of a row into the set.
func (s *BucketSet) Add(k api.ServiceKey) { s.add(bucketOf(k, s.Of())) }

// AddNumber puts bucket b into the set.
func (s *BucketSet) AddNumber(b int) { s.add(b) }

// Holds reports whether the bucket of a row is in the set.
func (s *BucketSet) Holds(k api.ServiceKey) bool {
	return s == nil || len(s.bits) > 0 && s.Has(bucketOf(k, s.Of()))
}

// Has reports whether bucket b is in the set.
func (s *BucketSet) Has(b int) bool { return s == nil || s.bits[b/8]&(1<<(b%8)) != 0 }

// Len returns how many buckets are in the set.
func (s *BucketSet) Len() int {
	if s == nil {
		return Buckets
	}
	n := 0
	for _, b := range s.bits {
		n += bits.OnesCount8(b)
	}
	return n
}

// MarshalText writes the text form.
func (s *BucketSet) MarshalText() ([]byte, error) {
	return base64.RawStdEncoding.AppendEncode(nil, s.bits), nil
}

// UnmarshalText reads the text form.
func (s *BucketSet) UnmarshalText(b []byte) error {
	raw, err := base64.RawStdEncoding.DecodeString(string(b))
	if err != nil || !validBuckets(len(raw)*8) {
		return fmt.Errorf("a set of buckets is %d bytes in base64, or a power of two of that up to %d", Buckets/8, MaxBuckets/8)
	}
	s.bits = raw
	return nil
}
