package peer

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/nearside/nearside/federation/replica"
	"github.com/nearside/nearside/sdk/api"
)

// PathDetail tells all usable instances of one service, for as long as the reader sends its
// callers to this region.
const PathDetail = "/peer/v1/detail"

// Bounds of details. A service beyond the last two is not told: its reader goes on with the fail-over set.
const (
	// MaxDetails is how many details are open at a time, and MaxReaderDetails those of one reader region.
	MaxDetails       = 256
	MaxReaderDetails = 64
	// MaxDetailEndpoints is how many endpoints a detail has at most; its line is no longer than a frame.
	MaxDetailEndpoints = 20_000
	maxDetailFields    = 1_000 // elements of whatever else a newer version may tell
)

// Detail is all that can be called of one service. A line of it is always the whole list.
type Detail struct {
	Epoch api.Epoch `json:"epoch"`
	// Revision is the origin's revision of the last change of the service.
	Revision uint64 `json:"revision"`
	// Endpoints are all usable instances, by id.
	Endpoints []api.Endpoint `json:"endpoints"`
	Total     int            `json:"total"`
	Passing   int            `json:"passing"`
	Draining  int            `json:"draining,omitempty"`
}

// detailOf lists the usable ones of a service's instances.
func detailOf(epoch api.Epoch, instances []*api.Instance, revision uint64) Detail {
	d := Detail{Epoch: epoch, Revision: revision, Endpoints: []api.Endpoint{}, Total: len(instances)}
	for _, i := range instances {
		switch {
		case i.Status.Usable():
			d.Passing++
			d.Endpoints = append(d.Endpoints, i.Endpoint())
		case i.Status == api.StatusDraining:
			d.Draining++
		}
	}
	slices.SortFunc(d.Endpoints, func(a, b api.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	return d
}

// line returns the detail as it is sent, or why it cannot be.
func (d *Detail) line(key api.ServiceKey) ([]byte, error) {
	tooLarge := func(what string) error {
		return &api.Error{
			Code: api.CodeUnsupported, Field: "service", Detail: fmt.Sprintf("service %s is too large to be told whole: %s", api.Quote(key.String()), what),
			Remedy: fmt.Sprintf("go on with its fail-over set; %d endpoints and %d bytes are the most", MaxDetailEndpoints, replica.MaxFrameBytes),
		}
	}
	if len(d.Endpoints) > MaxDetailEndpoints {
		return nil, tooLarge(fmt.Sprintf("%d endpoints", len(d.Endpoints)))
	}
	b, err := json.Marshal(d)
	if err == nil && len(b) >= replica.MaxFrameBytes {
		err = tooLarge(fmt.Sprintf("%d bytes", len(b)))
	}
	return append(b, '\n'), err
}

// detail serves one reader of one service.
func (s *Server) detail(c echo.Context) error {
	q, err := s.admit(c.Request())
	if err != nil {
		return err
	}
	p := c.QueryParams()
	key := api.ServiceKey{Namespace: api.Namespace(cmp.Or(p.Get("ns"), string(api.DefaultNamespace))), Service: api.ServiceName(p.Get("service"))}
	if err := cmp.Or(api.CheckNamespace(string(key.Namespace)), api.CheckServiceName(string(key.Service))); err != nil {
		return err
	}
	switch {
	case q.asks():
		return &api.Error{Code: api.CodeUnsupported, Field: "origin", Detail: "details are not passed on", Remedy: "ask region " + string(q.Origin) + " itself"}
	case s.cfg.Partial:
		return &api.Error{Code: api.CodeUnsupported, Detail: "this node does not have all of its region's services", Remedy: "ask another node of the region"}
	}
	if s.cfg.Admit != nil {
		if err := s.cfg.Admit(q.Reader, q.Own); err != nil {
			return err
		}
	}
	done, err := s.enterDetail(q.Reader)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	defer context.AfterFunc(s.ended, cancel)()
	return s.tellDetail(ctx, c.Response(), &q, key)
}

// enterDetail counts one more; done uncounts it.
func (s *Server) enterDetail(reader api.Region) (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := 0
	for _, n := range s.details {
		all += n
	}
	refuse := func(n int, whose string) error {
		return &api.Error{
			Code: api.CodeTooManyRequests, Detail: fmt.Sprintf("%d services are told whole to %s, no more are", n, whose),
			Remedy: "go on with the fail-over set, and try again later",
		}
	}
	switch {
	case s.ended.Err() != nil:
		return nil, &api.Error{Code: api.CodeShuttingDown, Detail: "this node is stopping", Remedy: "ask another node of the region"}
	case s.details[reader] >= MaxReaderDetails:
		return nil, refuse(MaxReaderDetails, "region "+string(reader))
	case all >= MaxDetails:
		return nil, refuse(MaxDetails, "all readers")
	}
	s.details[reader]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.details[reader]--; s.details[reader] <= 0 {
			delete(s.details, reader)
		}
	}, nil
}

// unheard returns an error while the source is not known to be what the region has: a detail
// claims to be that.
func (s *Server) unheard() error {
	if s.cfg.Heard == nil || time.Since(s.cfg.Heard()) <= SilenceLimit {
		return nil
	}
	return &api.Error{Code: api.CodeUnavailable, Detail: "this federation does not hear its region", Remedy: "go on with the fail-over set, and try again later"}
}

// tellDetail sends the service at once and after each change, the first one after a quiet moment at
// once, until the reader goes or what it was promised is true no more. Before the first byte it may refuse.
func (s *Server) tellDetail(ctx context.Context, out http.ResponseWriter, q *Query, key api.ServiceKey) error {
	if err := s.unheard(); err != nil {
		return err
	}
	image := s.cfg.Source.Image()
	at := image.Version()
	if at.Epoch.IsZero() {
		return &api.Error{Code: api.CodeUnavailable, Detail: "this node has not loaded its region's catalogue yet", Remedy: "try again"}
	}
	instances, revision := image.Service(key)
	told := detailOf(at.Epoch, instances, revision)
	line, err := told.line(key)
	if err != nil {
		return err
	}
	ctl := http.NewResponseController(out)
	_ = ctl.SetReadDeadline(time.Time{}) // as for streams: a server's own is for ordinary requests
	h := out.Header()
	h.Set("Content-Type", StreamType)
	h.Set("Cache-Control", "no-store")
	write := func(b []byte) error {
		_, err := out.Write(b)
		return err
	}
	if q.Zstd {
		h.Set("Content-Encoding", encoding)
		zip := newSqueezer(out)
		defer zip.free()
		write = zip.write
	}
	send := func(b []byte) error {
		_ = ctl.SetWriteDeadline(time.Now().Add(WriteLimit))
		if err := write(b); err != nil {
			return err
		}
		return ctl.Flush()
	}
	out.WriteHeader(http.StatusOK)
	_ = s.followDetail(ctx, key, told, at, line, send) // the answer has begun; there is nobody to tell
	return nil
}

// followDetail sends line, which is of told, and what comes after.
func (s *Server) followDetail(ctx context.Context, key api.ServiceKey, told Detail, at api.Version, line []byte, send func([]byte) error) error {
	var sent, looked time.Time
	for {
		if line != nil {
			if err := send(line); err != nil {
				return err
			}
			sent = time.Now()
		}
		wait, cancel := context.WithTimeout(ctx, HeartbeatInterval)
		err := s.cfg.Source.Wait(wait, at)
		quiet := wait.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !quiet:
			return err
		}
		if err := s.unheard(); err != nil {
			return err
		}
		if err == nil {
			// Of any service: a busy region must not wake all details at each of its revisions.
			if err := sleep(ctx, time.Until(looked.Add(MaxCoalesce))); err != nil {
				return err
			}
			looked = time.Now()
		}
		image := s.cfg.Source.Image()
		at = image.Version()
		instances, revision := image.Service(key)
		line = nil
		if at.Epoch != told.Epoch || revision != told.Revision || len(instances) != told.Total {
			told = detailOf(at.Epoch, instances, revision)
			if line, err = told.line(key); err != nil {
				return err // it asks again, and is told why
			}
		} else if time.Since(sent) >= HeartbeatInterval {
			line = []byte{'\n'}
		}
	}
}

// sleep waits, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// DetailStream is an open detail. It belongs to one goroutine.
type DetailStream struct {
	*Stream
	origin api.Region
}

// OpenDetail asks the federation at base, which must be that of q.Origin itself, for all of a service;
// see Open for meter, errors and ctx. An origin of an older version answers with CodeNotFound.
func (c *Client) OpenDetail(ctx context.Context, base string, q Query, key api.ServiceKey, meter func(int)) (*DetailStream, error) {
	s, err := c.begin(ctx, func(ctx context.Context) (*http.Response, error) {
		v := q.values()
		v.Set("ns", string(key.Namespace))
		v.Set("service", string(key.Service))
		return c.send(ctx, base, PathDetail, q.Origin, v, "", nil)
	}, meter)
	if err != nil {
		return nil, err
	}
	return &DetailStream{s, q.Origin}, nil
}

// Next returns the next list. Errors that wrap replica.ErrMalformed mean that the origin sends
// what it must not.
func (s *DetailStream) Next() (*Detail, error) {
	line, err := s.line()
	if err != nil {
		return nil, err
	}
	if replica.Wide(line, MaxDetailEndpoints+maxDetailFields) {
		return nil, fmt.Errorf("%w: detail: over %d endpoints", replica.ErrMalformed, MaxDetailEndpoints)
	}
	d := new(Detail)
	if err := json.Unmarshal(line, d); err != nil {
		return nil, fmt.Errorf("%w: detail: %w", replica.ErrMalformed, err)
	}
	why := ""
	switch n := len(d.Endpoints); {
	case n > MaxDetailEndpoints:
		why = fmt.Sprintf("%d endpoints", n)
	case d.Epoch.IsZero() || d.Passing != n || d.Draining < 0 || d.Total < n+d.Draining:
		why = "its counts do not add up"
	case slices.ContainsFunc(d.Endpoints, func(e api.Endpoint) bool { return !e.Status.Usable() }):
		why = "an endpoint is not usable"
	default:
		why = replica.CheckEndpoints(s.origin, d.Endpoints)
	}
	if why != "" {
		return nil, fmt.Errorf("%w: detail: %s", replica.ErrMalformed, strings.ToValidUTF8(why, "?"))
	}
	replica.ShareEndpoints(s.origin, d.Endpoints)
	return d, nil
}
