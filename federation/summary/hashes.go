package summary

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

// Hashes lists rows by their hashes alone. Its text form is base64 of 8 bytes each.
type Hashes []Hash

// MarshalText writes the text form.
func (h Hashes) MarshalText() ([]byte, error) {
	return base64.RawStdEncoding.AppendEncode(nil, h.append(make([]byte, 0, len(h)*8))), nil
}

// UnmarshalText reads the text form.
func (h *Hashes) UnmarshalText(b []byte) error {
	raw, err := base64.RawStdEncoding.DecodeString(string(b))
	if err != nil || len(raw)%8 != 0 {
		return errors.New("hashes of rows are 8 bytes each, in base64")
	}
	*h = readHashes(raw)
	return nil
}

func (h Hashes) append(b []byte) []byte {
	for _, x := range h {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	return b
}

func readHashes(raw []byte) Hashes {
	h := make(Hashes, len(raw)/8)
	for i := range h {
		h[i] = Hash(binary.LittleEndian.Uint64(raw[i*8:]))
	}
	return h
}

// Holding is what a reader has in the buckets in which it differs from its origin: the hash of
// each row. It is 8 bytes a row where the row itself is some hundreds.
type Holding struct {
	Set  *BucketSet
	Rows Hashes
}

// holdingHead is the number of buckets, as 32 bits.
const holdingHead = 4

// MaxHoldingBytes returns the length of the written form of a Holding of so many rows.
func MaxHoldingBytes(rows int) int { return holdingHead + MaxBuckets/8 + rows*8 }

// Bytes returns the written form: the number of buckets, a bit for each, and the hashes, little
// endian.
func (h *Holding) Bytes() []byte {
	out := make([]byte, 0, holdingHead+len(h.Set.bits)+len(h.Rows)*8)
	out = binary.LittleEndian.AppendUint32(out, uint32(h.Set.Of()))
	return h.Rows.append(append(out, h.Set.bits...))
}

// ReadHolding reads the written form.
func ReadHolding(b []byte) (*Holding, error) {
	if len(b) < holdingHead {
		return nil, fmt.Errorf("the hashes of rows begin with %d bytes, these are %d", holdingHead, len(b))
	}
	n := binary.LittleEndian.Uint32(b)
	if n > MaxBuckets || !validBuckets(int(n)) {
		return nil, fmt.Errorf("%d is not a number of buckets; %d to %d are, in powers of two", n, Buckets, MaxBuckets)
	}
	b = b[holdingHead:]
	if len(b) < int(n/8) || (len(b)-int(n/8))%8 != 0 {
		return nil, fmt.Errorf("the hashes of rows in %d buckets take %d bytes and 8 for each row, these are %d", n, n/8, len(b))
	}
	set := NewBucketSet(int(n))
	copy(set.bits, b)
	return &Holding{Set: set, Rows: readHashes(b[n/8:])}, nil
}
