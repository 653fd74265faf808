package nearside

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/nearside/nearside/sdk/api"
)

// benchShop returns a client for which the service shop is the one instance at address.
func benchShop(b *testing.B, address string, change func(*Config)) *Client {
	b.Helper()
	host, port, _ := net.SplitHostPort(address)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderRegion, "us")
		w.Header().Set("Content-Type", "text/event-stream")
		v := `"version":{"region":"us","epoch":"1-0000000000000001","revision":7}`
		for i := range 3 {
			fmt.Fprintf(w, "event: item\ndata: {%s,\"service\":\"shop\",\"instance\":{\"id\":\"s%d\",\"address\":%q,\"port\":%s,\"weight\":100,\"status\":\"passing\"}}\n\n", v, i, host, port)
		}
		fmt.Fprintf(w, "event: synced\ndata: {%s}\n\n", v)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	b.Cleanup(srv.Close)
	cfg := Config{Addresses: []string{srv.URL}}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// BenchmarkTransport: a call through the client beside the same call through the base alone,
// without a network (what the client adds, in time and allocations) and over loopback to an
// HTTP server that answers "ok" (the ratio, as users see it).
func BenchmarkTransport(b *testing.B) {
	for _, body := range []string{"", "ok"} {
		nothing := tripper(func(req *http.Request) (*http.Response, error) {
			resp := &http.Response{StatusCode: 200, Header: make(http.Header, 4), Request: req, Body: http.NoBody}
			if body != "" {
				resp.Body = io.NopCloser(new(once))
			}
			return resp, nil
		})
		name := map[string]string{"": "no network, no body", "ok": "no network, body"}[body]
		compare(b, name, nothing, "h:1", nil)
		if body != "" {
			compare(b, name+", hedging and slow calls on", nothing, "h:1", func(cfg *Config) {
				cfg.SlowCall, cfg.Hedge = 1<<40, Hedge{After: 1 << 40}
			})
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer srv.Close()
	base := newBase()
	defer base.CloseIdleConnections()
	compare(b, "loopback", base, srv.Listener.Addr().String(), nil)
}

// once is a body of one byte.
type once struct{ read bool }

func (o *once) Read(p []byte) (int, error) {
	if o.read {
		return 0, io.EOF
	}
	o.read = true
	return copy(p, "x"), nil
}

func compare(b *testing.B, name string, base http.RoundTripper, address string, change func(*Config)) {
	run := func(b *testing.B, rt http.RoundTripper, url string) float64 {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			resp, err := rt.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		return float64(b.Elapsed().Nanoseconds()) / float64(b.N)
	}
	plain := 0.0
	b.Run(name+"/base alone", func(b *testing.B) { plain = run(b, base, "http://"+address+"/v1/items/"+strconv.Itoa(7)) })
	c := benchShop(b, address, change)
	rt := c.Transport(base)
	if _, err := c.Pick(b.Context(), "shop"); err != nil {
		b.Fatal(err)
	}
	b.Run(name+"/through the client", func(b *testing.B) {
		ns := run(b, rt, "http://shop/v1/items/"+strconv.Itoa(7))
		if plain > 0 {
			b.ReportMetric(ns-plain, "ns-added/op")
			b.ReportMetric(ns/plain, "x-base")
		}
	})
}
