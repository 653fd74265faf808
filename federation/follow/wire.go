package follow

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nearside/nearside/sdk/api"
)

// maxFrame bounds one frame of a watch, and maxAnswer another answer.
const (
	maxFrame  = 8 << 20
	maxAnswer = 4 << 20
)

var errSilent = errors.New("no sign of life from the node")

func newHTTP(hc *http.Client) *http.Client {
	var c http.Client
	if hc != nil {
		c = *hc
	} else {
		c.Transport = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout: 3 * time.Second,
			IdleConnTimeout:     30 * time.Second,
		}
	}
	c.Timeout = 0
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// session follows one node until its stream ends. It returns why.
func (f *Follower) session(ctx context.Context, base string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	node, err := f.look(ctx, base)
	if err != nil {
		return err
	}
	f.found(base, node)
	f.mu.Lock()
	from := f.state.open()
	f.mu.Unlock()
	q := url.Values{"ns": {string(api.AllNamespaces)}, "bookmark": {BookmarkInterval.String()}}
	if !from.IsZero() {
		q.Set("from", from.String())
	}
	alive := time.AfterFunc(answerLimit, func() { cancel(errSilent) })
	defer alive.Stop()
	resp, err := f.send(ctx, http.MethodGet, base, api.PathWatch+"?"+q.Encode(), nil)
	if err != nil {
		return causeOf(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode != http.StatusOK {
		return refusal(base, resp)
	}
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		f.lookOn(ctx, base)
	}()
	defer func() { cancel(nil); <-looked }()
	err = readEvents(&sign{in: resp.Body, alive: alive}, func(kind string, data []byte) error {
		at := time.Now()
		var frame api.Frame
		if err := json.Unmarshal(data, &frame); err != nil {
			return fmt.Errorf("a frame cannot be read: %w", err)
		}
		frame.Kind = api.FrameKind(kind)
		return f.take(&frame, at)
	})
	if err == nil {
		err = errors.New("the node ended the stream")
	}
	return causeOf(ctx, err)
}

func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		return cause
	}
	return err
}

// sign takes every byte as a sign of life.
type sign struct {
	in    io.Reader
	alive *time.Timer
}

func (s *sign) Read(p []byte) (int, error) {
	s.alive.Reset(SilenceLimit)
	return s.in.Read(p)
}

// look asks what the node says of its region, and returns its name.
func (f *Follower) look(ctx context.Context, base string) (node string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	resp, err := f.send(ctx, http.MethodGet, base, api.PathRegion(f.cfg.Region), nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode != http.StatusOK {
		err := refusal(base, resp)
		if api.CodeOf(err) == api.CodeRegionNotFound {
			return "", f.other(ctx, base)
		}
		return "", err
	}
	var info api.RegionInfo
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&info); err != nil {
		return "", fmt.Errorf("%s is no node of a region: its answer cannot be read: %w", base, err)
	}
	if !info.Self {
		return "", f.other(ctx, base) // one of our peers
	}
	f.note(&info)
	return resp.Header.Get(api.HeaderNode), nil
}

// other says whose node it is that is none of ours.
func (f *Follower) other(ctx context.Context, base string) error {
	var list struct{ Home api.Region }
	resp, err := f.send(ctx, http.MethodGet, base, api.PathRegions, nil)
	if err == nil {
		defer func() { _ = resp.Body.Close() }() // only read from
		err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&list)
	}
	if err != nil || list.Home == "" {
		return fmt.Errorf("%w: %s is no node of region %s", ErrOtherRegion, base, f.cfg.Region)
	}
	return fmt.Errorf("%w: %s is a node of region %s, not of %s", ErrOtherRegion, base, api.Quote(string(list.Home)), f.cfg.Region)
}

// lookOn keeps the addresses up to date.
func (f *Follower) lookOn(ctx context.Context, base string) {
	t := time.NewTicker(lookInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if _, err := f.look(ctx, base); err != nil && ctx.Err() == nil {
				f.log.Debug("the region's addresses could not be read", "url", base, "error", err)
			}
		}
	}
}

// strong returns where the region's store stands.
func (f *Follower) strong(ctx context.Context, base string) (api.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	at := api.Version{Region: f.cfg.Region}
	resp, err := f.send(ctx, http.MethodHead, base, api.PathServices+"?consistency=strong", nil)
	if err != nil {
		return at, err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode != http.StatusOK {
		return at, refusal(base, resp)
	}
	if at.Epoch, err = api.ParseEpoch(resp.Header.Get(api.HeaderEpoch)); err != nil {
		return at, err
	}
	at.Revision, err = strconv.ParseUint(resp.Header.Get(api.HeaderRevision), 10, 64)
	return at, err
}

// raise asks one node to raise the epoch.
func (f *Follower) raise(ctx context.Context, base string, above uint64) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	body, err := json.Marshal(api.EpochRaise{Above: above})
	if err != nil {
		return err
	}
	resp, err := f.send(ctx, http.MethodPost, base, api.PathEpoch(f.cfg.Region), body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	if resp.StatusCode != http.StatusOK {
		return refusal(base, resp)
	}
	return nil
}

func (f *Follower) send(ctx context.Context, method, base, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if f.cfg.Token != nil {
		token, err := f.cfg.Token()
		if err != nil {
			return nil, err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	}
	resp, err := f.http.Do(req)
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // its text repeats the whole URL
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w within %s", errSilent, answerLimit)
	}
	return resp, err
}

// refusal reads a node's no.
func refusal(base string, resp *http.Response) error {
	var err error = fmt.Errorf("%s answers with status %d", base, resp.StatusCode)
	var p api.Problem
	body, rerr := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if rerr == nil && json.Unmarshal(body, &p) == nil && p.Code != "" {
		err = fmt.Errorf("%s: %w", base, p.Err())
	}
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// readEvents reads server-sent events until the stream ends or take fails.
func readEvents(r io.Reader, take func(kind string, data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxFrame)
	var kind string
	var data []byte
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			if len(data) > 0 {
				if err := take(kind, data); err != nil {
					return err
				}
			}
			kind, data = "", data[:0]
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			kind = string(value)
		case "data":
			data = append(data, value...)
		}
	}
	return lines.Err()
}
