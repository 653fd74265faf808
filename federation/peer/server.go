package peer

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// ServerConfig configures a Server. Region and Source are required.
type ServerConfig struct {
	Region api.Region
	Node   string
	Source Source
	// Addresses are base URLs of this region for clients, told to every reader.
	Addresses []string
	// PeerRegion returns the authenticated region of a request. nil trusts the reader's word:
	// for development, where anyone may read.
	PeerRegion func(*http.Request) (api.Region, error)
	// OnReader is called with each region whose stream is accepted; it must not block.
	OnReader func(api.Region)
	Logger   *slog.Logger // nil = none
	// MaxReaders bounds streams (default 256, a goroutine and some 20 KiB each), and
	// MaxSnapshots those that send a snapshot at the same time (default 4): the others wait
	// their turn, so that a herd of readers does not take the node's processors.
	MaxReaders, MaxSnapshots int
}

// Server tells this region's summaries to readers. Safe for concurrent use.
type Server struct {
	cfg       ServerConfig
	log       *slog.Logger
	shelf     shelf
	snapshots chan struct{}
	settling  sync.Mutex // one refutation at a time
	handler   http.Handler

	// ended ends all streams when the server stops.
	ended context.Context
	end   context.CancelFunc

	mu      sync.Mutex
	readers map[*stream]struct{}
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
		cfg: cfg, log: cfg.Logger, snapshots: make(chan struct{}, cfg.MaxSnapshots),
		shelf: shelf{books: make(map[api.Region]*book)}, readers: make(map[*stream]struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ended, s.end = context.WithCancel(context.Background())
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = echo.ExtractIPDirect()
	e.HTTPErrorHandler = writeError
	e.GET(PathPing, s.ping)
	e.GET(PathStream, s.stream)
	s.handler = e
	return s
}

// Handler serves the peer door.
func (s *Server) Handler() http.Handler { return s.handler }

// Stop says goodbye on every stream and ends it; new ones are refused. The handlers return
// soon after. It may be called more than once.
func (s *Server) Stop() { s.end() }

// Readers returns the open streams by reader region.
func (s *Server) Readers() []api.ReaderInfo {
	s.mu.Lock()
	streams := make([]*stream, 0, len(s.readers))
	for st := range s.readers {
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
}

func (s *Server) ping(c echo.Context) error {
	if s.cfg.PeerRegion != nil {
		if _, err := s.cfg.PeerRegion(c.Request()); err != nil {
			return identityError(err)
		}
	}
	return c.JSON(http.StatusOK, Pong{Region: s.cfg.Region, Node: s.cfg.Node, Protos: []int{replica.Proto}})
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
	if err := s.settle(ctx, q.Have); err != nil {
		return err
	}
	st := newStream(s, c.Response(), q)
	if err := s.enter(st); err != nil {
		return err
	}
	defer s.leave(st)
	if s.cfg.OnReader != nil {
		s.cfg.OnReader(q.Reader)
	}
	err = st.run(ctx)
	s.log.Debug("reader left", "reader", q.Reader, "node", q.Node, "cause", err)
	return nil // the answer has begun; there is nobody to tell
}

// Query is what a reader asks for.
type Query struct {
	Reader api.Region  // who reads
	Node   string      // which of its nodes
	Origin api.Region  // whom it means to read
	Have   api.Version // what it holds of Origin; zero = nothing
	// Digest of what it holds, when Have is set: with equal rows not even a lost history
	// needs a snapshot.
	Digest summary.Digest
	Full   bool // a snapshot, whatever it holds
}

// values returns the query as parameters.
func (q Query) values() url.Values {
	v := url.Values{"proto": {strconv.Itoa(replica.Proto)}, "reader": {string(q.Reader)}, "region": {string(q.Origin)}}
	if q.Node != "" {
		v.Set("node", q.Node)
	}
	if !q.Have.IsZero() {
		v.Set("have", q.Have.String())
		v.Set("digest", q.Digest.String())
	}
	if q.Full {
		v.Set("full", "true")
	}
	return v
}

const maxHaves = 256 // versions of one request; a relay tells all that it holds

// admit checks who asks for what.
func (s *Server) admit(r *http.Request) (Query, error) {
	var who api.Region // authenticated; a stranger learns nothing, not even what it asked wrongly
	if s.cfg.PeerRegion != nil {
		var err error
		if who, err = s.cfg.PeerRegion(r); err != nil {
			return Query{}, identityError(err)
		}
	}
	v := r.URL.Query()
	q := Query{
		Reader: api.Region(v.Get("reader")), Node: v.Get("node"), Origin: api.Region(v.Get("region")),
		Full: v.Get("full") == "true",
	}
	if p := v.Get("proto"); p != strconv.Itoa(replica.Proto) {
		return q, &api.Error{
			Code: api.CodeUnsupported, Field: "proto", Detail: fmt.Sprintf("version %s of the peer protocol is not spoken here", api.Quote(p)),
			Remedy: fmt.Sprintf("use version %d; upgrade the older of the two regions", replica.Proto),
		}
	}
	if err := api.CheckRegion(string(q.Reader)); err != nil {
		return q, err
	}
	if q.Node != "" && !api.ValidInstanceID(q.Node) {
		return q, api.FieldError("node", "node "+api.Quote(q.Node)+" is not a valid name", "use letters, digits, '.', '_', ':' and '-'")
	}
	switch {
	case q.Reader == s.cfg.Region:
		return q, &api.Error{
			Code: api.CodeConflict, Field: "reader", Detail: fmt.Sprintf("this is region %s already; two regions must not share a name", s.cfg.Region),
			Remedy: "give the reader's region another name, or remove this address from its peers",
		}
	case q.Origin != "" && q.Origin != s.cfg.Region:
		return q, &api.Error{
			Code: api.CodeConflict, Field: "region", Detail: fmt.Sprintf("this is region %s, not %s", s.cfg.Region, api.Quote(string(q.Origin))),
			Remedy: "correct the address in the reader's peers",
		}
	}
	if s.cfg.PeerRegion != nil && who != q.Reader {
		return q, &api.Error{
			Code: api.CodeForbidden, Field: "reader", Detail: fmt.Sprintf("the certificate is of region %s, the request of %s", api.Quote(string(who)), api.Quote(string(q.Reader))),
			Remedy: "use the certificate of the reader's own region",
		}
	}
	if len(v["have"]) > maxHaves {
		return q, api.FieldError("have", "too many versions", fmt.Sprintf("send at most %d", maxHaves))
	}
	for _, h := range v["have"] {
		at, err := api.ParseVersion(h)
		if err != nil {
			return q, api.FieldError("have", err.Error(), `use "region/generation-nonce/revision"`)
		}
		if at.Region == s.cfg.Region {
			q.Have = at
		}
	}
	if d := v.Get("digest"); d != "" {
		if err := q.Digest.UnmarshalText([]byte(d)); err != nil {
			return q, api.FieldError("digest", err.Error(), "use 16 hex digits")
		}
	}
	return q, nil
}

func identityError(err error) error {
	var known *api.Error
	if errors.As(err, &known) {
		return known
	}
	return &api.Error{Code: api.CodeUnauthorized, Detail: "the peer is not known: " + err.Error(), Remedy: "use a certificate that names its region"}
}

func (s *Server) enter(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended.Err() != nil:
		return &api.Error{Code: api.CodeShuttingDown, Detail: "this node is stopping", Remedy: "ask another node of the region"}
	case len(s.readers) >= s.cfg.MaxReaders:
		return &api.Error{Code: api.CodeTooManyRequests, Detail: fmt.Sprintf("%d readers are connected, no more are served", len(s.readers)), Remedy: "try another node, or later"}
	}
	st.book = s.shelf.open(st.query.Reader, time.Now())
	s.readers[st] = struct{}{}
	return nil
}

func (s *Server) leave(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, st)
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
		h.Set("Retry-After", "1")
	}
	c.Response().WriteHeader(p.Status)
	_, _ = c.Response().Write(b) // the reader may be gone
}
