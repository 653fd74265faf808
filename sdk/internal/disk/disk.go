// Package disk keeps the SDK's snapshot: what a client knew, in one file that is either
// whole or not used.
//
// A file is a header (magic, format, length, xxhash of the payload) and a payload (JSON,
// zstd). It is written beside and renamed into place, and the generation before it is
// kept, so that at any moment at least one whole file is there (a kill during a write, row
// 38 of the failure catalogue). What is read is checked field by field: the directory may
// be shared, and a file there is no more trusted than the network (row 39).
package disk

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/sdk/internal/view"
)

const (
	magic     = "NEARSNAP"
	format    = 1
	headerLen = len(magic) + 4 + 4 + 8 + 8

	// MaxFile bounds the file, MaxPlain what it unpacks to: enough for 256 services of
	// three regions with all their metadata, and no bomb.
	MaxFile  = 32 << 20
	MaxPlain = 128 << 20

	prevSuffix = ".prev"
)

// ErrDamaged is in the chain of every error about a file that is there but not whole or
// not ours.
var ErrDamaged = errors.New("the snapshot is damaged")

// File is a snapshot on disk. It is not safe for concurrent use; other processes may
// write the same file (the last one wins, never a mix).
type File struct {
	path string
	// sound tells that the file in place was read or written whole, so that it is worth
	// keeping as the generation before.
	sound bool
}

// New names the snapshot in dir.
func New(dir, name string) *File { return &File{path: filepath.Join(dir, name)} }

// Path returns where the file is.
func (f *File) Path() string { return f.path }

// Read returns the newest whole generation. The error tells what was wrong with those
// that were not: it may come together with an image (the older generation was used). It
// is fs.ErrNotExist when there is no file at all.
func (f *File) Read() (*view.Image, error) {
	img, err := read(f.path)
	if err == nil {
		f.sound = true
		return img, nil
	}
	prev, prevErr := read(f.path + prevSuffix)
	if prevErr == nil {
		return prev, err
	}
	if errors.Is(err, os.ErrNotExist) && !errors.Is(prevErr, os.ErrNotExist) {
		err = prevErr
	}
	return nil, err
}

func read(path string) (*view.Image, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() { // opening a pipe would wait for ever
		return nil, fmt.Errorf("%s is not a regular file: %w", path, ErrDamaged)
	}
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, err
	}
	img, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return img, nil
}

// Write replaces the file, keeping the one in place as the generation before. The
// directory is created when it is missing.
func (f *File) Write(img *view.Image) error {
	b, err := Encode(img)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return err
	}
	if f.sound {
		keep(f.path, f.path+prevSuffix)
	}
	if err := replace(f.path, b); err != nil {
		return err
	}
	f.sound = true
	return nil
}

// keep makes prev a second name of path, so that path itself is never missing. Where the
// file system has no links the older generation is not renewed.
func keep(path, prev string) {
	tmp := fmt.Sprintf("%s.%d", prev, os.Getpid())
	_ = os.Remove(tmp)
	if os.Link(path, tmp) != nil {
		return
	}
	if os.Rename(tmp, prev) != nil {
		_ = os.Remove(tmp)
	}
	_ = os.Remove(tmp) // rename of two names of the same file leaves both
}

// Encode returns the file's bytes.
func Encode(img *view.Image) ([]byte, error) {
	plain, err := json.Marshal(img)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	defer func() { _ = enc.Close() }()
	b := make([]byte, headerLen, headerLen+len(plain)/2)
	b = enc.EncodeAll(plain, b)
	if len(plain) > MaxPlain || len(b) > MaxFile {
		return nil, fmt.Errorf("snapshot of %d bytes (%d packed) is over the limit", len(plain), len(b))
	}
	copy(b, magic)
	payload := b[headerLen:]
	h := b[len(magic):]
	binary.LittleEndian.PutUint32(h, format)
	binary.LittleEndian.PutUint32(h[4:], 0)
	binary.LittleEndian.PutUint64(h[8:], uint64(len(payload)))
	binary.LittleEndian.PutUint64(h[16:], xxhash.Sum64(payload))
	return b, nil
}

// Decode reads the file's bytes. Every error has ErrDamaged in its chain; what is
// returned without one is well formed in every field.
func Decode(b []byte) (*view.Image, error) {
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
	if n := binary.LittleEndian.Uint64(h[8:]); n != uint64(len(payload)) {
		return nil, fmt.Errorf("%d bytes of %d: %w", len(payload), n, ErrDamaged)
	}
	if binary.LittleEndian.Uint64(h[16:]) != xxhash.Sum64(payload) {
		return nil, fmt.Errorf("the checksum is wrong: %w", ErrDamaged)
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
	img := &view.Image{}
	if err := json.Unmarshal(plain, img); err != nil {
		return nil, fmt.Errorf("reading: %w: %w", err, ErrDamaged)
	}
	clean(img)
	return img, nil
}
