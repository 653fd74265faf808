package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"github.com/nearside/nearside/sdk/api"
)

// OriginList answers GET /peer/v1/origins?reader=US.
type OriginList struct {
	Region  api.Region   `json:"region"`
	Node    string       `json:"node"`
	Origins []api.Region `json:"origins"`
}

// maxOrigins bounds what is believed of such a list.
const maxOrigins = 1000

// origins tells a node of our own region whose rows it can have here.
func (s *Server) origins(c echo.Context) error {
	reader := api.Region(c.QueryParam("reader"))
	if s.cfg.PeerRegion != nil {
		who, err := s.identify(c.Request())
		if err != nil {
			return err
		}
		reader = who
	}
	if reader != s.cfg.Region {
		return &api.Error{
			Code: api.CodeForbidden, Field: "reader", Detail: fmt.Sprintf("this is told to nodes of region %s only", s.cfg.Region),
			Remedy: "read each region at home",
		}
	}
	out := OriginList{Region: s.cfg.Region, Node: s.cfg.Node, Origins: []api.Region{}}
	if s.cfg.Origins != nil {
		out.Origins = append(out.Origins, s.cfg.Origins()...)
	}
	return c.JSON(http.StatusOK, out)
}

// Origins asks the federation of our own region at base whose rows it has.
func (c *Client) Origins(ctx context.Context, base string, self api.Region) ([]api.Region, error) {
	ctx, cancel := context.WithTimeout(ctx, SilenceLimit)
	defer cancel()
	resp, err := c.send(ctx, base, PathOrigins, self, url.Values{"reader": {string(self)}}, "", nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode != http.StatusOK {
		return nil, problem(resp)
	}
	var out OriginList
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&out); err != nil {
		return nil, fmt.Errorf("%w: its list of regions cannot be read: %w", ErrNotPeer, err)
	}
	if out.Region != self {
		return nil, fmt.Errorf("%w: it is the federation of region %s, not of %s", ErrNotPeer, api.Quote(string(out.Region)), self)
	}
	if len(out.Origins) > maxOrigins {
		return nil, fmt.Errorf("%w: it lists %d regions", ErrNotPeer, len(out.Origins))
	}
	for _, o := range out.Origins {
		if err := api.CheckRegion(string(o)); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotPeer, err)
		}
	}
	return out.Origins, nil
}
