package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// followEvents prints events as they come; a broken stream is taken up where it broke.
func (s *session) followEvents(ctx context.Context, q url.Values) error {
	switch s.out.format {
	case formatTable, formatWide, formatJSON, formatJSONL:
	default:
		return usagef(s.cmd, "following has no -o %s: use table, json or jsonl", s.out.format)
	}
	q.Set("follow", "true")
	const pause = time.Second
	begun := false
	for {
		last, err := s.eventStream(ctx, q)
		if last != "" {
			begun = true
			q.Set("since", last)
		}
		var no *api.Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &no) && !no.Code.Retryable(), errors.As(err, new(*writeError)), !begun:
			return fmt.Errorf("the stream of events broke: %w", err)
		}
		s.note("the stream broke (%s); going on in %s", asCLI(err).Error(), pause)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// eventStream reads one stream and returns the last id that it can be taken up from.
func (s *session) eventStream(ctx context.Context, q url.Values) (last string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := s.client.stream(ctx, api.PathEvents, q)
	if err != nil {
		return "", err
	}
	defer body.Close()
	var silent atomic.Bool
	silence := time.AfterFunc(watchSilence, func() { silent.Store(true); cancel() })
	defer silence.Stop()
	err = readEvents(body, func(e event) error {
		silence.Reset(watchSilence)
		if err := s.printEventFrame(e); err != nil {
			return err
		}
		if e.id != "" {
			last = e.id
		}
		return nil
	})
	switch {
	case silent.Load():
		err = fmt.Errorf("%s of silence", watchSilence)
	case err == nil:
		err = errors.New("it ended")
	}
	return last, err
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
