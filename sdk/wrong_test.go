package nearside

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nearside/nearside/sdk/api"
	"github.com/nearside/nearside/sdk/route"
)

// What is wrong with a configuration is said by New: the thing, the cause, the remedy.
func TestWrongConfigurationsAreRefused(t *testing.T) {
	address := func(a string) Config { return Config{Addresses: []string{a}} }
	with := func(f func(*Config)) Config {
		cfg := address("http://10.0.0.1:7400")
		f(&cfg)
		return cfg
	}
	for want, cfg := range map[string]Config{
		"Config.Addresses is empty":                    {},
		`write it like "http://10.0.0.1:7400"`:         address("localhost:7400"),
		"use 1 to 65535":                               address("http://10.0.0.1:99999"),
		"ends in /v1: leave that out":                  address("http://10.0.0.1:7400/v1/"),
		"use Config.Token for credentials":             address("http://me:secret@10.0.0.1:7400"),
		"region \"EU\" is not a valid name":            with(func(c *Config) { c.Region = "EU" }),
		"zone \"a b\" is not a valid name":             with(func(c *Config) { c.Zone = "a b" }),
		"namespace \"Shop\" is not a valid name":       with(func(c *Config) { c.Namespace = "Shop" }),
		"line break at the end of a file: trim it":     with(func(c *Config) { c.Token = "secret\n" }),
		"Config.RetryBudget is not a number":           with(func(c *Config) { c.RetryBudget = math.NaN() }),
		"Config.PollInterval is 1ns: use 100ms":        with(func(c *Config) { c.PollInterval = 1 }),
		"Config.Policy: Allowed: region \"EU\" is not": with(func(c *Config) { c.Policy = route.Policy{Allowed: []api.Region{"EU"}} }),
		`Config.Services["orders"].Policy: Order: region`: with(func(c *Config) {
			c.Services = map[string]ServiceConfig{"orders": {Policy: route.Policy{Order: []api.Region{"EU"}}}}
		}),
	} {
		c, err := New(cfg)
		if err == nil {
			_ = c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, not %q", err, want)
		}
	}
}

// Who waits for a registry in vain is told why none answered.
func TestUnreachableSaysWhy(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	t.Cleanup(page.Close)
	missing := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(missing.Close)
	for address, want := range map[string]string{
		"https" + strings.TrimPrefix(page.URL, "http"): "server gave HTTP response to HTTPS client",
		page.URL:             "the watch came as \"text/html\"",
		missing.URL:          "answered 404",
		"http://127.0.0.1:1": "connection refused",
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			c, err := New(Config{Addresses: []string{address}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			for range 2 { // the second fails at once
				if _, err = c.Pick(t.Context(), "orders"); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
}

// A program whose address and region do not fit is not registered abroad: it is told, and where
// the region that is asked knows home, calls go on as if home were away.
func TestWrongRegionIsNotRegisteredIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us", "eu")
		w.regions["us"].cut, w.regions["eu"].cut = true, true
		w.regions["us"].put("orders", "a", "a.orders:80", nil)
		c := w.client("us", func(cfg *Config) { cfg.Region = "ap" })
		const want = "us.registry:7400 is of region us, and home is ap"
		r, err := c.Register(t.Context(), Registration{Service: "shop", ID: "shop-1", Address: "10.0.0.1", Port: 1, TTL: time.Second})
		if err != nil || !r.Pending() {
			t.Fatal(r, err)
		}
		time.Sleep(time.Minute)
		if err := r.Err(); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
		if got := w.regions["us"].requests("shop-1"); len(got) > 0 {
			t.Errorf("us was asked to %v", got)
		}
		if p, err := c.Pick(t.Context(), "orders"); err != nil || p.Endpoint.ID != "a" {
			t.Error(p, err)
		}
		_ = r.Close(t.Context())

		// Of two addresses of two regions, only the one of the own region is written to.
		c = w.client("us", func(cfg *Config) {
			cfg.Region, cfg.Addresses = "eu", []string{w.regions["us"].base(), w.regions["eu"].base()}
		})
		if r, err = c.Register(t.Context(), Registration{Service: "shop", ID: "shop-2", Address: "10.0.0.1", Port: 1, TTL: time.Second}); err != nil || r.Pending() {
			t.Fatal(r, err)
		}
		time.Sleep(time.Minute)
		if len(w.regions["us"].requests("shop-2")) > 0 || w.regions["eu"].stored("shop", "shop-2") == nil || r.Err() != nil {
			t.Error(w.regions["us"].requests("shop-2"), r.Err())
		}
		_ = r.Close(t.Context())
	})
}

// Nothing that a caller passes makes the client panic.
func TestNilsAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "us")
		w.regions["us"].put("orders", "a", "a.orders:80", nil)
		c := w.client("us", nil)
		var none context.Context
		if _, err := c.Pick(none, "orders"); !errors.Is(err, errNoContext) {
			t.Error(err)
		}
		if _, err := c.Resolve(none, "orders"); !errors.Is(err, errNoContext) {
			t.Error(err)
		}
		if err := c.Watch(none, "orders", func(api.Resolution) {}); !errors.Is(err, errNoContext) {
			t.Error(err)
		}
		if err := c.Watch(t.Context(), "orders", nil); err == nil || !strings.Contains(err.Error(), "pass one") {
			t.Error(err)
		}
		reg := Registration{Service: "shop", Address: "10.0.0.1", Port: 1, DrainDelay: -1}
		if _, err := c.Register(none, reg); !errors.Is(err, errNoContext) {
			t.Error(err)
		}
		r, err := c.Register(t.Context(), reg)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{r.SetStatus(none, api.StatusPassing, ""), r.Update(none, func(*Registration) {}), r.Close(none)} {
			if !errors.Is(err, errNoContext) {
				t.Error(err)
			}
		}
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
		for _, req := range []*http.Request{{}, {URL: nil, Header: http.Header{}}} {
			if _, err := c.Transport(nil).RoundTrip(req); err == nil {
				t.Error("a request without a URL")
			}
		}
		time.Sleep(time.Second)
	})
}
