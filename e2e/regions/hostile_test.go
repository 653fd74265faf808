package regions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nearside/nearside/federation/peer"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// hostile is a server that calls itself one of many regions and speaks the peer protocol
// well, up to a point. Every stream begins with the truth, so that the reader comes back for
// more, and ends with poison.
type hostile struct {
	*httptest.Server
	seed      uint64
	yesterday []byte // a stream of eu's as it was
	honest    bool   // no poison: rows of the future, and nothing after them but heartbeats

	mu    sync.Mutex
	turns int
	tried map[string]int // poison -> times
}

func newHostile(t *testing.T, seed uint64, yesterday []byte) *hostile {
	return serveLies(t, &hostile{seed: seed, yesterday: yesterday, tried: map[string]int{}})
}

// newFuture starts a region of a later version of the program, which lies about nothing.
func newFuture(t *testing.T) *hostile { return serveLies(t, &hostile{honest: true}) }

func serveLies(t *testing.T, h *hostile) *hostile {
	h.Server = httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
	})
	return h
}

func (h *hostile) inputs() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.tried {
		n += k
	}
	return n
}

// missing returns the poisons that nobody took yet.
func (h *hostile) missing() (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range poisons {
		if h.tried[p.name] == 0 {
			names = append(names, p.name)
		}
	}
	return names
}

func (h *hostile) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != peer.PathStream {
		// Pings and acks get anything but what they ask for.
		_, _ = io.WriteString(w, strings.Repeat("[", 4096))
		return
	}
	if h.honest {
		h.future(w, r)
		return
	}
	h.mu.Lock()
	turn := h.turns
	h.turns++
	p := poisons[turn%len(poisons)]
	h.mu.Unlock()
	count := func() { // as often as it was really sent
		h.mu.Lock()
		h.tried[p.name]++
		h.mu.Unlock()
	}
	s := &liar{
		w: w, out: http.NewResponseController(w), region: api.Region(r.URL.Query().Get("region")), revision: uint64(1000 + turn), proto: 2,
		rng: rand.New(rand.NewPCG(h.seed, uint64(turn))), hostile: h, gone: r.Context().Done(),
	}
	if p.answer != nil {
		count()
		p.answer(s)
		return
	}
	w.Header().Set("Content-Type", peer.StreamType)
	s.greet()
	s.snapshot(s.good("good"))
	s.beat()
	count()
	p.stream(s)
	_ = s.out.Flush()
}

// tomorrowsRow is a row with fields that this version does not know.
func (s *liar) tomorrowsRow() replica.Row {
	r := s.good("good")
	r.Body = append(bytes.TrimSuffix(r.Body, []byte("}")), `,"mood":"calm","forecast":{"rain":[0.25,1e300],"näh":null}}`...)
	return r
}

// future serves a region of a later version of the program.
func (h *hostile) future(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", peer.StreamType)
	s := &liar{w: w, out: http.NewResponseController(w), region: "tomorrow", revision: 7, proto: 2}
	if !strings.Contains(r.URL.RawQuery, "max_proto=") {
		s.proto = 1
	}
	began := time.Now()
	s.greet()
	s.snapshot(s.tomorrowsRow())
	for {
		s.frame(replica.Frame{Kind: replica.Heartbeat, Head: s.revision, To: s.revision, Digest: s.digest, SentMS: time.Since(began).Milliseconds()})
		select {
		case <-r.Context().Done():
			return
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// shown is the digest of all rows of the future.
func (h *hostile) shown() string {
	s := &liar{region: "tomorrow", revision: 7}
	return summary.Digest(0).Add(summary.HashOf(s.tomorrowsRow().Body)).String()
}

// liar is one stream of a hostile region.
type liar struct {
	hostile  *hostile
	w        http.ResponseWriter
	out      *http.ResponseController
	rng      *rand.Rand
	gone     <-chan struct{}
	region   api.Region
	revision uint64
	digest   summary.Digest
	proto    int
}

var marsEpoch = api.Epoch{Generation: 5, Nonce: 0x1234}

func (s *liar) raw(b string) {
	_, _ = io.WriteString(s.w, b)
	_ = s.out.Flush()
}

func (s *liar) frame(f replica.Frame) {
	if f.Epoch.IsZero() {
		f.Epoch = marsEpoch
	}
	b, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	s.raw(string(b) + "\n")
}

func (s *liar) greet() {
	s.frame(replica.Frame{Kind: replica.Hello, Proto: s.proto, Region: s.region, Node: "n", Head: s.revision, Complete: true, Stream: "s"})
}

func (s *liar) snapshot(rows ...replica.Row) {
	slices.SortFunc(rows, func(a, b replica.Row) int { return replica.CompareBuckets(keyOf(a), keyOf(b)) })
	s.digest = 0
	for _, r := range rows {
		s.digest = s.digest.Add(summary.HashOf(r.Body))
	}
	s.frame(replica.Frame{Kind: replica.SnapshotBegin, To: s.revision})
	s.frame(replica.Frame{Kind: replica.SnapshotChunk, Rows: rows})
	s.frame(replica.Frame{Kind: replica.SnapshotEnd, To: s.revision, Count: len(rows), Digest: s.digest})
}

func keyOf(r replica.Row) api.ServiceKey {
	var s api.Summary
	_ = json.Unmarshal(r.Body, &s)
	return s.Key()
}

func (s *liar) beat() {
	s.frame(replica.Frame{Kind: replica.Heartbeat, Head: s.revision, To: s.revision, Digest: s.digest})
}

// good returns a row of one instance; change makes something else of it.
func (s *liar) good(service string, change ...func(*api.Summary)) replica.Row {
	sum := &api.Summary{
		Namespace: api.DefaultNamespace, Service: api.ServiceName(service), Total: 1, Passing: 1, Complete: true,
		Endpoints: []api.Endpoint{{ID: "i-1", Address: "127.0.0.1", Port: 8080, Region: s.region, Weight: 100, Status: api.StatusPassing}},
	}
	for _, c := range change {
		c(sum)
	}
	body, _ := summary.Encode(sum)
	return replica.Row{Revision: s.revision, Body: body}
}

// poison is one way to do harm: an answer that is no stream at all, or what follows a good beginning.
type poison struct {
	name   string
	answer func(*liar)
	stream func(*liar)
}

func sends(name, text string) poison {
	return poison{name: name, stream: func(s *liar) { s.raw(text) }}
}

func says(name string, f func(*liar) replica.Frame) poison {
	return poison{name: name, stream: func(s *liar) { s.frame(f(s)) }}
}

// row is a poison of a snapshot whose digest fits, with one bad row beside the good one.
func row(name string, change func(*api.Summary)) poison {
	return poison{name: "row: " + name, stream: func(s *liar) {
		s.revision++
		s.snapshot(s.good("good"), s.good("bad", change))
		s.beat()
	}}
}

func endpoint(name string, change func(*api.Endpoint)) poison {
	return row(name, func(s *api.Summary) { change(&s.Endpoints[0]) })
}

var poisons = []poison{
	{name: "status 500 with a page", answer: func(s *liar) { s.w.WriteHeader(500); s.raw("<html>" + strings.Repeat("x", 1<<20)) }},
	{name: "a redirect to the reader's own API", answer: func(s *liar) {
		s.w.Header().Set("Location", "http://127.0.0.1:7400/v1/services")
		s.w.WriteHeader(http.StatusTemporaryRedirect)
	}},
	{name: "another content type", answer: func(s *liar) { s.w.Header().Set("Content-Type", "text/html"); s.raw("<html>") }},
	{name: "a length of 1 GB, and nothing", answer: func(s *liar) {
		s.w.Header().Set("Content-Type", peer.StreamType)
		s.w.Header().Set("Content-Length", strconv.Itoa(1<<30))
		_ = s.out.Flush()
		<-s.gone
	}},
	{name: "a chunk of 2^60 bytes", answer: func(s *liar) {
		c, _, err := s.out.Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: "+peer.StreamType+"\r\nTransfer-Encoding: chunked\r\n\r\n1000000000000000\r\n{")
		_, _ = io.Copy(io.Discard, c) // until the reader gives up
	}},
	{name: "not HTTP", answer: func(s *liar) {
		c, _, err := s.out.Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write(bytes.Repeat([]byte{0, 255, 13}, 1<<16))
	}},
	{name: "headers without end", answer: func(s *liar) {
		c, _, err := s.out.Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for i := range 1 << 16 {
			if _, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("x", 100)); err != nil {
				return
			}
		}
	}},
	{name: "a problem document of another world", answer: func(s *liar) {
		s.w.Header().Set("Content-Type", api.ProblemType)
		s.w.Header().Set("Retry-After", "99999999999")
		s.w.WriteHeader(http.StatusServiceUnavailable)
		s.raw(`{"code":"` + strings.Repeat("x", 60<<10) + `","detail":"\u001b[31m"}`)
	}},
	sends("not JSON", "hello\n"),
	sends("half a frame", `{"kind":"heartbeat","epo`),
	sends("an array", "[]\n"),
	sends("null", "null\n"),
	sends("no kind", "{}\n"),
	sends("zero bytes", strings.Repeat("\x00", 4096)+"\n"),
	sends("not UTF-8", "{\"kind\":\"\xff\xfe\"}\n"),
	sends("deep JSON", `{"kind":"delta","rows":`+strings.Repeat("[", 1<<18)+"\n"),
	sends("deep JSON in a field that is ignored", `{"kind":"heartbeat","x":`+strings.Repeat(`{"x":`, 1<<15)+"1"+strings.Repeat("}", 1<<15)+"}\n"),
	sends("a line of 5 MiB", `{"kind":"heartbeat","x":"`+strings.Repeat("x", 5<<20)+"\"}\n"),
	sends("a line without end", strings.Repeat("{", 8<<20)),
	sends("a hundred thousand empty lines", strings.Repeat("\n", 1<<17)),
	sends("numbers out of range", `{"kind":"heartbeat","epoch":"5-0000000000001234","head":99999999999999999999999}`+"\n"),
	sends("negative numbers", `{"kind":"heartbeat","epoch":"5-0000000000001234","head":-1}`+"\n"),
	sends("an epoch that is none", `{"kind":"heartbeat","epoch":"5-x"}`+"\n"),
	sends("the same key twice", `{"kind":"goodbye","kind":"hello","proto":2,"proto":1}`+"\n"),
	sends("of a future version", `{"kind":"hello","proto":99,"max_proto":120,"epoch":"5-0000000000001234","region":"eu-west"}`+"\n"),
	{name: "kinds and fields of the future", stream: func(s *liar) {
		s.raw(`{"kind":"teleport","epoch":"5-0000000000001234","to":"mars"}` + "\n" + `{"kind":"heartbeat","epoch":"5-0000000000001234","head":` +
			strconv.FormatUint(s.revision, 10) + `,"to":` + strconv.FormatUint(s.revision, 10) + `,"digest":"` + s.digest.String() + `","warp":{"factor":9}}` + "\n")
	}},
	says("a future hello", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Hello, Proto: 99, Region: s.region, Head: s.revision}
	}),
	says("another region's name", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Hello, Proto: 2, Region: eu, Head: s.revision}
	}),
	says("the reader's own name", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Hello, Proto: 2, Region: us, Head: s.revision}
	}),
	says("an older generation", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Hello, Proto: 2, Region: s.region, Head: s.revision, Epoch: api.Epoch{Generation: 1, Nonce: 9}}
	}),
	says("the same generation, another history", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Hello, Proto: 2, Region: s.region, Head: s.revision, Epoch: api.Epoch{Generation: 5, Nonce: 9}}
	}),
	says("a delta without a hello of its epoch", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Delta, Epoch: api.Epoch{Generation: 6, Nonce: 6}, From: 1, To: 2}
	}),
	says("a delta from the future", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Delta, From: s.revision + 5, To: 1<<64 - 1}
	}),
	says("a delta that leads nowhere", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Delta, From: s.revision, To: s.revision}
	}),
	says("a delta whose digest does not fit", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Delta, From: s.revision, To: s.revision + 1, Rows: []replica.Row{s.good("new")}, Digest: 42}
	}),
	says("deletes of everybody's services", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Delta, From: s.revision, To: s.revision + 1, Deletes: []string{"default/orders", "../../etc", "default/\x00"}}
	}),
	says("too many rows", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Delta, From: s.revision, To: s.revision + 1, Rows: slices.Repeat([]replica.Row{{Body: []byte("{}")}}, replica.MaxFrameRows+1)}
	}),
	says("a row that is no row", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Delta, From: s.revision, To: s.revision + 1, Rows: []replica.Row{{Body: []byte(`"x"`)}}}
	}),
	says("a row with a path for a name", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Delta, From: s.revision, To: s.revision + 1, Rows: []replica.Row{{Body: []byte(`{"ns":"..","service":"../../x"}`)}}}
	}),
	says("a snapshot that ends before it began", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.SnapshotEnd, To: s.revision, Count: 1}
	}),
	says("a count below zero", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.SnapshotEnd, To: s.revision, Count: -1}
	}),
	says("a heartbeat of another digest", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Heartbeat, Head: s.revision, To: s.revision, Digest: 42}
	}),
	says("sent before its stream began", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Heartbeat, Head: s.revision, To: s.revision, Digest: s.digest, SentMS: -1 << 62}
	}),
	says("sent in an hour", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Heartbeat, Head: s.revision, To: s.revision, Digest: s.digest, SentMS: 1<<63 - 1}
	}),
	says("stay away for ever", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Goodbye, Reason: replica.ReasonRestart, RetryMS: 2000}
	}),
	says("forget, and back at once", func(s *liar) replica.Frame {
		return replica.Frame{Kind: replica.Goodbye, Reason: replica.ReasonForget}
	}),
	{name: "two hundred hellos", stream: func(s *liar) {
		for range 200 {
			s.greet()
		}
	}},
	{name: "all rows gone", stream: func(s *liar) { s.revision++; s.snapshot(); s.beat() }},
	{name: "a snapshot out of order", stream: func(s *liar) {
		rows := []replica.Row{s.good("a"), s.good("b"), s.good("c"), s.good("a")}
		s.frame(replica.Frame{Kind: replica.SnapshotBegin, To: s.revision + 1})
		s.frame(replica.Frame{Kind: replica.SnapshotChunk, Rows: rows})
	}},
	{name: "a snapshot without end", stream: func(s *liar) {
		s.frame(replica.Frame{Kind: replica.SnapshotBegin, To: s.revision + 1})
		for i := range 20 {
			var rows []replica.Row
			for k := range 50 {
				rows = append(rows, s.good(fmt.Sprintf("s-%d-%d", i, k)))
			}
			slices.SortFunc(rows, func(a, b replica.Row) int { return replica.CompareBuckets(keyOf(a), keyOf(b)) })
			s.frame(replica.Frame{Kind: replica.SnapshotChunk, Rows: rows})
		}
	}},
	{name: "yesterday's stream of another region", stream: func(s *liar) { s.raw(string(s.hostile.yesterday)) }},
	{name: "flipped bits", stream: func(s *liar) {
		// Its own stream, with one bit in a thousand wrong.
		var w bytes.Buffer
		for _, f := range []replica.Frame{
			{Kind: replica.SnapshotBegin, To: s.revision + 1, Epoch: marsEpoch},
			{Kind: replica.SnapshotChunk, Epoch: marsEpoch, Rows: []replica.Row{s.good("good"), s.good("other")}},
			{Kind: replica.SnapshotEnd, To: s.revision + 1, Count: 2, Digest: s.digest, Epoch: marsEpoch},
			{Kind: replica.Heartbeat, Head: s.revision + 1, To: s.revision + 1, Digest: s.digest, Epoch: marsEpoch},
		} {
			b, _ := json.Marshal(f)
			w.Write(append(b, '\n'))
		}
		b := w.Bytes()
		for range 1 + len(b)/1000*8 {
			b[s.rng.IntN(len(b))] ^= 1 << s.rng.IntN(8)
		}
		s.raw(string(b))
	}},
	{name: "a byte a second", stream: func(s *liar) {
		for range 3 {
			select {
			case <-s.gone:
				return
			default:
			}
			s.raw("{")
			pass(300 * time.Millisecond)
		}
	}},
	endpoint("an endpoint of another region", func(e *api.Endpoint) { e.Region = eu }),
	endpoint("an endpoint of the reader's", func(e *api.Endpoint) { e.Region = us }),
	endpoint("port 99999", func(e *api.Endpoint) { e.Port = 99999 }),
	endpoint("port -1", func(e *api.Endpoint) { e.Port = -1 }),
	endpoint("an address with a newline", func(e *api.Endpoint) { e.Address = "10.0.0.1\nHost: x" }),
	endpoint("no address", func(e *api.Endpoint) { e.Address = "" }),
	endpoint("a script for an address", func(e *api.Endpoint) { e.Address = "<script>alert(1)</script>" }),
	endpoint("a path for an id", func(e *api.Endpoint) { e.ID = "../../x" }),
	endpoint("a status of its own", func(e *api.Endpoint) { e.Status = "glorious" }),
	endpoint("a tier", func(e *api.Endpoint) { e.Tier = -5 }),
	endpoint("a weight of two billion", func(e *api.Endpoint) { e.Weight = 2_000_000_000 }),
	endpoint("a weight below zero", func(e *api.Endpoint) { e.Weight = -1 }),
	endpoint("metadata of a megabyte", func(e *api.Endpoint) { e.Metadata = map[string]string{"x": strings.Repeat("x", 1<<20)} }),
	endpoint("a thousand tags", func(e *api.Endpoint) { e.Tags = slices.Repeat([]string{"t"}, 1000) }),
	endpoint("a zone with a space", func(e *api.Endpoint) { e.Zone = "a b" }),
	row("33 endpoints", func(s *api.Summary) {
		for i := range 33 {
			e := s.Endpoints[0]
			e.ID = api.InstanceID(fmt.Sprintf("i-%d", i+2))
			s.Endpoints = append(s.Endpoints, e)
		}
	}),
	row("an endpoint twice", func(s *api.Summary) { s.Endpoints = append(s.Endpoints, s.Endpoints[0]) }),
	row("more passing than there are", func(s *api.Summary) { s.Passing = 1 << 40 }),
	row("counts below zero", func(s *api.Summary) { s.Total, s.Passing = -1, -1 }),
	row("a capacity below zero", func(s *api.Summary) { s.Capacity = -1 << 50 }),
	row("a zone that is none", func(s *api.Summary) { s.Zones = map[api.Zone]api.ZoneCount{"A B": {Total: 1}} }),
	row("a thousand versions", func(s *api.Summary) { s.Versions = slices.Repeat([]string{"v"}, 1000) }),
}
