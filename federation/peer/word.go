package peer

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// Word is what a reader last said of one stream.
type Word struct {
	Reader api.Region
	replica.Ack
	Age time.Duration // since it was said; since the stream began, if never
	// Quarantined rows are those that the reader region does not use.
	Quarantined int
	// Canary is the time from a moment here to the reader having everything older and its
	// word of that back here, without what it waited to be said: by our clock alone, and an
	// upper bound of the way there. 0 = not measured yet.
	Canary time.Duration
}

// Words returns what the readers of open streams last said. Readers of the first version of
// the protocol say nothing and are left out. An age of more than a few AckIntervals on an open
// stream means that we are heard and they are not, or neither.
func (s *Server) Words() []Word {
	s.mu.Lock()
	streams := slices.Collect(maps.Values(s.readers))
	s.mu.Unlock()
	now := time.Now()
	var out []Word
	for _, st := range streams {
		if st.proto < 2 || st.relay != nil {
			continue // the first says nothing, the other speaks of someone else
		}
		w := Word{Reader: st.query.Reader, Age: now.Sub(st.began), Quarantined: len(st.book.Quarantined())}
		if a := st.acked.Load(); a != nil {
			w.Ack, w.Age, w.Canary = a.Ack, now.Sub(a.at), a.canary
		}
		out = append(out, w)
	}
	return out
}

// ack takes a reader's word of where it stands.
func (s *Server) ack(c echo.Context) error {
	r := c.Request()
	var who api.Region
	if s.cfg.PeerRegion != nil {
		var err error
		if who, err = s.identify(r); err != nil {
			return err
		}
	}
	s.mu.Lock()
	st := s.readers[r.URL.Query().Get("stream")]
	s.mu.Unlock()
	if st == nil || s.cfg.PeerRegion != nil && st.query.Reader != who {
		return &api.Error{Code: api.CodeNotFound, Detail: "there is no such stream here", Remedy: "the stream ended, or is one of another node"}
	}
	var a replica.Ack
	if err := json.NewDecoder(http.MaxBytesReader(c.Response(), r.Body, maxAckBytes)).Decode(&a); err != nil {
		return &api.Error{Code: api.CodeInvalidRequest, Detail: "not an ack: " + err.Error()}
	}
	a = a.Plausible()
	for _, n := range st.book.Nacked(a.Nacks) {
		s.log.Warn("a reader does not use a row of ours", "reader", st.query.Reader, "row", api.Quote(n.Key), "why", api.Quote(n.Reason))
	}
	if a.Loads {
		st.again.Store(true)
	}
	st.heard(a, time.Now())
	return c.NoContent(http.StatusNoContent)
}

const maxAckBytes = 64 << 10
