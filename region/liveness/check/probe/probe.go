// Package probe carries out checks: it asks an instance over HTTP, TCP or gRPC and says
// success, failure or "could not ask", with a short code. What the instance answers is
// read to a small limit and thrown away.
//
// Whoever registers an instance chooses what this node connects to. So a probe
//
//   - connects to the instance's own address only, looks its name up once, and asks a
//     [check.Guard] about the address of the very socket that is about to connect: a name
//     that resolves to something else meanwhile (rebinding) gains nothing;
//   - follows no redirect: it is a failure;
//   - uses no proxy, sends no cookie, no credential and no header that the registrant chose;
//   - keeps no connection;
//   - does not verify the certificate of an https check, as the kubelet does not: it asks
//     whether the program answers, not who it is, and sends it no secret.
package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/sdk/api"
)

// overrun is how much longer than its timeout a run may take before its failure is taken
// for this process's own: it did not run, or has too much to do.
const overrun = 500 * time.Millisecond

// userAgent is what instances see in their logs.
const userAgent = "nearside-check/1"

// Codes of outcomes that no instance sends.
const (
	codeOK        = "ok"
	codeTimeout   = "timeout"
	codeRefused   = "refused"
	codeReset     = "reset"
	codeNoRoute   = "unreachable"
	codeNoHost    = "no-such-host"
	codeForbidden = "forbidden-address"
	codeProtocol  = "bad-answer"
	codeTLS       = "tls"
	codeFailed    = "failed"
	codeNotAsked  = "not-asked"
)

// Config is what a Prober needs.
type Config struct {
	Guard check.Guard
	// Lookup resolves host names; nil = the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Prober carries out checks. It is safe for concurrent use and holds nothing open.
type Prober struct {
	guard  check.Guard
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// New returns a Prober.
func New(cfg Config) *Prober {
	p := &Prober{guard: cfg.Guard, lookup: cfg.Lookup}
	if p.lookup == nil {
		p.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return p
}

// Admit returns an error when it is known beforehand that a check of the instance cannot
// reach its target. A host name is looked at when the check is run.
func (p *Prober) Admit(address string, port int) error {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return nil
	}
	return p.guard.Check(address, netip.AddrPortFrom(ip, uint16(port)))
}

// Probe runs one check within its timeout. It returns soon after ctx ends, with
// check.Unknown.
func (p *Prober) Probe(ctx context.Context, t check.Target) check.Result {
	began := time.Now()
	pctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	var r check.Result
	switch t.Kind {
	case api.CheckHTTP, api.CheckHTTPS:
		r = p.http(pctx, t)
	case api.CheckTCP:
		r = p.tcp(pctx, t)
	case api.CheckGRPC:
		r = p.grpc(pctx, t)
	default:
		return check.Result{Code: codeNotAsked}
	}
	if ctx.Err() != nil || r.Outcome == check.Failure && time.Since(began) > t.Timeout+overrun {
		return check.Result{Code: codeNotAsked}
	}
	return r
}

func (p *Prober) tcp(ctx context.Context, t check.Target) check.Result {
	conn, err := p.dial(ctx, t)
	if err != nil {
		return failed(err)
	}
	conn.Close()
	return check.Result{Outcome: check.Success, Code: codeOK}
}

// dial connects to the target, and to nothing else.
func (p *Prober) dial(ctx context.Context, t check.Target) (net.Conn, error) {
	if t.Port < 1 || t.Port > 65535 {
		return nil, errors.New("no port")
	}
	ips, err := p.resolve(ctx, t.Address)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{
		KeepAlive: -1,
		// The socket's own address is what counts, whatever was resolved before.
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return &check.Refusal{Why: "it cannot be read"}
			}
			return p.guard.Check(t.Address, ap)
		},
	}
	var conn net.Conn
	for _, ip := range ips {
		conn, err = d.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), strconv.Itoa(t.Port)))
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return conn, err
}

// resolve returns the addresses of a host, at most two: a check has little time.
func (p *Prober) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	ips, err := p.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	return ips[:min(2, len(ips))], nil
}

// failed turns an error of asking into a result. What says more of this node than of the
// instance is no result.
func failed(err error) check.Result {
	fail := func(code string) check.Result { return check.Result{Outcome: check.Failure, Code: code} }
	var refusal *check.Refusal
	var dns *net.DNSError
	switch {
	case errors.As(err, &refusal):
		return fail(codeForbidden)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fail(codeNoHost)
	case errors.As(err, &dns):
		return check.Result{Code: codeNotAsked} // the resolver is away, not the instance
	case isAny(err, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EPERM, syscall.EACCES):
		return check.Result{Code: codeNotAsked}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isAny(err, syscall.ETIMEDOUT):
		return fail(codeTimeout)
	case isAny(err, syscall.ECONNREFUSED):
		return fail(codeRefused)
	case isAny(err, syscall.ECONNRESET, syscall.EPIPE):
		return fail(codeReset)
	case isAny(err, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN):
		return fail(codeNoRoute)
	}
	return fail(codeFailed)
}

func isAny(err error, numbers ...syscall.Errno) bool {
	for _, n := range numbers {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}
