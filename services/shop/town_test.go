package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// town stands in for all registries: everybody who registered is known to everybody, and
// a call goes to the first registered instance of a service that can be connected to.
type town struct {
	base *http.Transport

	mu      sync.Mutex
	places  map[string][]instance // by service
	left    []string              // ids, in order
	onLeave func(instance)
	silent  bool // nothing is ever acknowledged
	refuse  error
	apps    map[string]bool
}

func newTown(t *testing.T) *town {
	t.Helper()
	n := &town{base: &http.Transport{}, places: map[string][]instance{}, apps: map[string]bool{}}
	t.Cleanup(n.base.CloseIdleConnections)
	return n
}

func (n *town) dial(home peerConfig) (peers, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.apps[home.app] = true
	return &resident{town: n, home: home}, nil
}

func (n *town) instances(service string) []instance {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]instance(nil), n.places[service]...)
}

type resident struct {
	*town
	home peerConfig
}

func (r *resident) Close() error { return nil }

func (r *resident) Register(ctx context.Context, self instance) (func(context.Context) error, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != nil {
		return nil, r.refuse
	}
	if r.silent {
		return func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, nil
	}
	r.places[self.service] = append(r.places[self.service], self)
	return func(context.Context) error {
		if r.onLeave != nil {
			r.onLeave(self)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.left = append(r.left, self.id)
		return nil
	}, nil
}

func (r *resident) Transport(http.RoundTripper) http.RoundTripper {
	traces := r.home.traces
	if traces == nil {
		traces = nooptrace.NewTracerProvider()
	}
	return otelhttp.NewTransport(roundTrip(r.carry), otelhttp.WithTracerProvider(traces),
		otelhttp.WithPropagators(propagation.TraceContext{}), otelhttp.WithMeterProvider(noop.NewMeterProvider()))
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (r *resident) carry(req *http.Request) (*http.Response, error) {
	err := error(errors.New("nobody offers it"))
	for _, at := range r.instances(req.URL.Host) {
		try := req.Clone(req.Context())
		if req.GetBody != nil {
			try.Body, _ = req.GetBody()
		}
		try.URL.Host = net.JoinHostPort(at.address, strconv.Itoa(at.port))
		var resp *http.Response
		if resp, err = r.base.RoundTrip(try); err == nil {
			return resp, nil
		}
	}
	return nil, fmt.Errorf("service %s: %w", req.URL.Host, err)
}

// open runs a shop until the test or stop ends it, and returns when it is ready.
func open(t *testing.T, n *town, cfg Config) (ready Ready, stop func() error) {
	t.Helper()
	if cfg.Registry == nil {
		cfg.Registry = []string{"http://127.0.0.1:1"}
	}
	if cfg.Region == "" {
		cfg.Region = "eu-west"
	}
	return openOn(t, n.dial, cfg)
}

// openOn is open with any discovery.
func openOn(t *testing.T, dial dialer, cfg Config) (ready Ready, stop func() error) {
	t.Helper()
	readies := make(chan Ready, 1)
	cfg.OnReady = func(r Ready) { readies <- r }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg, dial) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	select {
	case ready = <-readies:
	case err := <-ended:
		ended <- err
		t.Fatalf("shop ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("shop is not ready after 10 s")
	}
	return ready, stop
}

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) problem(t *testing.T) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("%d %q is not a JSON error: %v", a.status, a.body, err)
	}
	return p
}

func ask(t *testing.T, n *town, method, url string, body any, header ...string) answer {
	t.Helper()
	var in io.Reader = http.NoBody
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, in)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := n.base.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, data}
}

func decode[T any](t *testing.T, a answer) T {
	t.Helper()
	var out T
	dec := json.NewDecoder(bytes.NewReader(a.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return out
}

func readLines[T any](t *testing.T, path string) []T {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parseLines[T](t, data)
}

func parseLines[T any](t *testing.T, data []byte) []T {
	t.Helper()
	var out []T
	for line := range strings.Lines(string(data)) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		out = append(out, v)
	}
	return out
}
