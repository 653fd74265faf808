package mesh

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/nearside/nearside/federation/internal/forge"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
)

// forged is the door of a region ap-south that reads a region eu-west of its own making.
func forged(t *testing.T, n *network, key *testKey) http.Handler {
	fake := newRegion(t, n, "eu-west")
	fake.name = "eu-west"
	fake.signer = key
	fake.source.Set(9, "payments", "evil")
	fake.source.Set(9, "payments", "evil")
	fake.source.Set(9, "payments", "evil")
	source, err := New(Config{Region: "eu-west", Source: fake.source, Signer: signerOf(key), Addresses: []string{"http://evil:7400"}})
	if err != nil {
		t.Fatal(err)
	}
	_, stop := n.serve("fake-eu", source.Handler())
	t.Cleanup(stop)
	evil := newRegion(t, n, "ap-south")
	evil.peers["eu-west"] = []string{"http://fake-eu:7402"}
	m, err := New(Config{Region: "ap-south", Source: evil.source, Peers: evil.peers, HTTPClient: evil.client})
	if err != nil {
		t.Fatal(err)
	}
	runMesh(t, m, evil.client)
	return m.Handler()
}

func signerOf(k *testKey) peer.Signer {
	if k == nil {
		return nil
	}
	return k
}

// rewrite is a door whose answers are changed on their way out.
func rewrite(h http.Handler, from, to string) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		r.Header.Del("Accept-Encoding")
		h.ServeHTTP(&rewriter{out, []byte(from), []byte(to)}, r)
	})
}

type rewriter struct {
	http.ResponseWriter
	from, to []byte
}

func (w *rewriter) Write(b []byte) (int, error) {
	if _, err := w.ResponseWriter.Write(bytes.ReplaceAll(b, w.from, w.to)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// collide is a door that puts something else into rows, and makes them fit the digest all the same.
func collide(h http.Handler, from, to string) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		r.Header.Del("Accept-Encoding")
		h.ServeHTTP(&collider{ResponseWriter: out, from: []byte(from), to: []byte(to)}, r)
	})
}

type collider struct {
	http.ResponseWriter
	from, to, rest []byte
}

func (w *collider) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		end := bytes.IndexByte(w.rest, '\n')
		if end < 0 {
			return len(b), nil
		}
		line := bytes.Clone(w.rest[:end+1])
		w.rest = w.rest[end+1:]
		var f replica.Frame
		_ = json.Unmarshal(line, &f) // an empty line has no rows
		for _, row := range f.Rows {
			if evil, ok := forge.Row(row.Body, bytes.ReplaceAll(row.Body, w.from, w.to)); ok {
				line = bytes.Replace(line, row.Body, evil, 1)
			}
		}
		if _, err := w.ResponseWriter.Write(line); err != nil {
			return 0, err
		}
	}
}

func (w *collider) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *rewriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
