package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

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

// followAll follows a stream of frames of the API.
func (s *session) followAll(ctx context.Context, path string, q url.Values, from string) error {
	if _, err := api.ParseVersion(from); err != nil {
		return usagef(s.cmd, "--since %q is not a version: give the id of an earlier frame, REGION/EPOCH/REVISION", from)
	}
	if from != "" {
		q.Set("from", from)
	}
	return s.follow(ctx, stream{what: "watch", path: path, query: q, resume: "from", show: s.printFrame})
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
	return c.first(ctx, func(addr string) (io.ReadCloser, error) { return c.streamFrom(ctx, addr, path, query) })
}

func (c *client) streamFrom(ctx context.Context, addr, path string, query url.Values) (io.ReadCloser, error) {
	resp, err := c.open(ctx, addr, path+"?"+query.Encode(), "text/event-stream", c.patience(http.MethodGet, path))
	if err != nil {
		return nil, err
	}
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if resp.StatusCode == http.StatusOK && media == "text/event-stream" {
		return resp.Body, nil
	}
	return nil, c.refusal(addr, resp)
}

// refusal reads what a node answered instead of what was asked for.
func (c *client) refusal(addr string, resp *http.Response) error {
	defer resp.Body.Close()
	var data []byte
	if resp.StatusCode != http.StatusOK { // read already, and whole
		data, _ = io.ReadAll(resp.Body)
	}
	return problem(answer{addr: addr, status: resp.StatusCode}, content{data: data, requestID: resp.Header.Get(api.HeaderRequestID)})
}
