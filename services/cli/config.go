package cli

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nearside/nearside/sdk/api"
)

// globalFlags are the flags of every verb.
type globalFlags struct {
	addr      string
	tokenFile string
	caCert    string
	ns        string
	output    string
	color     string
	timeout   time.Duration
	maxStale  time.Duration
	noHeaders bool
}

// unsetTimeout is --timeout when nobody gives it.
const unsetTimeout = time.Duration(-1)

const defaultAddr = "http://127.0.0.1:7400"

func (g *globalFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&g.addr, "addr", defaultAddr, "base URL of a region node; several with commas are tried in order")
	fs.StringVar(&g.tokenFile, "token-file", "", "file with the bearer token (or the token itself in NEARSIDE_TOKEN)")
	fs.StringVar(&g.caCert, "ca-cert", "", "PEM file of the authorities to trust for https, instead of the system's")
	fs.StringVarP(&g.ns, "ns", "n", string(api.DefaultNamespace), "namespace")
	fs.StringVarP(&g.output, "output", "o", formatTable, "output: "+strings.Join(formats, ", "))
	fs.StringVar(&g.color, "color", "auto", "colour in tables: auto (a terminal, and no NO_COLOR), always, never")
	fs.DurationVar(&g.timeout, "timeout", unsetTimeout, "longest wait for one answer (default 5s; 10s for what changes something, 20s for members)")
	fs.Lookup("timeout").DefValue = "0s" // so that help shows the text alone
	fs.DurationVar(&g.maxStale, "max-stale", 0, "exit 9 when the data is older than this; 0 = any age will do")
	fs.BoolVar(&g.noHeaders, "no-headers", false, "tables without their first line")
}

// noEnv marks a flag that is not read from the environment. Filters of lists are such: the
// NEARSIDE_ZONE that tells a program its own zone must not hide the other zones' instances.
const noEnv = "nearside_no_env"

func withoutEnv(fs *pflag.FlagSet, names ...string) {
	for _, n := range names {
		_ = fs.SetAnnotation(n, noEnv, []string{"true"})
	}
}

// envName returns the environment variable of a flag.
func envName(flag string) string {
	return "NEARSIDE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// applyEnv sets every flag of c that was not given from its environment variable. An empty
// variable counts as not set.
func (a *app) applyEnv(c *cobra.Command) error {
	var failed error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || failed != nil || f.Name == "help" || f.Annotations[noEnv] != nil {
			return
		}
		v, ok := a.lookupEnv(envName(f.Name))
		if !ok || v == "" {
			return
		}
		var err error
		if list, ok := f.Value.(pflag.SliceValue); ok {
			err = list.Replace(strings.Split(v, ","))
		} else {
			err = f.Value.Set(v)
		}
		if err != nil {
			failed = &cliError{
				exit: ExitUsage, detail: fmt.Sprintf("%s=%s: %s", envName(f.Name), api.Quote(v), err),
				remedy: "correct the variable, or override it with --" + f.Name,
			}
		}
	})
	return failed
}

// newClient builds the client that the flags describe.
func (a *app) newClient() (*client, error) {
	g := &a.flags
	cl := &client{timeout: g.timeout, note: a.note}
	if g.timeout == unsetTimeout {
		cl.timeout = 0
	} else if g.timeout <= 0 {
		return nil, &cliError{exit: ExitUsage, detail: fmt.Sprintf("--timeout %s is not a time to wait", g.timeout), remedy: "use 5s, for example"}
	}
	for _, s := range strings.Split(g.addr, ",") {
		base, err := baseURL(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		cl.addrs = append(cl.addrs, base)
	}
	var err error
	if cl.token, err = a.token(); err != nil {
		return nil, err
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if g.caCert != "" {
		pem, err := os.ReadFile(g.caCert)
		if err != nil {
			return nil, &cliError{exit: ExitUsage, detail: "--ca-cert: " + err.Error(), remedy: "give a readable PEM file"}
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &cliError{exit: ExitUsage, detail: "--ca-cert: no certificate in " + g.caCert, remedy: "give a PEM file"}
		}
	}
	cl.http = &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{}).DialContext, // the request's context bounds it
			TLSClientConfig:     tlsConfig,
			ForceAttemptHTTP2:   true,
			TLSHandshakeTimeout: max(g.timeout, memberPatience),
		},
		// A node never redirects; whoever does is not a node and must not get the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return cl, nil
}

// token returns the bearer token: --token-file, NEARSIDE_TOKEN_FILE, then NEARSIDE_TOKEN.
// There is no flag for the token itself, because others can read a command line.
func (a *app) token() (string, error) {
	if a.flags.tokenFile == "" {
		v, _ := a.lookupEnv("NEARSIDE_TOKEN")
		return checkToken("NEARSIDE_TOKEN", v)
	}
	b, err := os.ReadFile(a.flags.tokenFile)
	if err != nil {
		return "", &cliError{exit: ExitUsage, detail: "--token-file: " + err.Error(), remedy: "give a readable file that holds the token alone"}
	}
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return "", &cliError{exit: ExitUsage, detail: "--token-file: " + a.flags.tokenFile + " is empty", remedy: "give a file that holds the token alone"}
	}
	return checkToken("--token-file", string(b))
}

// checkToken refuses what cannot stand in a header, without repeating it.
func checkToken(from, v string) (string, error) {
	v = strings.TrimSpace(v)
	if strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", &cliError{exit: ExitUsage, detail: from + ": the token has a blank or a character that is not ASCII", remedy: "give the token alone"}
	}
	return v, nil
}

// baseURL reads an address as people write it: a URL, host:port or :port.
func baseURL(s string) (string, error) {
	const remedy = "write it like http://127.0.0.1:7400"
	text := s
	if strings.HasPrefix(text, ":") {
		text = "127.0.0.1" + text
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	bad := ""
	switch {
	case err != nil:
		bad = "is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		bad = "is not http or https"
	case u.Hostname() == "":
		bad = "names no host"
	case u.User != nil:
		// Not shown again: it may hold a password.
		return "", &cliError{exit: ExitUsage, detail: "--addr holds credentials", remedy: "use --token-file or NEARSIDE_TOKEN"}
	case u.RawQuery != "" || u.Fragment != "":
		bad = "has a query"
	}
	if bad != "" {
		return "", &cliError{exit: ExitUsage, detail: fmt.Sprintf("--addr %s %s", api.Quote(s), bad), remedy: remedy}
	}
	return strings.TrimRight(u.String(), "/"), nil
}
