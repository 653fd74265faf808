package disk

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/sdk/internal/view"
)

const (
	magic     = "NEARSNAP"
	format    = 1
	headerLen = len(magic) + 4 + 4 + 8 + 8

	// signed is the flag of a file that ends with a MAC.
	signed = 1
	macLen = sha256.Size
)

// Encode returns the file's bytes: at most limit of them (0 = MaxFile), signed if there is a
// key. What Decode would refuse is not encoded.
func Encode(img *view.Image, key []byte, limit int) ([]byte, error) {
	if limit <= 0 || limit > MaxFile {
		limit = MaxFile
	}
	plain, err := json.Marshal(img)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if len(plain) > MaxPlain {
		return nil, fmt.Errorf("%d bytes unpacked, %d allowed: %w", len(plain), MaxPlain, ErrTooLarge)
	}
	if !plausible(plain) {
		return nil, fmt.Errorf("more objects or values than would be read from %d bytes: %w", len(plain), ErrTooLarge)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	defer func() { _ = enc.Close() }()
	b := make([]byte, headerLen, headerLen+len(plain)/2+macLen)
	b = enc.EncodeAll(plain, b)
	copy(b, magic)
	payload := b[headerLen:]
	h := b[len(magic):]
	binary.LittleEndian.PutUint32(h, format)
	binary.LittleEndian.PutUint64(h[8:], uint64(len(payload)))
	binary.LittleEndian.PutUint64(h[16:], xxhash.Sum64(payload))
	if len(key) > 0 {
		binary.LittleEndian.PutUint32(h[4:], signed)
		b = append(b, mac(b, key)...)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("%d bytes, %d allowed: %w", len(b), limit, ErrTooLarge)
	}
	return b, nil
}

func mac(b, key []byte) []byte {
	m := hmac.New(sha256.New, key)
	_, _ = m.Write(b)
	return m.Sum(nil)
}

// Decode reads the file's bytes. With a key, only what was signed with it is read; without one
// a signature says nothing. Every error has ErrDamaged in its chain; what is returned without
// one is well formed in every field.
func Decode(b, key []byte) (*view.Image, error) {
	payload, err := unwrap(b, key)
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxPlain), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(payload, nil)
	if err != nil {
		return nil, fmt.Errorf("unpacking: %w: %w", err, ErrDamaged)
	}
	if !plausible(plain) {
		return nil, fmt.Errorf("it has more objects than a snapshot of its size: %w", ErrDamaged)
	}
	img := &view.Image{}
	if err := json.Unmarshal(plain, img); err != nil {
		return nil, fmt.Errorf("reading: %w: %w", err, ErrDamaged)
	}
	clean(img)
	img.Stamp()
	return img, nil
}

// unwrap checks all that is around the payload.
func unwrap(b, key []byte) ([]byte, error) {
	if len(b) > MaxFile {
		return nil, fmt.Errorf("over %d bytes: %w", MaxFile, ErrDamaged)
	}
	if len(b) < headerLen || string(b[:len(magic)]) != magic {
		return nil, fmt.Errorf("not a nearside snapshot: %w", ErrDamaged)
	}
	h, payload := b[len(magic):headerLen], b[headerLen:]
	if v := binary.LittleEndian.Uint32(h); v != format {
		return nil, fmt.Errorf("format %d is not known: %w", v, ErrDamaged)
	}
	switch flags := binary.LittleEndian.Uint32(h[4:]); flags {
	case 0:
		if len(key) > 0 {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, ErrNotSigned)
		}
	case signed:
		at := len(b) - macLen
		if at < headerLen {
			return nil, fmt.Errorf("the signature is missing: %w", ErrDamaged)
		}
		if len(key) > 0 && !hmac.Equal(b[at:], mac(b[:at], key)) {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, ErrNotSigned)
		}
		payload = b[headerLen:at]
	default:
		return nil, fmt.Errorf("flags %#x are not known: %w", flags, ErrDamaged)
	}
	if n := binary.LittleEndian.Uint64(h[8:]); n != uint64(len(payload)) {
		return nil, fmt.Errorf("%d bytes of %d: %w", len(payload), n, ErrDamaged)
	}
	if binary.LittleEndian.Uint64(h[16:]) != xxhash.Sum64(payload) {
		return nil, fmt.Errorf("the checksum is wrong: %w", ErrDamaged)
	}
	return payload, nil
}

// plausible keeps files out that are small and become large in memory: millions of empty
// objects or strings. What is written here has a hundred bytes per object, and ten per value.
// What stands in strings is the programs' own, and becomes no larger.
func plausible(plain []byte) bool {
	const some = 1 << 12
	objects, values := 0, 0
	for i := 0; i < len(plain); i++ {
		switch plain[i] {
		case '{':
			objects++
		case ',':
			values++
		case '"':
			for i++; i < len(plain) && plain[i] != '"'; i++ {
				if plain[i] == '\\' {
					i++
				}
			}
		}
	}
	return objects <= some+len(plain)/32 && values <= some+len(plain)/4
}
