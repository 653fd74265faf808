// Package disk keeps the SDK's snapshot: what a client knew, in one file that is either
// whole or not used.
//
// A file is a header (magic, format, flags, length, xxhash of the payload), a payload (JSON,
// zstd) and, with a key, an HMAC-SHA256 over all of it. It is written beside and renamed into
// place, and the generation before it is kept, so that at any moment at least one whole file
// is there (a kill during a write, row 38 of the failure catalogue). What is read is checked
// field by field: the directory may be shared, and without a key a file there is no more
// trusted than the network (row 39).
package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nearside/nearside/sdk/internal/view"
)

const (
	// MaxFile bounds the file, MaxPlain what it unpacks to: enough for thousands of services of
	// three regions, and no bomb.
	MaxFile  = 32 << 20
	MaxPlain = 64 << 20

	prevSuffix = ".prev"
	// leftFor is the age from which on a file that a killed program left is taken away.
	leftFor = 10 * time.Minute
)

var (
	// ErrDamaged is in the chain of every error about a file that is there but not whole or
	// not ours.
	ErrDamaged = errors.New("the snapshot is damaged")

	// ErrNotSigned means that the file was not signed with the key.
	ErrNotSigned = errors.New("it is not signed with the key in use: made by another program, changed since, or written before the key was set; it is not used, and the next one replaces it")

	// ErrTooLarge means that an image does not fit into the limit.
	ErrTooLarge = errors.New("the snapshot is over its limit")
)

// File is a snapshot on disk. It is not safe for concurrent use; other processes may
// write the same file (the last one wins, never a mix).
type File struct {
	// Key signs the file; empty = unsigned files are written, and any are read.
	Key []byte
	// Max bounds the file written, in bytes; 0 = MaxFile, which is the most.
	Max int

	path string
	// sound tells that the file in place was read or written whole, so that it is worth
	// keeping as the generation before.
	sound bool
	swept bool
}

// New names the snapshot in dir.
func New(dir, name string) *File { return &File{path: filepath.Join(dir, name)} }

// Path returns where the file is.
func (f *File) Path() string { return f.path }

// Read returns the newest whole generation. The error tells what was wrong with those
// that were not: it may come together with an image (the older generation was used). It
// is fs.ErrNotExist when there is no file at all.
func (f *File) Read() (*view.Image, error) {
	img, err := f.read(f.path)
	if err == nil {
		f.sound = true
		return img, nil
	}
	prev, prevErr := f.read(f.path + prevSuffix)
	if prevErr == nil {
		return prev, err
	}
	if errors.Is(err, os.ErrNotExist) && !errors.Is(prevErr, os.ErrNotExist) {
		err = prevErr
	}
	return nil, err
}

func (f *File) read(path string) (*view.Image, error) {
	r, err := open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	st, err := r.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: %w", path, ErrDamaged)
	}
	if st.Size() > MaxFile {
		return nil, fmt.Errorf("%s has over %d bytes: %w", path, MaxFile, ErrDamaged)
	}
	b, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, err
	}
	img, err := Decode(b, f.Key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return img, nil
}

// Write replaces the file, keeping the one in place as the generation before. The
// directory is created when it is missing. An image that is over the limit is ErrTooLarge,
// and changes nothing.
func (f *File) Write(img *view.Image) error {
	b, err := Encode(img, f.Key, f.Max)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return err
	}
	if !f.swept {
		f.swept = true
		f.sweep(time.Now())
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

// sweep takes away what programs left that were killed while they wrote (P8): a program that
// is killed again and again would fill the disk.
func (f *File) sweep(now time.Time) {
	dir, base := filepath.Split(f.path)
	for _, pattern := range []string{"." + base + "[0-9]*", base + prevSuffix + ".[0-9]*"} {
		list, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, path := range list {
			if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && now.Sub(st.ModTime()) > leftFor {
				_ = os.Remove(path)
			}
		}
	}
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
