package peer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// ServerConfig configures a Server. Region and Source are required.
type ServerConfig struct {
	Region api.Region
	Node   string
	Source Source
	// Addresses are base URLs of this region for clients, told to every reader; AddressesNow, when
	// not nil, tells them instead, and is asked again and again.
	Addresses    []string
	AddressesNow func() []string
	// Heard returns when Source was last known to be all that the region has. A reader's age counts
	// from there, so that a federation that does not hear its own region claims nothing. nil = always now.
	Heard func() time.Time
	// PeerRegion returns the authenticated region of a request. nil trusts the reader's word:
	// for development, where anyone may read.
	PeerRegion func(*http.Request) (api.Region, error)
	// OnReader is called with each region whose stream is accepted; it must not block.
	OnReader func(api.Region)
	// Term returns the term of this region's publisher, as this node knows it: it rises each
	// time another node takes over, and never falls within an epoch. Readers refuse a publisher
	// with a lower term than they heard of. nil means that there is no such thing (0).
	Term func() uint64
	// Drained returns what this region wishes about itself, in percent, 0 to 100; nil = nothing.
	Drained func() float64
	// Partial: Source does not have all services of the region, so that absence from it means
	// nothing (I9).
	Partial bool
	// Standings returns where this node stands with the regions that it reads; heartbeats carry it.
	// It must not block. nil = nothing is said.
	Standings func() []replica.Standing
	// Admit returns an error when a reader that calls itself a region is not the one that is known
	// under that name; own is the epoch of the history that it says it has, zero = it says nothing. nil = all are let in.
	Admit func(reader api.Region, own api.Epoch) error
	// OnRefused is told of whoever asks for something and is not the region that it says; it must not block. nil = nobody.
	OnRefused func(Refusal)
	// Relay returns what is passed on of another region to a reader, or why nothing is; nil = nothing is.
	Relay func(origin, reader api.Region) (Relay, error)
	// Origins lists the regions that Relay passes on to nodes of our own region; nil = none.
	Origins func() []api.Region
	// Signer signs what we say of our rows, so that others may pass them on without being
	// trusted; nil = nothing is signed.
	Signer Signer
	Logger *slog.Logger // nil = none
	// MaxReaders bounds streams (default 256, a goroutine and some 20 KiB each, 0.8 MiB more when compressed), and
	// MaxSnapshots those that send a snapshot at the same time (default 4): the others wait
	// their turn, so that a herd of readers does not take the node's processors. One region gets
	// a quarter of the streams, eight at least, and half of the places. Other nodes of our own region, which
	// may read all peers from this one, have twice as many streams as all readers together, beside those.
	MaxReaders, MaxSnapshots int
}

// Server tells this region's summaries to readers. Safe for concurrent use.
type Server struct {
	cfg       ServerConfig
	log       *slog.Logger
	shelf     shelf
	board     board
	snapshots chan struct{}
	verifying chan struct{}
	waiting   atomic.Int64  // for a place in snapshots
	settling  chan struct{} // capacity 1: one refutation at a time
	raises    allowance
	leaving   atomic.Bool
	handler   http.Handler

	// ended ends all streams when the server stops.
	ended context.Context
	end   context.CancelFunc

	mu      sync.Mutex
	readers map[string]*stream // by id
	details map[api.Region]int // open ones, by reader
}

// NewServer returns a server that is ready to serve its Handler.
func NewServer(cfg ServerConfig) *Server {
	if cfg.MaxReaders <= 0 {
		cfg.MaxReaders = 256
	}
	if cfg.MaxSnapshots <= 0 {
		cfg.MaxSnapshots = 4
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, snapshots: make(chan struct{}, cfg.MaxSnapshots), verifying: make(chan struct{}, maxVerifies),
		shelf: shelf{places: max(cfg.MaxSnapshots/2, 1), sealing: cfg.Signer != nil, books: make(map[bookKey]*book), passed: make(map[api.Region]uint64)}, readers: make(map[string]*stream), details: make(map[api.Region]int),
		settling: make(chan struct{}, 1), raises: allowance{regions: make(map[api.Region]share)},
	}
	s.board.loader, _ = cfg.Source.(origin.Loader)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ended, s.end = context.WithCancel(context.Background())
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = echo.ExtractIPDirect()
	e.HTTPErrorHandler = writeError
	e.GET(PathPing, s.ping)
	e.GET(PathOrigins, s.origins)
	e.GET(PathDetail, s.detail)
	e.GET(PathStream, s.stream)
	e.POST(PathStream, s.stream)
	e.POST(PathAck, s.ack)
	e.POST(PathVerify, s.verify)
	s.handler = e
	return s
}

// Handler serves the peer door.
func (s *Server) Handler() http.Handler { return s.handler }

// Stop says goodbye on every stream and ends it; new ones are refused. The handlers return
// soon after. It may be called more than once.
func (s *Server) Stop() { s.end() }

// Leave makes Stop say that this region ends for good: readers remove its rows after
// replica.ForgetGrace unless it comes back.
func (s *Server) Leave() { s.leaving.Store(true) }

// Readers returns the open streams by reader region.
func (s *Server) Readers() []api.ReaderInfo {
	s.mu.Lock()
	streams := make([]*stream, 0, len(s.readers))
	for _, st := range s.readers {
		streams = append(streams, st)
	}
	s.mu.Unlock()
	out := make([]api.ReaderInfo, 0, len(streams))
	for _, st := range streams {
		out = append(out, st.info())
	}
	slices.SortFunc(out, func(a, b api.ReaderInfo) int {
		if c := strings.Compare(string(a.Region), string(b.Region)); c != 0 {
			return c
		}
		return a.Since.Compare(b.Since)
	})
	return out
}

// BytesOut returns the bytes of frames sent so far, by reader region.
func (s *Server) BytesOut() map[api.Region]uint64 { return s.shelf.sent() }

// Pong answers a ping.
type Pong struct {
	Region api.Region `json:"region"`
	Node   string     `json:"node"`
	Protos []int      `json:"protos"`
	Epoch  api.Epoch  `json:"epoch,omitzero"` // of the region's history, to a query for it; zero while it is not loaded
}

func protos() []int {
	var out []int
	for p := replica.MinProto; p <= replica.Proto; p++ {
		out = append(out, p)
	}
	return out
}

func (s *Server) ping(c echo.Context) error {
	if s.cfg.PeerRegion != nil {
		if _, err := s.identify(c.Request()); err != nil {
			return err
		}
	}
	pong := Pong{Region: s.cfg.Region, Node: s.cfg.Node, Protos: protos()}
	if c.QueryParam("history") == "true" { // not in what measures the round trip
		pong.Epoch = s.cfg.Source.Image().Version().Epoch
	}
	return c.JSON(http.StatusOK, pong)
}

func (s *Server) stream(c echo.Context) error {
	r := c.Request()
	q, err := s.admit(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ended, cancel)()
	if s.cfg.Admit != nil && q.Reader != s.cfg.Region {
		if err := s.cfg.Admit(q.Reader, q.Own); err != nil {
			return err
		}
	}
	st := newStream(s, c.Response(), q, origin.Negotiate(q.protos()))
	if q.asks() {
		if st.relay, err = s.relay(&q); err != nil {
			return err
		}
	} else if err := s.settle(ctx, q.Reader, q.Have, q.Term, q.Careful); err != nil {
		return err
	}
	if err := s.enter(st); err != nil {
		return err
	}
	defer s.leave(st)
	if s.cfg.OnReader != nil && !q.asks() {
		s.cfg.OnReader(q.Reader)
	}
	err = st.run(ctx)
	s.log.Debug("reader left", "reader", q.Reader, "node", q.Node, "cause", err)
	return nil // the answer has begun; there is nobody to tell
}

// siblingShare is how many streams nodes of our own region may have, in MaxReaders: four others in a
// region of a hundred peers.
const siblingShare = 2

func (s *Server) enter(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended.Err() != nil:
		return &api.Error{Code: api.CodeShuttingDown, Detail: "this node is stopping", Remedy: "ask another node of the region"}
	}
	own, foreign := 0, 0
	for _, other := range s.readers {
		if other.query.Reader == st.query.Reader {
			own++
		}
		if other.query.Reader != s.cfg.Region {
			foreign++
		}
	}
	most := max(s.cfg.MaxReaders/4, 8)
	if st.query.Reader == s.cfg.Region {
		most = siblingShare * s.cfg.MaxReaders
	} else if foreign >= s.cfg.MaxReaders {
		return &api.Error{Code: api.CodeTooManyRequests, Detail: fmt.Sprintf("%d readers are connected, no more are served", foreign), Remedy: "try another node, or later"}
	}
	if own >= most {
		return &api.Error{Code: api.CodeTooManyRequests, Detail: fmt.Sprintf("%d readers of region %s are connected, no more are served", most, st.query.Reader), Remedy: "try another node, or later"}
	}
	st.book = s.shelf.open(st.query.Reader, st.relay, time.Now())
	s.readers[st.id] = st
	return nil
}

func (s *Server) leave(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, st.id)
	s.shelf.close(st.book, time.Now())
}

// writeError is the outer edge: errors become problem documents here and nowhere else.
func writeError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	var e *api.Error
	var he *echo.HTTPError
	switch {
	case errors.As(err, &e):
	case errors.As(err, &he) && he.Code == http.StatusNotFound:
		e = &api.Error{Code: api.CodeNotFound, Detail: "there is no such path on the peer door", Remedy: "the public API is on another port"}
	case errors.As(err, &he) && he.Code == http.StatusMethodNotAllowed:
		e = &api.Error{Code: api.CodeMethodNotAllowed, Detail: "this path is read with GET only"}
	default:
		e = &api.Error{Code: api.CodeInternal, Detail: "something went wrong here"}
	}
	id := c.Request().Header.Get(api.HeaderRequestID)
	if !api.ValidInstanceID(id) {
		id = rand.Text()
	}
	p := e.Problem(id)
	b, _ := json.Marshal(p) // strings and numbers only
	h := c.Response().Header()
	h.Set(api.HeaderRequestID, id)
	h.Set(echo.HeaderContentType, api.ProblemType)
	if e.Code.Retryable() {
		h.Set("Retry-After", strconv.Itoa(1+mrand.IntN(3)))
	}
	c.Response().WriteHeader(p.Status)
	_, _ = c.Response().Write(b) // the reader may be gone
}
