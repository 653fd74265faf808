package peer_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
)

// A frame is there when it was sent, not when the compressor is full: a heartbeat of an idle
// region arrives as one. Both ends count what went over the wire.
func TestCompressionHoldsNothingBack(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(3, names(500)...)
	server, base := door(t, peer.ServerConfig{Source: src})
	r := newReader(t, base)
	r.open()
	r.reaches(src.Version())
	if r.replica.View().Rows != 500 {
		t.Fatal(r.replica.View().Rows)
	}
	bootstrap := r.bytes
	if bootstrap > 500*664/4 {
		t.Fatalf("%d bytes on the wire for 500 rows", bootstrap)
	}
	src.Set(1, names(1)...)
	r.reaches(src.Version())
	t.Logf("500 rows: %d bytes; one change: %d bytes", bootstrap, r.bytes-bootstrap)
	for r.count(replica.Heartbeat) < 2 {
		r.next()
	}
	for server.BytesOut()["us-east"] < uint64(r.bytes) {
		r.next() // the last frame is counted after it was sent
	}
	if out := server.BytesOut()["us-east"]; out > uint64(r.bytes)+1000 {
		t.Fatalf("sent %d, received %d", out, r.bytes)
	}
}

// A reader that does not ask for compression gets lines that anyone can read.
func TestPlainReadersGetPlainFrames(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(3, "orders")
	_, base := door(t, peer.ServerConfig{Source: src})
	for _, accept := range []string{"", "gzip", "zstd;q=0", "gzip, zstd; q=0"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, base+peer.PathStream+"?proto=1&max_proto=2&reader=us-east", nil)
		req.Header.Set("Accept-Encoding", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 16)
		_, err = io.ReadFull(resp.Body, line)
		_ = resp.Body.Close()
		if err != nil || resp.Header.Get("Content-Encoding") != "" || !bytes.HasPrefix(line, []byte(`{"kind":"hello"`)) {
			t.Fatalf("%q: %v, %q, %q", accept, err, resp.Header.Get("Content-Encoding"), line)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// squeezed compresses with a window.
func squeezed(t *testing.T, window int, parts ...[]byte) []byte {
	var out bytes.Buffer
	enc, err := zstd.NewWriter(&out, zstd.WithWindowSize(window), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if _, err := enc.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// P8: a stream that would fill the reader's memory or time from few bytes is refused, as is one
// that is no compressed stream at all; one that only ends early is not held against the peer.
func TestCompressedStreamIsBounded(t *testing.T) {
	noise := make([]byte, 4<<20)
	for i := range noise {
		noise[i] = 'a' + byte(rand.N(26))
	}
	for name, c := range map[string]struct {
		body     []byte
		encoding string
		wants    error
	}{
		"a long line":       {squeezed(t, 256<<10, bytes.Repeat([]byte("x"), 64<<20)), "zstd", replica.ErrMalformed},
		"empty lines":       {squeezed(t, 256<<10, bytes.Repeat([]byte("\n"), 64<<20)), "zstd", replica.ErrMalformed},
		"a large window":    {squeezed(t, 8<<20, noise, noise), "zstd", replica.ErrMalformed},
		"garbage":           {[]byte(strings.Repeat("garbage", 100)), "zstd", replica.ErrMalformed},
		"half a stream":     {squeezed(t, 256<<10, noise[:1000])[:200], "zstd", peer.ErrEnded},
		"nothing":           {nil, "zstd", peer.ErrEnded},
		"another encoding":  {nil, "br", peer.ErrNotPeer},
		"plain as promised": {nil, "", peer.ErrEnded},
	} {
		t.Run(name, func(t *testing.T) {
			h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", peer.StreamType)
				if c.encoding != "" {
					w.Header().Set("Content-Encoding", c.encoding)
				}
				_, _ = w.Write(c.body)
			}))
			defer h.Close()
			client := peer.NewClient(nil, nil)
			defer client.CloseIdle()
			began := time.Now()
			s, err := client.Open(t.Context(), h.URL, peer.Query{Reader: "us-east", Origin: "eu-west"}, nil)
			if err == nil {
				_, err = s.Next()
				s.Close()
			}
			if !errors.Is(err, c.wants) {
				t.Fatalf("%v, wants %v", err, c.wants)
			}
			t.Logf("%d bytes: %v after %s", len(c.body), err, time.Since(began).Round(time.Millisecond))
		})
	}
}
