package peer_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
)

// P4, failures 16 and 56: a recording of a stream is not taken for the origin, not even by a
// reader that holds nothing: it answers another request. One of the first programs' streams
// has no such mark, and is read.
func TestRecordingIsNotTakenForTheOrigin(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(2, "orders")
	_, base := door(t, peer.ServerConfig{Source: src})
	resp, err := http.Get(base + peer.PathStream + "?proto=1&max_proto=2&reader=us-east&echo=yesterday")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	var tape bytes.Buffer
	for !bytes.Contains(tape.Bytes(), []byte(`"kind":"heartbeat"`)) {
		if _, err := io.CopyN(&tape, resp.Body, 1); err != nil {
			t.Fatal(err)
		}
	}
	resp.Body.Close()
	for name, c := range map[string]struct {
		tape []byte
		ok   bool
	}{
		"recorded": {tape.Bytes(), false},
		"unmarked": {bytes.Replace(tape.Bytes(), []byte(`"echo":"yesterday"`), []byte(`"was":"1"`), 1), true},
	} {
		player := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", peer.StreamType)
			_, _ = w.Write(c.tape)
		}))
		client := peer.NewClient(nil, nil)
		s, err := client.Open(t.Context(), player.URL, peer.Query{Reader: "us-east", Origin: "eu-west"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.Next()
		if c.ok && (err != nil || f.Kind != replica.Hello) || !c.ok && !errors.Is(err, peer.ErrNotPeer) {
			t.Errorf("%s: %s %v", name, f.Kind, err)
		}
		s.Close()
		client.CloseIdle()
		player.Close()
	}
	r := newReader(t, base)
	r.open()
	r.reaches(src.Version())
}
