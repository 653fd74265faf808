package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/region/catalog"
	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// Read reads a backup and calls each for every record, in key order. The records mean
// nothing until Read has returned nil, for only then the checksum has been seen: to act on
// them read twice. Errors but each's own and r's wrap ErrDamaged. It needs a few MiB of memory
// whatever the file says.
func Read(r io.Reader, each func(store.Record) error) (Header, error) {
	in := &reader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	h, err := in.header()
	if err != nil {
		return Header{}, err
	}
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8*windowSize), zstd.WithDecoderLowmem(true))
	if err != nil {
		return h, err
	}
	defer z.Close()
	n, err := readRecords(bufio.NewReaderSize(z, 64<<10), maxRecords, each)
	switch {
	case err != nil:
		return h, in.cause(err)
	case n != h.Records:
		return h, fmt.Errorf("%w: it holds %d records and says %d", ErrDamaged, n, h.Records)
	}
	return h, in.finish()
}

// reader reads the file and is the reader of what its chunks hold.
type reader struct {
	r     *bufio.Reader
	sum   hash.Hash
	left  int  // bytes of the chunk
	ended bool // the last chunk was seen
	err   error
}

func (in *reader) full(p []byte) error {
	if _, err := io.ReadFull(in.r, p); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: it ends early", ErrDamaged)
		}
		return err
	}
	in.sum.Write(p)
	return nil
}

func (in *reader) length(most int) (int, error) {
	var b [4]byte
	if err := in.full(b[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(b[:])
	if n > uint32(most) {
		return 0, fmt.Errorf("%w: a part of %d bytes, at most %d are possible", ErrDamaged, n, most)
	}
	return int(n), nil
}

func (in *reader) header() (Header, error) {
	start := make([]byte, len(magic))
	if err := in.full(start); err != nil {
		return Header{}, err
	}
	if string(start) != magic {
		return Header{}, fmt.Errorf("%w: it begins with something else", ErrDamaged)
	}
	n, err := in.length(maxHeader)
	if err != nil {
		return Header{}, err
	}
	text := make([]byte, n)
	if err := in.full(text); err != nil {
		return Header{}, err
	}
	var h Header
	if err := json.Unmarshal(text, &h); err != nil {
		return Header{}, fmt.Errorf("%w: its header: %v", ErrDamaged, err)
	}
	if h.Format != Format {
		return Header{}, fmt.Errorf("%w: it has form %d, this version reads form %d", ErrDamaged, h.Format, Format)
	}
	if api.CheckRegion(string(h.Region)) != nil || h.Epoch.IsZero() || h.Records < 0 {
		return Header{}, fmt.Errorf("%w: its header names no region, no epoch, or no number of records", ErrDamaged)
	}
	return h, nil
}

// Read implements io.Reader for the chunks' content.
func (in *reader) Read(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	for in.left == 0 && !in.ended {
		if in.left, in.err = in.length(maxChunk); in.err != nil {
			return 0, in.err
		}
		in.ended = in.left == 0
	}
	if in.ended {
		return 0, io.EOF
	}
	p = p[:min(len(p), in.left)]
	n, err := in.r.Read(p)
	in.sum.Write(p[:n])
	in.left -= n
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: it ends early", ErrDamaged)
	}
	in.err = err
	return n, err
}

// cause prefers the file's own end over what the decoders above made of it.
func (in *reader) cause(err error) error {
	if in.err != nil {
		return in.err
	}
	return err
}

// finish checks what follows the records.
func (in *reader) finish() error {
	if rest, err := io.Copy(io.Discard, in); err != nil {
		return err
	} else if rest > 0 {
		return fmt.Errorf("%w: something follows its records", ErrDamaged)
	}
	want := in.sum.Sum(nil)
	got := make([]byte, sha256.Size)
	if err := in.full(got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: its checksum is another", ErrDamaged)
	}
	switch _, err := in.r.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// readRecords reads the unpacked stream to its end; its records have most bytes at most.
func readRecords(r *bufio.Reader, most uint64, each func(store.Record) error) (int, error) {
	count, last, total := 0, "", uint64(0)
	for {
		size, err := uvarint(r, store.MaxKey)
		if err != nil {
			return count, err
		}
		if size == 0 {
			break
		}
		key := make([]byte, size)
		if err := packed(r, key); err != nil {
			return count, err
		}
		rec := store.Record{Key: string(key)}
		if rec.Key <= last {
			return count, fmt.Errorf("%w: its records are out of order", ErrDamaged)
		}
		last = rec.Key
		if rec.Revision, err = uvarint(r, ^uint64(0)); err != nil {
			return count, err
		}
		if size, err = uvarint(r, maxValue); err != nil {
			return count, err
		}
		if total += uint64(len(key)) + size; total > most {
			return count, fmt.Errorf("%w: its records have more than %d bytes, and no store holds so much", ErrDamaged, most)
		}
		rec.Value = make([]byte, size)
		if err := packed(r, rec.Value); err != nil {
			return count, err
		}
		count++
		if err := each(rec); err != nil {
			return count, err
		}
	}
	n, err := uvarint(r, ^uint64(0))
	if err != nil {
		return count, err
	}
	if n != uint64(count) {
		return count, fmt.Errorf("%w: it holds %d records and says %d at its end", ErrDamaged, count, n)
	}
	switch _, err := r.ReadByte(); {
	case err == nil:
		return count, fmt.Errorf("%w: something follows its records", ErrDamaged)
	case !errors.Is(err, io.EOF):
		return count, unpackError(err)
	}
	return count, nil
}

func uvarint(r *bufio.Reader, most uint64) (uint64, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, unpackError(err)
	}
	if n > most {
		return 0, fmt.Errorf("%w: a record with a part of %d bytes", ErrDamaged, n)
	}
	return n, nil
}

func packed(r io.Reader, p []byte) error {
	if _, err := io.ReadFull(r, p); err != nil {
		return unpackError(err)
	}
	return nil
}

func unpackError(err error) error {
	if errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %v", ErrDamaged, err)
}

// Info is what a backup holds. Its JSON form is what `nearside snapshot inspect` prints.
type Info struct {
	Header
	Services  int   `json:"services"`
	Instances int   `json:"instances"`
	Broken    int   `json:"broken"` // records of instances that this version cannot read
	Bytes     int64 `json:"bytes"`  // of the file
}

// Inspect reads a whole backup, checks it, and says what it holds. It keeps no record, only the names
// of the services.
func Inspect(r io.Reader) (Info, error) {
	counter := &countingReader{r: r}
	var info Info
	services := map[api.ServiceKey]struct{}{}
	var some []store.Record // the few that are looked at together
	size := 0
	look := func() {
		part, _, broken := catalog.Load("", store.Image{Records: some})
		for _, key := range part.Services() {
			services[key] = struct{}{}
		}
		_, instances := part.Len()
		info.Instances, info.Broken = info.Instances+instances, info.Broken+len(broken)
		some, size = nil, 0
	}
	h, err := Read(counter, func(rec store.Record) error {
		some, size = append(some, rec), size+len(rec.Value)
		if len(some) == 1000 || size >= 4<<20 {
			look()
		}
		return nil
	})
	if err != nil {
		return Info{}, err
	}
	look()
	info.Header, info.Services, info.Bytes = h, len(services), counter.n
	return info, nil
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
