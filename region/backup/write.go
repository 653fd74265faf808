package backup

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/region/store"
	"github.com/nearside/nearside/sdk/api"
)

// Format is the newest form of the file, and the only one so far.
const Format = 1

// MediaType of the file.
const MediaType = "application/vnd.nearside.snapshot"

const (
	magic      = "nearside-backup\n"
	maxHeader  = 64 << 10
	maxChunk   = 1 << 20
	windowSize = 1 << 20
	maxValue   = 2 << 20 // bytes of a record; etcd takes 1.5 MiB in a request
	maxRecords = 8 << 30 // bytes of all records, as much as a store may hold: a small file could unpack to far more
)

// ErrDamaged: the file is not a backup, not whole, or not as it was written.
var ErrDamaged = errors.New("not a whole backup")

// Header says what a backup is of.
type Header struct {
	Format   int        `json:"format"`
	Region   api.Region `json:"region"`
	Epoch    api.Epoch  `json:"epoch"`
	Revision uint64     `json:"revision"`
	Records  int        `json:"records"`
	Created  time.Time  `json:"created"`
	Node     string     `json:"node,omitempty"` // that it was saved by
}

// Write writes the image as the backup of region, as of created.
func Write(w io.Writer, region api.Region, node string, created time.Time, img store.Image) error {
	head, err := json.Marshal(Header{
		Format: Format, Region: region, Epoch: img.Epoch, Revision: img.Revision, Records: len(img.Records),
		Created: created.UTC().Truncate(time.Millisecond), Node: node,
	})
	if err != nil {
		return err
	}
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	if _, err := io.WriteString(out, magic); err != nil {
		return err
	}
	if err := writeBlock(out, head); err != nil {
		return err
	}
	chunks := bufio.NewWriterSize(chunkWriter{out}, maxChunk)
	z, err := zstd.NewWriter(chunks, zstd.WithWindowSize(windowSize), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if err := errors.Join(writeRecords(z, img.Records), z.Close()); err != nil {
		return err
	}
	if err := chunks.Flush(); err != nil {
		return err
	}
	if err := writeBlock(out, nil); err != nil {
		return err
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

func writeRecords(z io.Writer, records []store.Record) error {
	w := bufio.NewWriterSize(z, 64<<10)
	var b []byte
	for i, r := range records {
		if err := checkKey(r.Key, i, records); err != nil {
			return err
		}
		b = binary.AppendUvarint(b[:0], uint64(len(r.Key)))
		b = append(b, r.Key...)
		b = binary.AppendUvarint(b, r.Revision)
		b = binary.AppendUvarint(b, uint64(len(r.Value)))
		if _, err := w.Write(b); err != nil {
			return err
		}
		if _, err := w.Write(r.Value); err != nil {
			return err
		}
	}
	b = binary.AppendUvarint(b[:0], 0)
	b = binary.AppendUvarint(b, uint64(len(records)))
	_, err := w.Write(b)
	return errors.Join(err, w.Flush())
}

// checkKey keeps what Read would refuse from being written.
func checkKey(key string, i int, records []store.Record) error {
	if len(key) == 0 || len(key) > store.MaxKey || len(records[i].Value) > maxValue || i > 0 && records[i-1].Key >= key {
		return fmt.Errorf("record %s cannot be saved: key of %d bytes, value of %d, or out of order", api.Quote(key), len(key), len(records[i].Value))
	}
	return nil
}

// chunkWriter makes a block of every write; its writer is a buffer of maxChunk.
type chunkWriter struct{ w io.Writer }

func (c chunkWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxChunk)
		if err := writeBlock(c.w, rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

func writeBlock(w io.Writer, p []byte) error {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(p)))
	if _, err := w.Write(n[:]); err != nil {
		return err
	}
	if len(p) == 0 {
		return nil
	}
	_, err := w.Write(p)
	return err
}
