package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// watchSilence is how long a stream may be silent before it counts as broken: a node sends
// a bookmark every api.BookmarkInterval.
const watchSilence = 3 * api.BookmarkInterval

func (a *app) watchCommand() *cobra.Command {
	var from string
	var far bool
	c := &cobra.Command{
		Use:   "watch SERVICE…",
		Short: "Follow the instances of services as they change",
		Long: `Follow the instances of services: those there are, then every change in order, until
interrupted. A broken stream is taken up again where it broke.

-o json and -o jsonl print one frame of the API a line, with its kind as "event".`,
		Example: `  nearside watch orders
  nearside watch orders payments -o jsonl`,
		Args:              argCount(1, api.MaxWatchServices, "the service"),
		ValidArgsFunction: a.completeServices,
		RunE: a.verb(func(ctx context.Context, s *session, args []string) error {
			return s.watch(ctx, args, from, far)
		}),
	}
	c.Flags().StringVar(&from, "since", "", "version to go on from (the id of an earlier frame), instead of all instances first")
	c.Flags().BoolVar(&far, "far", false, "also what other regions tell about the services")
	withoutEnv(c.Flags(), "since", "far")
	return c
}

// watch follows GET /v1/watch.
func (s *session) watch(ctx context.Context, services []string, from string, far bool) error {
	q := s.query()
	for _, name := range services {
		if err := checkService(name); err != nil {
			return err
		}
		q.Add("service", name)
	}
	if far {
		q.Set("far", "true")
	}
	return s.followAll(ctx, api.PathWatch, q, from)
}

// followAll follows a stream of frames and takes it up again where it broke, until ctx ends.
func (s *session) followAll(ctx context.Context, path string, q url.Values, from string) error {
	switch s.out.format {
	case formatTable, formatWide, formatJSON, formatJSONL:
	default:
		return usagef(s.cmd, "watch has no -o %s: use table, json or jsonl", s.out.format)
	}
	const pause = time.Second
	for {
		last, err := s.follow(ctx, path, q, from)
		if last != "" {
			from = last
		}
		var no *api.Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &no) && !no.Code.Retryable(), errors.As(err, new(*writeError)), last == "" && from == "":
			return fmt.Errorf("the watch broke: %w", err) // by an answer, or before it worked
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

// writeError says that stdout is gone, which no new stream cures.
type writeError struct{ error }

// follow reads one stream and returns the last version that it can be taken up from.
func (s *session) follow(ctx context.Context, path string, q url.Values, from string) (string, error) {
	if from != "" {
		q.Set("from", from)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := s.client.stream(ctx, path, q)
	if err != nil {
		return "", err
	}
	defer body.Close()
	var silent atomic.Bool
	silence := time.AfterFunc(watchSilence, func() { silent.Store(true); cancel() })
	defer silence.Stop()

	last := ""
	err = readEvents(body, func(e event) error {
		silence.Reset(watchSilence)
		if err := s.printFrame(e); err != nil {
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

// event is one server-sent event.
type event struct {
	name, id string
	data     []byte
}

// readEvents reads server-sent events until the stream ends or f fails. A comment counts as
// an event without a name.
func readEvents(r io.Reader, f func(event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), 8<<20)
	var e event
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			if err := f(e); err != nil {
				return err
			}
			e = event{}
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			e.name = string(value)
		case "id":
			e.id = string(value)
		case "data":
			if e.data != nil {
				e.data = append(e.data, '\n')
			}
			e.data = append(e.data, value...)
		}
	}
	return lines.Err()
}

func (s *session) printFrame(e event) error {
	if e.name == "" || len(e.data) == 0 {
		return nil
	}
	var f api.Frame
	if err := json.Unmarshal(e.data, &f); err != nil {
		return fmt.Errorf("a frame of the watch is not the API's: %w", err)
	}
	f.Kind = api.FrameKind(e.name)
	var b bytes.Buffer
	if s.out.machine() {
		line := struct {
			Event api.FrameKind `json:"event"`
			api.Frame
		}{f.Kind, f}
		if err := encodeJSON(&b, line, ""); err != nil {
			return err
		}
	} else if text := s.frameText(f); text != "" {
		fmt.Fprintf(&b, "%s  %s\n", s.now().Format(time.TimeOnly), clean(text))
	}
	if b.Len() == 0 {
		return nil
	}
	if _, err := s.stdout.Write(b.Bytes()); err != nil {
		return &writeError{err}
	}
	return nil
}

// frameText is a frame for people; "" for those that only keep the stream going.
func (s *session) frameText(f api.Frame) string {
	switch f.Kind {
	case api.FrameItem, api.FrameChange:
		if f.KV != nil {
			return keyText(f)
		}
		i := f.Instance
		if i == nil {
			return ""
		}
		what := "is"
		if f.Kind == api.FrameChange {
			what = string(f.Op)
			if f.Cause != "" {
				what += " (" + string(f.Cause) + ")"
			}
		}
		return fmt.Sprintf("%-19s  %s  %s  %s", what, i.Key(), hostPort(i.Address, i.Port), status(i.Status, i.Overdue).text)
	case api.FrameSynced:
		return "synced               at " + f.Version.String()
	case api.FrameReset:
		return "reset                " + f.Reason
	case api.FrameReplica:
		if f.Origin == nil {
			return ""
		}
		if f.Summary == nil {
			return fmt.Sprintf("replica              %s has no %s", f.Origin.Region, f.Service)
		}
		return fmt.Sprintf("replica              %s: %d instances of %s, %d passing", f.Origin.Region, f.Summary.Total, f.Service, f.Summary.Passing)
	}
	return ""
}

// stream opens a request without an end at the first address that answers.
func (c *client) stream(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	var first error
	for _, addr := range c.addrs {
		body, err := c.streamFrom(ctx, addr, path, query)
		if err == nil || errors.As(err, new(*api.Error)) {
			return body, err
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func (c *client) streamFrom(ctx context.Context, addr, path string, query url.Values) (io.ReadCloser, error) {
	req, err := c.request(ctx, http.MethodGet, addr+path+"?"+query.Encode())
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.noAnswer(ctx, addr, false, err)
	}
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if resp.StatusCode == http.StatusOK && media == "text/event-stream" {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return nil, problem(answer{addr: addr, status: resp.StatusCode}, content{data: data, requestID: resp.Header.Get(api.HeaderRequestID)})
}
