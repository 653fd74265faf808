package peer

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/nearside/nearside/federation/origin"
	"github.com/nearside/nearside/federation/summary"
	"github.com/nearside/nearside/sdk/api"
)

// maxVerifies bounds the comparisons under way: each looks at every row.
const maxVerifies = 2

// maxComparisonBytes bounds the answer: origin.MaxMarks rows, one bucket more, and what changed.
const maxComparisonBytes = 32 << 20

// verify answers a reader that wants to know whether it holds what it should.
func (s *Server) verify(c echo.Context) error {
	q, err := s.admit(c.Request())
	if err != nil {
		return err
	}
	if q.asks() {
		return &api.Error{Code: api.CodeInvalidRequest, Field: "origin", Detail: "only a region itself knows what it should be held to", Remedy: "ask region " + string(q.Origin)}
	}
	if q.Have.IsZero() || q.Sums == nil {
		return &api.Error{Code: api.CodeInvalidRequest, Field: "have", Detail: "nothing to compare with", Remedy: "send have= and the digests of all buckets"}
	}
	select {
	case s.verifying <- struct{}{}:
		defer func() { <-s.verifying }()
	default:
		return &api.Error{Code: api.CodeTooManyRequests, Detail: "other comparisons are under way", Remedy: "try again in a moment"}
	}
	if v := s.cfg.Source.Image().Version(); v.IsZero() {
		return &api.Error{Code: api.CodeUnavailable, Detail: "the catalogue is not loaded yet", Remedy: "try again in a moment"}
	}
	now := time.Now()
	b := s.shelf.open(q.Reader, nil, now)
	defer func() { s.shelf.close(b, time.Now()) }()
	return c.JSON(http.StatusOK, b.Compare(s.cfg.Source, q.Have, q.Sums))
}

// Verify asks the origin at base to compare what the query says is held (Have and Sums) with
// what should be. The errors are those of Open.
func (c *Client) Verify(ctx context.Context, base string, q Query) (origin.Comparison, error) {
	var out origin.Comparison
	ctx, cancel := context.WithTimeout(ctx, AnswerLimit)
	defer cancel()
	resp, err := c.send(ctx, base, PathVerify, q.Origin, q.values(), SumsType, q.Sums.Bytes())
	if err != nil {
		return out, err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode != http.StatusOK {
		return out, problem(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxComparisonBytes))
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return out, ErrNotPeer
	}
	if out.Buckets == nil {
		out.Buckets = summary.NewBucketSet(summary.Buckets)
	}
	return out, nil
}
