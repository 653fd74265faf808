package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/sdk/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dev is a prober that may reach this machine.
func dev() *Prober { return New(Config{Guard: check.Guard{AllowLoopback: true}}) }

func target(kind api.CheckKind, addr net.Addr) check.Target {
	a := addr.(*net.TCPAddr)
	return check.Target{Kind: kind, Address: a.IP.String(), Port: a.Port, Path: "/", Timeout: 5 * time.Second}
}

func want(t *testing.T, name string, r check.Result, o check.Outcome, code string) {
	t.Helper()
	if r.Outcome != o || r.Code != code {
		t.Errorf("%s: outcome %d code %q, want %d %q", name, r.Outcome, r.Code, o, code)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// closedPort returns an address where nobody listens.
func closedPort(t *testing.T) net.Addr {
	t.Helper()
	l := listen(t)
	l.Close()
	return l.Addr()
}

func TestHTTP(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	release := make(chan struct{})
	mux := http.NewServeMux()
	status := func(path string, code int) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			if code >= 300 && code < 400 && code != 304 {
				w.Header().Set("Location", other.URL)
			}
			w.WriteHeader(code)
		})
	}
	for _, code := range []int{200, 204, 300, 301, 302, 303, 304, 307, 308, 401, 404, 500, 503} {
		status(fmt.Sprintf("/%d", code), code)
	}
	mux.HandleFunc("/chain", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/200", http.StatusFound) })
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, io.LimitReader(zeros{}, 100<<20))
	})
	mux.HandleFunc("/bighead", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 64<<10)) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() != userAgent || len(r.Cookies()) > 0 || r.Header.Get("Authorization") != "" || r.URL.Query().Get("deep") != "1" {
			w.WriteHeader(http.StatusBadRequest)
		}
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	defer close(release)
	p := dev()
	for path, r := range map[string]check.Result{
		"/200": {Outcome: check.Success, Code: "200"}, "/204": {Outcome: check.Success, Code: "204"}, "/300": {Outcome: check.Success, Code: "300"},
		"/304": {Outcome: check.Success, Code: "304"}, "/301": {Outcome: check.Failure, Code: "301"}, "/302": {Outcome: check.Failure, Code: "302"},
		"/303": {Outcome: check.Failure, Code: "303"}, "/307": {Outcome: check.Failure, Code: "307"}, "/308": {Outcome: check.Failure, Code: "308"},
		"/401": {Outcome: check.Failure, Code: "401"}, "/404": {Outcome: check.Failure, Code: "404"}, "/500": {Outcome: check.Failure, Code: "500"},
		"/503": {Outcome: check.Failure, Code: "503"}, "/chain": {Outcome: check.Failure, Code: "302"}, "/early": {Outcome: check.Success, Code: "200"},
		"/big": {Outcome: check.Success, Code: "200"}, "/bighead": {Outcome: check.Failure, Code: codeProtocol}, "/who?deep=1": {Outcome: check.Success, Code: "200"},
		"/nowhere": {Outcome: check.Failure, Code: "404"},
	} {
		tg := target(api.CheckHTTP, srv.Listener.Addr())
		tg.Path = path
		want(t, path, p.Probe(t.Context(), tg), r.Outcome, r.Code)
	}
	want(t, "the same again, with the cookie thrown away", p.Probe(t.Context(), func() check.Target {
		tg := target(api.CheckHTTP, srv.Listener.Addr())
		tg.Path = "/who?deep=1"
		return tg
	}()), check.Success, "200")
	slow := target(api.CheckHTTP, srv.Listener.Addr())
	slow.Path, slow.Timeout = "/slow", 50*time.Millisecond
	want(t, "slow", p.Probe(t.Context(), slow), check.Failure, codeTimeout)
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("redirects were followed %d times", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	slow.Timeout = time.Minute
	want(t, "the node shuts down", p.Probe(ctx, slow), check.Unknown, codeNotAsked)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestHTTPS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	p := dev()
	want(t, "a certificate that nobody signed", p.Probe(t.Context(), target(api.CheckHTTPS, srv.Listener.Addr())), check.Success, "200")
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	want(t, "no TLS there", p.Probe(t.Context(), target(api.CheckHTTPS, plain.Listener.Addr())), check.Failure, codeTLS)
	want(t, "TLS where none is expected", p.Probe(t.Context(), target(api.CheckHTTP, srv.Listener.Addr())), check.Failure, "400")
}

// A check that is called off in the middle of an answer closes its connection from another goroutine:
// of use with the race detector.
func TestHTTPSCalledOff(t *testing.T) {
	over := make(chan struct{})
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	defer srv.Close()
	defer close(over)
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		// Not by the server: what goes over a connection puts the two in order.
		called := time.AfterFunc(50*time.Millisecond, cancel)
		if r := dev().Probe(ctx, target(api.CheckHTTPS, srv.Listener.Addr())); r.Outcome == check.Success {
			t.Errorf("%+v of a check that was called off", r)
		}
		called.Stop()
		cancel()
	}
}

func TestTCP(t *testing.T) {
	l := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	p := dev()
	want(t, "open", p.Probe(t.Context(), target(api.CheckTCP, l.Addr())), check.Success, codeOK)
	want(t, "closed", p.Probe(t.Context(), target(api.CheckTCP, closedPort(t))), check.Failure, codeRefused)
	for _, kind := range []api.CheckKind{api.CheckHTTP, api.CheckHTTPS, api.CheckGRPC} {
		want(t, "closed "+string(kind), p.Probe(t.Context(), target(kind, closedPort(t))), check.Failure, codeRefused)
		r := p.Probe(t.Context(), target(kind, l.Addr()))
		want(t, "hangs up at "+string(kind), r, check.Failure, codeReset)
	}
	noPort := target(api.CheckTCP, l.Addr())
	noPort.Port = 0
	want(t, "no port", p.Probe(t.Context(), noPort), check.Failure, codeFailed)
	want(t, "an unknown kind", p.Probe(t.Context(), target("script", l.Addr())), check.Unknown, codeNotAsked)
}

func TestGRPC(t *testing.T) {
	l := listen(t)
	srv, status := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(srv, status)
	go func() { _ = srv.Serve(l) }()
	defer srv.Stop()
	status.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	p := dev()
	for service, r := range map[string]check.Result{
		"": {Outcome: check.Success, Code: "SERVING"}, "sick": {Outcome: check.Failure, Code: "NOT_SERVING"},
		"nobody": {Outcome: check.Failure, Code: "NotFound"},
	} {
		tg := target(api.CheckGRPC, l.Addr())
		tg.Service = service
		want(t, "service "+service, p.Probe(t.Context(), tg), r.Outcome, r.Code)
	}
	bare := grpc.NewServer()
	l2 := listen(t)
	go func() { _ = bare.Serve(l2) }()
	defer bare.Stop()
	want(t, "no health service", p.Probe(t.Context(), target(api.CheckGRPC, l2.Addr())), check.Failure, "Unimplemented")
	mute := listen(t) // accepts, and says nothing
	tg := target(api.CheckGRPC, mute.Addr())
	tg.Timeout = 100 * time.Millisecond
	want(t, "mute", p.Probe(t.Context(), tg), check.Failure, codeTimeout)
}

// SSRF: the table of the design. A server on this machine must see nothing of any of them.
func TestAddressesThatAreNotTheInstances(t *testing.T) {
	var hits atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer srv.Close()
	port := srv.Listener.Addr().(*net.TCPAddr).Port
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	lookup := func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "local.example":
			return loopback, nil
		case "metadata.example":
			return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
		case "mapped.example":
			return []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1")}, nil
		case "zero.example":
			return []netip.Addr{netip.MustParseAddr("0.0.0.0")}, nil
		}
		// What some C libraries read as 127.0.0.1 is a name like any other here; suppose that a
		// resolver plays along.
		return loopback, nil
	}
	prober := New(Config{Lookup: lookup})
	inDev := New(Config{Guard: check.Guard{AllowLoopback: true}, Lookup: lookup})
	for _, address := range []string{
		"127.0.0.1", "127.1", "2130706433", "0x7f000001", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "169.254.169.254",
		"0.0.0.0", "::", "fe80::1", "169.254.10.10", "local.example", "metadata.example", "mapped.example", "zero.example", "localhost",
	} {
		for _, kind := range []api.CheckKind{api.CheckHTTP, api.CheckHTTPS, api.CheckTCP, api.CheckGRPC} {
			tg := check.Target{Kind: kind, Address: address, Port: port, Path: "/", Timeout: 5 * time.Second}
			want(t, string(kind)+" "+address, prober.Probe(t.Context(), tg), check.Failure, codeForbidden)
			if address != "127.0.0.1" && address != "::1" && address != "::ffff:127.0.0.1" && address != "localhost" {
				want(t, "dev: "+string(kind)+" "+address, inDev.Probe(t.Context(), tg), check.Failure, codeForbidden)
			}
		}
		if err := prober.Admit(address, port); err == nil && netip.Addr.IsValid(parse(address)) {
			t.Errorf("%s is admitted", address)
		}
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("a server on this machine was asked %d times", n)
	}
	own := New(Config{Guard: check.Guard{AllowLoopback: true, Own: []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port))}}})
	want(t, "this node's own port", own.Probe(t.Context(), target(api.CheckHTTP, srv.Listener.Addr())), check.Failure, codeForbidden)
}

func parse(s string) netip.Addr {
	ip, _ := netip.ParseAddr(s)
	return ip
}

// A name that leads to a harmless address when it is looked at, and elsewhere a moment
// later, gains nothing: the connected address decides.
func TestRebindingName(t *testing.T) {
	l := listen(t)
	var lookups atomic.Int64
	p := New(Config{
		Guard: check.Guard{AllowLoopback: true},
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			if lookups.Add(1)%2 == 1 {
				return []netip.Addr{netip.MustParseAddr("10.255.255.1")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254")}, nil
		},
	})
	tg := target(api.CheckTCP, l.Addr())
	tg.Address, tg.Timeout = "rebind.example", 20*time.Millisecond
	first := p.Probe(t.Context(), tg)
	if first.Outcome == check.Success || first.Code == codeForbidden {
		t.Errorf("the harmless address: %+v", first)
	}
	want(t, "the second look", p.Probe(t.Context(), tg), check.Failure, codeForbidden)
	if n := lookups.Load(); n != 2 {
		t.Errorf("%d look-ups for two runs: the name is looked up once for each", n)
	}
}

// What says more of this node than of the instance is no result.
func TestErrorsOfOurOwnAreDiscarded(t *testing.T) {
	wrap := func(e error) error { return &net.OpError{Op: "dial", Err: e} }
	for name, tc := range map[string]struct {
		err  error
		o    check.Outcome
		code string
	}{
		"no file descriptor":   {wrap(syscall.EMFILE), check.Unknown, codeNotAsked},
		"no port left":         {wrap(syscall.EADDRNOTAVAIL), check.Unknown, codeNotAsked},
		"resolver away":        {&net.DNSError{Err: "server misbehaving", IsTemporary: true}, check.Unknown, codeNotAsked},
		"resolver slow":        {&net.DNSError{Err: "timeout", IsTimeout: true}, check.Unknown, codeNotAsked},
		"no such name":         {&net.DNSError{Err: "no such host", IsNotFound: true}, check.Failure, codeNoHost},
		"no route":             {wrap(syscall.EHOSTUNREACH), check.Failure, codeNoRoute},
		"reset":                {wrap(syscall.ECONNRESET), check.Failure, codeReset},
		"deadline":             {fmt.Errorf("x: %w", context.DeadlineExceeded), check.Failure, codeTimeout},
		"anything else at all": {errors.New("x"), check.Failure, codeFailed},
	} {
		want(t, name, failed(tc.err), tc.o, tc.code)
	}
	p := New(Config{Lookup: func(context.Context, string) ([]netip.Addr, error) { return nil, nil }})
	want(t, "a name without an address", p.Probe(t.Context(), check.Target{Kind: api.CheckTCP, Address: "x.example", Port: 80, Timeout: time.Second}), check.Failure, codeNoHost)
}

func BenchmarkHTTP(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer srv.Close()
	p, tg := dev(), target(api.CheckHTTP, srv.Listener.Addr())
	b.ReportAllocs()
	for b.Loop() {
		if r := p.Probe(b.Context(), tg); r.Outcome == check.Failure {
			b.Fatal(r)
		}
	}
}
