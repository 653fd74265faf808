package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nearside/nearside/region/registry"
	"github.com/nearside/nearside/sdk/api"
)

// P8: one client cannot hold all watches of a node.
func TestCrowd(t *testing.T) {
	c := newCrowd(func() int { return 8 }, false)
	leave := map[string]func(){}
	enter := func(remote string) error {
		l, err := c.enter(remote)
		leave[remote] = l
		return err
	}
	for _, step := range []struct {
		remote string
		ok     bool
	}{
		{"10.0.0.1:1", true},
		{"[::ffff:10.0.0.1]:2", true}, // the same
		{"10.0.0.1:3", false},
		{"10.0.0.2:1", true},
		{"[2001:db8::1]:1", true},
		{"[2001:db8::2]:1", true},
		{"[2001:db8::3]:1", false}, // a network of one's own
		{"[2001:db8:0:1::1]:1", true},
		{"[::1]:1", true},
		{"127.0.0.1:1", true},
		{"pipe", true},
		{"", true}, // no address, no count
	} {
		err := enter(step.remote)
		if (err == nil) != step.ok {
			t.Errorf("%s: %v", step.remote, err)
		}
		var e *api.Error
		if err != nil && (!errors.As(err, &e) || e.Code != api.CodeTooManyRequests || e.Remedy == "") {
			t.Errorf("%s: %v", step.remote, err)
		}
	}
	leave["10.0.0.1:1"]()
	if err := enter("10.0.0.1:4"); err != nil {
		t.Errorf("one left: %v", err)
	}
	for _, l := range leave {
		if l != nil {
			l()
		}
	}
	leave["10.0.0.1:4"] = nil
	dev := newCrowd(func() int { return 4 }, true)
	for range 10 {
		if _, err := dev.enter("127.0.0.1:1"); err != nil {
			t.Fatal(err)
		}
	}
	if len(dev.open) != 0 {
		t.Errorf("%v are counted", dev.open)
	}
}

type limited struct {
	*fake
	watches int
}

func (l limited) Limits() api.Limits { return api.Limits{Watches: l.watches} }

func TestOneClientHasAQuarterOfTheWatches(t *testing.T) {
	f := newFake()
	f.onWatch = func(ctx context.Context, _ registry.WatchQuery, send func(api.Frame) error) error {
		if err := send(api.Frame{Kind: api.FrameSynced, Version: ver(1)}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	h, _ := testDoor(t, limited{f, 4}, nil)
	node := httptest.NewServer(h)
	defer node.Close()
	open := func(path string) (*http.Response, context.CancelFunc) {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, node.URL+path, nil)
		res, err := node.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return res, func() { cancel(); res.Body.Close() }
	}
	first, leave := open("/v1/watch")
	if _, err := bufio.NewReader(first.Body).ReadString('\n'); err != nil || first.StatusCode != http.StatusOK {
		t.Fatalf("%d %v", first.StatusCode, err)
	}
	for _, path := range []string{"/v1/watch", "/v1/events?follow=true"} {
		second, done := open(path)
		var p api.Problem
		if err := json.NewDecoder(second.Body).Decode(&p); err != nil || p.Status != http.StatusTooManyRequests || p.Code != api.CodeTooManyRequests {
			t.Errorf("%s: %+v %v", path, p, err)
		}
		done()
	}
	leave()
	within(t, time.Minute, "a place is free again", func() error {
		res, done := open("/v1/watch")
		defer done()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
	limits, done := open(api.PathLimits)
	defer done()
	var l api.Limits
	if err := json.NewDecoder(limits.Body).Decode(&l); err != nil || l.WatchesPerClient != 1 || l.HeaderBytes != maxHeaderBytes {
		t.Errorf("%+v %v", l, err)
	}
}
