package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// followEvents prints events as they come.
func (s *session) followEvents(ctx context.Context, q url.Values) error {
	q.Set("follow", "true")
	return s.follow(ctx, stream{what: "following of events", path: api.PathEvents, query: q, resume: "since", show: s.printEventFrame})
}

// printEventFrame prints one frame of a stream of events. A gap goes to stderr, so that
// stdout has events and nothing else.
func (s *session) printEventFrame(frame event) error {
	switch frame.name {
	case api.EventFrameGap:
		var g api.EventGap
		if json.Unmarshal(frame.data, &g) == nil {
			s.note("between the ids %d and %d events may be missing: too old, or lost when the node was killed", g.After, g.Next)
		}
		return nil
	case api.EventFrameEvent:
	default:
		return nil
	}
	var e api.Event
	if err := json.Unmarshal(frame.data, &e); err != nil {
		return fmt.Errorf("a frame of the stream is not the API's: %w", err)
	}
	var b bytes.Buffer
	if s.out.machine() {
		if err := encodeJSON(&b, e, ""); err != nil {
			return err
		}
	} else {
		t := sheet{b: &b, color: s.out.color}
		t.line("%s  %s  %-14s  %s  %s  %s", e.Time.Format(time.RFC3339), strconv.FormatUint(e.ID, 10), e.Kind, e.Subject, causeText(e.Cause), e.Detail)
	}
	if _, err := s.stdout.Write(b.Bytes()); err != nil {
		return &writeError{err}
	}
	return nil
}
