package peer

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/federation/replica"
)

// encoding is the one compression of streams. Every frame is flushed, so that it delays nothing,
// and a frame is compressed with what came before it on the stream: rows look alike.
const encoding = "zstd"

// Bounds of a compressed stream.
const (
	// window is how far back a frame may refer, and what one stream costs in memory on either
	// side; a reader refuses more than maxWindow.
	window    = 256 << 10
	maxWindow = 1 << 20
	// maxRatio and ratioSlack bound what the bytes of a stream may become: rows of a region
	// shrink to a fifth, the most regular ones of tests to a fiftieth. A few bytes that become
	// gigabytes are an attack on the reader.
	maxRatio   = 250
	ratioSlack = 2 * replica.MaxFrameBytes
)

// acceptsZstd reports whether the reader takes a compressed stream.
func acceptsZstd(h http.Header) bool {
	for _, line := range h.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(line, ",") {
			name, rest, _ := strings.Cut(part, ";")
			if strings.TrimSpace(name) == encoding && strings.ReplaceAll(rest, " ", "") != "q=0" {
				return true
			}
		}
	}
	return false
}

// counting passes bytes on and counts them.
type counting struct {
	out io.Writer
	n   int
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	c.n += n
	return n, err
}

// encoders are kept for the next stream: making one costs more than a small frame.
var encoders = sync.Pool{New: func() any {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(window), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err) // the options are constants
	}
	return enc
}}

// squeezer compresses the frames of one stream.
type squeezer struct{ enc *zstd.Encoder }

func newSqueezer(out io.Writer) *squeezer {
	enc := encoders.Get().(*zstd.Encoder)
	enc.Reset(out)
	return &squeezer{enc}
}

func (s *squeezer) write(line []byte) error {
	if _, err := s.enc.Write(line); err != nil {
		return err
	}
	return s.enc.Flush()
}

// free gives the encoder back; nothing is written any more.
func (s *squeezer) free() {
	s.enc.Reset(nil)
	encoders.Put(s.enc)
}

// unsqueezed reads a compressed stream within bounds. watched counts what comes in.
type unsqueezed struct {
	dec  *zstd.Decoder
	wire *watched
	out  int64
}

func newUnsqueezed(wire *watched) (*unsqueezed, error) {
	dec, err := zstd.NewReader(wire, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	return &unsqueezed{dec: dec, wire: wire}, nil
}

func (u *unsqueezed) Read(p []byte) (int, error) {
	n, err := u.dec.Read(p)
	if u.out += int64(n); u.out > ratioSlack+maxRatio*u.wire.read {
		return 0, fmt.Errorf("%w: %d bytes became %d, over %d times as many", replica.ErrMalformed, u.wire.read, u.out, maxRatio)
	}
	switch {
	case err == nil, errors.Is(err, io.EOF):
	case u.wire.err == nil: // what arrived is not what was agreed on
		err = fmt.Errorf("%w: %w", replica.ErrMalformed, err)
	case u.wire.err == io.EOF && errors.Is(err, io.ErrUnexpectedEOF):
		err = io.EOF // a stream that ends is not closed by the compressor
	}
	return n, err
}

// Close frees the decoder. It must not be called during a Read.
func (u *unsqueezed) Close() { u.dec.Close() }
