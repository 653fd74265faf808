package peer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nearside/nearside/federation/internal/regiontest"
	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// door serves a source on a real socket.
func door(t *testing.T, cfg peer.ServerConfig) (*peer.Server, string) {
	t.Helper()
	cfg.Region = "eu-west"
	s := peer.NewServer(cfg)
	h := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		s.Stop()
		h.Close()
	})
	return s, h.URL
}

// reader follows a stream into a replica.
type reader struct {
	t       *testing.T
	name    api.Region
	client  *peer.Client
	base    string
	replica *replica.Replica
	stream  *peer.Stream
	kinds   []replica.Kind
	bytes   int
	rows    int // received, over all streams
}

func newReader(t *testing.T, base string) *reader {
	r := &reader{t: t, name: "us-east", client: peer.NewClient(nil, nil), base: base, replica: replica.New("us-east", "eu-west", time.Now())}
	t.Cleanup(r.client.CloseIdle)
	return r
}

func (r *reader) open() {
	r.t.Helper()
	q := peer.Query{Reader: r.name, Node: "n1", Origin: "eu-west", Have: r.replica.Have(), Full: r.replica.WantsSnapshot()}
	s, err := r.client.Open(r.t.Context(), r.base, q, func(n int) { r.bytes += n })
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(s.Close)
	r.stream, r.kinds, r.bytes = s, nil, 0
	r.replica.Connect(time.Now())
}

func (r *reader) next() replica.Effects {
	r.t.Helper()
	f, err := r.stream.Next()
	if err != nil {
		r.t.Fatal(err)
	}
	r.kinds = append(r.kinds, f.Kind)
	r.rows += len(f.Rows)
	eff := r.replica.Step(f, time.Now())
	if eff.Err != nil {
		r.t.Fatal(eff.Err)
	}
	return eff
}

// reaches reads until the replica is confirmed at a version.
func (r *reader) reaches(v api.Version) {
	r.t.Helper()
	for range 10_000 {
		if eff := r.next(); eff.Confirmed && r.replica.Have() == v {
			return
		}
	}
	r.t.Fatalf("did not reach %s", v)
}

func (r *reader) count(k replica.Kind) int {
	n := 0
	for _, x := range r.kinds {
		if x == k {
			n++
		}
	}
	return n
}

func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("s%05d", i)
	}
	return out
}

// P6: a large catalogue comes in chunks, a large change in a delta of several frames; both
// end with the right digest, and an unchanged one costs next to nothing after a reconnect.
func TestLargeCatalogue(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(3, names(3000)...)
	_, base := door(t, peer.ServerConfig{Source: src})
	r := newReader(t, base)
	r.open()
	r.reaches(src.Version())
	if r.replica.View().Rows != 3000 || r.count(replica.SnapshotChunk) < 6 {
		t.Fatalf("%d rows in %v", r.replica.View().Rows, r.kinds)
	}
	t.Logf("snapshot of 3000 services: %d KiB", r.bytes>>10)
	src.Set(4, names(1200)...)
	r.reaches(src.Version())
	if r.count(replica.Delta) < 3 || r.count(replica.SnapshotBegin) != 1 {
		t.Fatalf("frames: %v", r.kinds)
	}
	src.Set(0, names(600)...)
	r.reaches(src.Version())
	if r.replica.View().Rows != 2400 {
		t.Fatalf("%d rows", r.replica.View().Rows)
	}
	r.stream.Close()
	r.open()
	r.reaches(src.Version())
	if r.bytes > 16<<10 || r.count(replica.SnapshotBegin)+r.count(replica.Delta) != 0 {
		t.Fatalf("heal of an unchanged replica took %d bytes: %v", r.bytes, r.kinds)
	}
	t.Logf("heal of an unchanged replica: %d bytes", r.bytes)
	r.stream.Close()
	src.Set(9, "s02000")
	src.Set(1, "new")
	r.open()
	r.reaches(src.Version())
	if r.count(replica.Delta) != 1 || r.count(replica.SnapshotBegin) != 0 {
		t.Fatalf("frames: %v", r.kinds)
	}
	t.Logf("heal after two changes: %d bytes", r.bytes)
}

// P4: when another reader's word makes the origin raise its epoch, open streams are told on
// the way: hello and what changed, which is nothing; no reconnect.
func TestEpochChangesOnOpenStream(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(2, "orders", "users")
	_, base := door(t, peer.ServerConfig{Source: src})
	r := newReader(t, base)
	r.open()
	r.reaches(src.Version())
	held := src.Version()
	held.Epoch.Generation = 7
	s, err := r.client.Open(t.Context(), base, peer.Query{Reader: "ap-south", Origin: "eu-west", Have: held}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if hello, err := s.Next(); err != nil || hello.Epoch.Generation != 8 {
		t.Fatalf("%+v %v", hello, err)
	}
	r.reaches(src.Version())
	if r.count(replica.Hello) != 2 || r.count(replica.SnapshotEnd) != 1 || r.count(replica.Delta) != 1 || r.rows != 2 || src.Raised() != 1 {
		t.Fatalf("frames: %v", r.kinds)
	}
}

// A node that is only behind another one of its region catches up; that is no lost history.
func TestLagIsNotLoss(t *testing.T) {
	src := regiontest.New("eu-west")
	src.Set(2, "orders")
	waiting := waited{src, make(chan struct{}, 1)}
	_, base := door(t, peer.ServerConfig{Source: waiting})
	ahead := src.Version()
	ahead.Revision++
	done := make(chan error, 1)
	c := peer.NewClient(nil, nil)
	defer c.CloseIdle()
	go func() {
		s, err := c.Open(t.Context(), base, peer.Query{Reader: "us-east", Have: ahead}, nil)
		if err == nil {
			s.Close()
		}
		done <- err
	}()
	<-waiting.begun
	src.Set(3, "orders")
	if err := <-done; err != nil || src.Raised() != 0 {
		t.Fatalf("%v, raised %d times", err, src.Raised())
	}
}

// waited tells when someone waits for a change.
type waited struct {
	peer.Source
	begun chan struct{}
}

func (w waited) Wait(ctx context.Context, after api.Version) error {
	select {
	case w.begun <- struct{}{}:
	default:
	}
	return w.Source.Wait(ctx, after)
}

// P12, failures 52 and 54: who may not read, or asks the wrong region, gets a problem
// document with the remedy.
func TestAdmission(t *testing.T) {
	src := regiontest.New("eu-west")
	identity := api.Region("us-east")
	_, base := door(t, peer.ServerConfig{Source: src, PeerRegion: func(*http.Request) (api.Region, error) {
		if identity == "" {
			return "", errors.New("no certificate")
		}
		return identity, nil
	}})
	good := url.Values{"proto": {"1"}, "reader": {"us-east"}, "region": {"eu-west"}}
	for name, c := range map[string]struct {
		set  func(url.Values)
		who  api.Region
		code api.Code
	}{
		"same name":        {func(v url.Values) { v.Set("reader", "eu-west") }, "eu-west", api.CodeConflict},
		"wrong region":     {func(v url.Values) { v.Set("region", "ap-south") }, "us-east", api.CodeConflict},
		"bad reader":       {func(v url.Values) { v.Set("reader", "US EAST") }, "us-east", api.CodeInvalidField},
		"no reader":        {func(v url.Values) { v.Del("reader") }, "us-east", api.CodeInvalidField},
		"bad node":         {func(v url.Values) { v.Set("node", "a\nb") }, "us-east", api.CodeInvalidField},
		"bad have":         {func(v url.Values) { v.Set("have", "eu-west/1/2") }, "us-east", api.CodeInvalidField},
		"many haves":       {func(v url.Values) { v["have"] = make([]string, 300) }, "us-east", api.CodeInvalidField},
		"newer protocol":   {func(v url.Values) { v.Set("proto", "9") }, "us-east", api.CodeUnsupported},
		"other identity":   {func(url.Values) {}, "ap-south", api.CodeForbidden},
		"no identity":      {func(url.Values) {}, "", api.CodeUnauthorized},
		"absurd epoch":     {func(v url.Values) { v.Set("have", "eu-west/18446744073709551615-0000000000000001/1") }, "us-east", api.CodeConflict},
		"unknown is fine?": {func(v url.Values) { v.Set("relay", "true"); v.Set("proto", "3") }, "us-east", api.CodeUnsupported},
	} {
		v := url.Values{}
		for k, x := range good {
			v[k] = x
		}
		c.set(v)
		identity = c.who
		resp, err := http.Get(base + peer.PathStream + "?" + v.Encode())
		if err != nil {
			t.Fatal(err)
		}
		var p api.Problem
		err = json.NewDecoder(resp.Body).Decode(&p)
		_ = resp.Body.Close()
		if err != nil || p.Code != c.code || resp.StatusCode != c.code.HTTPStatus() || p.Remedy == "" || p.RequestID == "" ||
			resp.Header.Get("Content-Type") != api.ProblemType {
			t.Errorf("%s: %d %+v %v", name, resp.StatusCode, p, err)
		}
	}
	if src.Raised() != 0 {
		t.Error("a refused reader raised the epoch")
	}
	for path, status := range map[string]int{"/": 404, "/v1/services": 404, peer.PathPing: 401} {
		identity = ""
		resp, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// P8: streams are bounded; a place that is left can be taken.
func TestReadersAreBounded(t *testing.T) {
	src := regiontest.New("eu-west")
	s, base := door(t, peer.ServerConfig{Source: src, MaxReaders: 2})
	c := peer.NewClient(nil, nil)
	defer c.CloseIdle()
	open := func() (*peer.Stream, error) {
		return c.Open(t.Context(), base, peer.Query{Reader: "us-east"}, nil)
	}
	a, err1 := open()
	b, err2 := open()
	_, err3 := open()
	if err1 != nil || err2 != nil || api.CodeOf(err3) != api.CodeTooManyRequests || peer.Offended(err3) {
		t.Fatal(err1, err2, err3)
	}
	defer b.Close()
	a.Close()
	deadline := time.Now().Add(5 * time.Second)
	for len(s.Readers()) > 1 {
		if time.Now().After(deadline) {
			t.Fatal("the place is not free")
		}
		if _, err := b.Next(); err != nil { // paced by frames, at least one a second
			t.Fatal(err)
		}
	}
	d, err := open()
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

// A node that stops says goodbye, and refuses new readers.
func TestStopSaysGoodbye(t *testing.T) {
	src := regiontest.New("eu-west")
	s, base := door(t, peer.ServerConfig{Source: src})
	r := newReader(t, base)
	r.open()
	r.reaches(src.Version())
	s.Stop()
	for !r.next().Goodbye {
	}
	if _, err := r.stream.Next(); !errors.Is(err, peer.ErrEnded) {
		t.Fatal(err)
	}
	_, err := r.client.Open(t.Context(), base, peer.Query{Reader: "us-east"}, nil)
	if api.CodeOf(err) != api.CodeShuttingDown || peer.Offended(err) {
		t.Fatal(err)
	}
}

// A catalogue that is not loaded is never told as an empty one (P7).
func TestNotLoadedIsNotEmpty(t *testing.T) {
	_, base := door(t, peer.ServerConfig{Source: unloaded{regiontest.New("eu-west")}})
	c := peer.NewClient(nil, nil)
	defer c.CloseIdle()
	_, err := c.Open(t.Context(), base, peer.Query{Reader: "us-east"}, nil)
	if api.CodeOf(err) != api.CodeUnavailable || peer.Offended(err) {
		t.Fatal(err)
	}
}

type unloaded struct{ peer.Source }

func (unloaded) Image() peer.Image { return nothing{} }

type nothing struct{}

func (nothing) Version() api.Version                                   { return api.Version{} }
func (nothing) Services() []api.ServiceKey                             { return nil }
func (nothing) Service(api.ServiceKey) (i []*api.Instance, rev uint64) { return nil, 0 }

// The client says what is wrong with an answer, in words.
func TestClientRefusesOthers(t *testing.T) {
	for want, h := range map[string]http.HandlerFunc{
		"status 404":   http.NotFound,
		"status 302":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) },
		"content type": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hi") },
	} {
		srv := httptest.NewServer(h)
		c := peer.NewClient(nil, nil)
		_, err := c.Open(t.Context(), srv.URL, peer.Query{Reader: "us-east"}, nil)
		if !errors.Is(err, peer.ErrNotPeer) || !strings.Contains(err.Error(), want) || !peer.Offended(err) {
			t.Errorf("%s: %v", want, err)
		}
		c.CloseIdle()
		srv.Close()
	}
	c := peer.NewClient(nil, nil)
	if _, err := c.Open(context.Background(), "http://127.0.0.1:1", peer.Query{Reader: "us-east"}, nil); err == nil || peer.Offended(err) || strings.Contains(err.Error(), "have=") {
		t.Error(err)
	}
}
