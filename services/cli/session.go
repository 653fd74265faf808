package cli

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nearside/nearside/sdk/api"
)

// session is what a verb works with: the node to ask, the output, and the flags that every
// verb has, checked.
type session struct {
	*app
	cmd      *cobra.Command
	client   *client
	out      *printer
	ns       api.Namespace
	maxStale time.Duration // 0 = any age will do
}

// verb returns the RunE of a verb: flags from the environment, a session, the work.
func (a *app) verb(work func(ctx context.Context, s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		s, err := a.newSession(c)
		if err != nil {
			return err
		}
		defer s.client.close()
		return work(c.Context(), s, args)
	}
}

func (a *app) newSession(c *cobra.Command) (*session, error) {
	if err := a.applyEnv(c); err != nil {
		return nil, err
	}
	g := &a.flags
	if err := api.CheckNamespace(g.ns); err != nil {
		return nil, err
	}
	if g.maxStale < 0 {
		return nil, usagef(c, "--max-stale %s is negative", g.maxStale)
	}
	out, err := a.newPrinter(c)
	if err != nil {
		return nil, err
	}
	cl, err := a.newClient()
	if err != nil {
		return nil, err
	}
	return &session{app: a, cmd: c, client: cl, out: out, ns: api.Namespace(g.ns), maxStale: g.maxStale}, nil
}

// query starts the query of a request about the session's namespace.
func (s *session) query() url.Values {
	q := url.Values{}
	if s.ns != api.DefaultNamespace {
		q.Set("ns", string(s.ns))
	}
	return q
}

// only starts the query of a request about the whole region that a namespace may narrow: it
// does when one is named.
func (s *session) only() url.Values {
	q := s.query()
	if s.cmd.Flags().Changed("ns") {
		q.Set("ns", string(s.ns))
	}
	return q
}

// labelled adds the namespace to a table, behind the names, when it is not the default one.
func (s *session) labelled(columns []column, rows [][]cell) ([]column, [][]cell) {
	return labelled(s.ns, columns, rows)
}

func labelled(ns api.Namespace, columns []column, rows [][]cell) ([]column, [][]cell) {
	if ns == api.DefaultNamespace || ns == "" {
		return columns, rows
	}
	out := make([][]cell, len(rows))
	for i, row := range rows {
		out[i] = slices.Insert(slices.Clone(row), 1, text(string(ns)))
	}
	return slices.Insert(slices.Clone(columns), 1, narrow("NS")...), out
}

// note writes a message to stderr.
func (a *app) note(format string, args ...any) {
	fmt.Fprintln(a.stderr, indented(fmt.Sprintf(format, args...)))
}

// checkAge returns the error of --max-stale when what was printed is older. what names it.
func (s *session) checkAge(age time.Duration, what string) error {
	if s.maxStale == 0 || age <= s.maxStale {
		return nil
	}
	if age == never {
		return &cliError{
			exit:   ExitStale,
			detail: fmt.Sprintf("%s is nothing: it was never heard of, so --max-stale %s does not hold", what, s.maxStale),
			remedy: "\"nearside federation status\" shows why the link is down",
		}
	}
	return &cliError{
		exit:   ExitStale,
		detail: fmt.Sprintf("%s is %s old, more than --max-stale %s", what, shortDuration(age), s.maxStale),
		remedy: "\"nearside regions\" shows every region's age and link",
	}
}

// oldest returns the greatest age among views that want accepts (nil = all), and whose it is.
func oldest(views []api.Origin, want func(api.Region) bool) (time.Duration, api.Region) {
	var (
		age    time.Duration
		region api.Region
	)
	for _, v := range views {
		if d := ageOf(v); d > age && (want == nil || want(v.Region)) {
			age, region = d, v.Region
		}
	}
	return age, region
}

// never is the age of a region that was never heard of: older than any.
const never = time.Duration(math.MaxInt64)

// ageOf returns how old the knowledge of a region is.
func ageOf(o api.Origin) time.Duration {
	if o.Epoch.IsZero() {
		return never
	}
	return milliseconds(o.AgeMS)
}

func checkService(name string) error { return api.CheckServiceName(name) }

// completeServices completes the names of services, within the budget of a shell that waits.
func (a *app) completeServices(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(c, (*session).serviceNames), cobra.ShellCompDirectiveNoFileComp
}

// completeInstances completes a service and then the id of one of its instances.
func (a *app) completeInstances(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 || checkService(args[0]) != nil {
		return a.completeServices(c, args, word)
	}
	return a.complete(c, func(s *session, ctx context.Context) []string { return s.instanceIDs(ctx, args[0]) }), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeRegions(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(c, (*session).regionNames), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) complete(c *cobra.Command, names func(*session, context.Context) []string) []string {
	const budget = 300 * time.Millisecond
	s, err := a.newSession(c)
	if err != nil {
		return nil
	}
	defer s.client.close()
	ctx := c.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	return names(s, ctx)
}
