package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

func (a *app) checkCommand() *cobra.Command {
	group := &cobra.Command{
		Use:     "check",
		Short:   "Check a condition, for health checks of containers and monitors",
		Example: `  nearside check ready`,
	}
	var readyFile string
	ready := &cobra.Command{
		Use:   "ready",
		Short: "Check that a node is ready to serve",
		Long: `Check that a node is ready to serve, and print one line that says so, or why not.

A node on this machine is asked over TLS when it has that, whoever signed its certificate: no token is
sent. --ready-file asks the node that writes the file, on whatever port it listens; without the file it
is not ready.

Exit 0 ready · 4 not ready · 5 no node answers · 8 it does not answer in time.`,
		Example: `  nearside check ready
  nearside check ready --addr http://10.0.0.1:7400 --timeout 2s
  nearside check ready --ready-file /run/nearside/ready.json
  HEALTHCHECK CMD ["/nearside", "check", "ready"]   # in a Dockerfile`,
		Args: argCount(0, 0, ""),
		RunE: a.verb(func(ctx context.Context, s *session, _ []string) error { return s.checkReady(ctx, readyFile) }),
	}
	ready.Flags().StringVar(&readyFile, "ready-file", "", "ask the node that writes this file (its --ready-file); not with --addr")
	group.AddCommand(ready)
	return group
}

// checkReady prints GET /readyz. A node that is not ready says so with 503 and the same body.
func (s *session) checkReady(ctx context.Context, readyFile string) error {
	got, body, err := s.askReady(ctx, readyFile)
	if err != nil {
		var ce *cliError
		if errors.As(err, &ce) && ce.exit != ExitUsage && !s.out.machine() {
			if printErr := s.out.print(view{text: func(t *sheet) { t.line("CRITICAL: %s", ce.detail) }}); printErr != nil {
				return printErr
			}
			ce.silent = true
		}
		return err
	}
	var r api.Readiness
	if json.Unmarshal(body.data, &r) != nil || r.Checks == nil && r.Node == "" {
		e := asCLI(problem(got, body))
		if e.code == api.CodeUnavailable || e.code == api.CodeShuttingDown {
			e.exit = ExitFalse // it was reached, and says itself that it is not ready
		}
		return e
	}
	ready := r.Ready && got.status >= 200 && got.status < 300
	var failing, passing []string
	for _, c := range r.Checks {
		switch {
		case c.OK:
			passing = append(passing, c.Name)
		case c.Cause == "":
			failing = append(failing, c.Name)
		default:
			failing = append(failing, c.Name+": "+c.Cause)
		}
	}
	line := fmt.Sprintf("OK: %s/%s is ready", r.Region, r.Node)
	if len(passing) > 0 {
		line += " (" + strings.Join(passing, ", ") + ")"
	}
	if !ready {
		line = fmt.Sprintf("CRITICAL: %s/%s is not ready", r.Region, r.Node)
		if len(failing) > 0 {
			line += ": " + strings.Join(failing, "; ")
		}
	}
	if err := s.out.print(view{data: r, names: []string{r.Node}, text: func(t *sheet) { t.line("%s", line) }}); err != nil {
		return err
	}
	if !ready {
		return &cliError{exit: ExitFalse, detail: line, silent: true}
	}
	return nil
}

// askReady asks the node that is meant for its readiness.
func (s *session) askReady(ctx context.Context, readyFile string) (answer, content, error) {
	cl := *s.client
	cl.token = "" // /readyz wants none, and the other end may be anyone
	switch named := s.cmd.Flags().Changed("ready-file"); {
	case named && s.cmd.Flags().Changed("addr"):
		return answer{}, content{}, usagef(s.cmd, "--ready-file and --addr both say which node: give one")
	case readyFile != "" && (named || !s.cmd.Flags().Changed("addr")):
		var ready api.ReadyFile
		b, err := os.ReadFile(readyFile)
		if err == nil {
			err = json.Unmarshal(b, &ready)
		}
		if err != nil || ready.HTTP == "" {
			if err == nil {
				err = errors.New("it names no address")
			}
			return answer{}, content{}, &cliError{exit: ExitFalse, detail: fmt.Sprintf("the ready file %s cannot be read: %s", readyFile, strings.TrimPrefix(err.Error(), "open "+readyFile+": ")), remedy: "the node writes it when it is ready; is it the file of its --ready-file?", err: err}
		}
		return s.ownNode(&cl, ready.HTTP).exchange(ctx, http.MethodGet, api.PathReadyz, nil, nil)
	}
	a, body, err := cl.exchange(ctx, http.MethodGet, api.PathReadyz, nil, nil)
	if err != nil || !speaksTLS(a, body) || !onThisMachine(a.addr) {
		return a, body, err
	}
	return s.ownNode(&cl, "https"+strings.TrimPrefix(a.addr, "http")).exchange(ctx, http.MethodGet, api.PathReadyz, nil, nil)
}

// ownNode returns a client for a node of this machine: it has no name there that a certificate could
// be of, and nothing is told to it that others must not hear. With --ca-cert it is held to that.
func (s *session) ownNode(cl *client, addr string) *client {
	own := *cl
	own.addrs = []string{addr}
	if tr, ok := cl.http.Transport.(*http.Transport); ok && s.flags.caCert == "" {
		tr = tr.Clone()
		tr.Proxy = nil
		tr.DisableKeepAlives = true
		tr.TLSClientConfig.InsecureSkipVerify = true
		own.http = &http.Client{Transport: tr, CheckRedirect: cl.http.CheckRedirect}
	}
	return &own
}

// onThisMachine reports whether a base URL is of a loopback address.
func onThisMachine(base string) bool {
	u, err := url.Parse(base)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLoopback() || u.Hostname() == "localhost"
}
