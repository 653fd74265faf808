package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"

	"github.com/nearside/nearside/region/liveness/check"
	"github.com/nearside/nearside/sdk/api"
)

const (
	// maxAnswer is how much of an answer is read at all, head and body.
	maxAnswer = 20 << 10
	// maxBody is how much of the body is read, and thrown away: most servers then see a
	// request that ended well.
	maxBody = 4 << 10
)

// http asks with one GET on a connection of its own. There is no http.Client: no redirect,
// proxy, cookie or kept connection can come in by a setting that somebody forgot.
func (p *Prober) http(ctx context.Context, t check.Target) check.Result {
	u, err := url.ParseRequestURI(t.Path)
	if err != nil {
		return check.Result{Outcome: check.Failure, Code: codeFailed}
	}
	u.Scheme, u.Host = string(t.Kind), net.JoinHostPort(t.Address, strconv.Itoa(t.Port))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return check.Result{Outcome: check.Failure, Code: codeFailed}
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "*/*")
	req.Close = true

	conn, err := p.dial(ctx, t)
	if err != nil {
		return failed(err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	// A deadline does not end with the context of the node that shuts down.
	defer context.AfterFunc(ctx, closer(conn))()
	if t.Kind == api.CheckHTTPS {
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: serverName(t.Address)})
		if err := secure.HandshakeContext(ctx); err != nil {
			return brokenOff(ctx, err, codeTLS)
		}
		conn = secure
	}
	if err := req.Write(conn); err != nil {
		return brokenOff(ctx, err, codeReset)
	}
	answer := &io.LimitedReader{R: conn, N: maxAnswer}
	resp, err := readFinal(bufio.NewReaderSize(answer, 4<<10), req)
	if err != nil && answer.N <= 0 {
		return check.Result{Outcome: check.Failure, Code: codeProtocol}
	}
	if err != nil {
		return brokenOff(ctx, err, codeProtocol)
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxBody)
	r := check.Result{Outcome: check.Failure, Code: strconv.Itoa(resp.StatusCode)}
	// As the kubelet, 200 to 399, but what it would follow elsewhere is not followed here.
	if c := resp.StatusCode; c >= 200 && c < 400 && !redirects(c) {
		r.Outcome = check.Success
	}
	return r
}

// closer closes the connection itself: conn may stand for TLS on it by then.
func closer(conn net.Conn) func() { return func() { conn.Close() } }

// readFinal reads the answer, a few interim ones left out.
func readFinal(from *bufio.Reader, req *http.Request) (*http.Response, error) {
	for range 5 {
		resp, err := http.ReadResponse(from, req)
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
	return nil, errors.New("too many interim answers")
}

func redirects(code int) bool {
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// brokenOff is the result of a conversation that ended early. other is the code when the
// cause is none of the known ones.
func brokenOff(ctx context.Context, err error, other string) check.Result {
	if ctx.Err() != nil {
		err = ctx.Err() // the connection was closed for it
	}
	if isAny(err, syscall.ECONNRESET, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return check.Result{Outcome: check.Failure, Code: codeReset}
	}
	r := failed(err)
	if r.Code == codeFailed {
		r.Code = other
	}
	return r
}

// serverName is what a TLS server is told; an IP address is not.
func serverName(address string) string {
	if net.ParseIP(address) != nil {
		return ""
	}
	return address
}
