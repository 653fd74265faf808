package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// Stream is one GET /v1/watch as an outsider reads it: server-sent events taken apart by
// hand, no SDK. It belongs to one goroutine.
type Stream struct {
	body io.ReadCloser
	r    *bufio.Reader
}

// OpenStream opens a watch at a base URL. from, when not empty, goes as Last-Event-ID. A
// refusal is an *api.Error. The stream ends with ctx.
func OpenStream(ctx context.Context, c *http.Client, base string, query url.Values, from string) (*Stream, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+api.PathWatch+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if from != "" {
		req.Header.Set("Last-Event-ID", from)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		var p api.Problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			return nil, fmt.Errorf("watch: status %d: %w", resp.StatusCode, err)
		}
		return nil, p.Err()
	}
	return &Stream{body: resp.Body, r: bufio.NewReaderSize(resp.Body, 64<<10)}, nil
}

// Close ends the stream.
func (s *Stream) Close() { _ = s.body.Close() }

// Next returns the next frame and its event id, "" when it has none. An error of the
// stream's form is ErrForm; others come from the connection.
func (s *Stream) Next() (f api.Frame, id string, err error) {
	var data []byte
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return f, "", err // a frame without its end was not sent
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "":
			if f.Kind == "" {
				continue // after a retry line
			}
			kind := f.Kind
			if err := json.Unmarshal(data, &f); err != nil {
				return f, "", fmt.Errorf("%w: %w: %.200s", ErrForm, err, data)
			}
			f.Kind = kind
			return f, id, nil
		case "id":
			id = value
		case "event":
			f.Kind = api.FrameKind(value)
		case "data":
			data = []byte(value)
		case "retry":
		default:
			return f, "", fmt.Errorf("%w: line %.200q", ErrForm, line)
		}
	}
}

// ErrForm is a stream that is not made as it should be.
var ErrForm = errors.New("not an event stream of ours")
